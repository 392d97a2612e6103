// The rules of the chart's roles are what the daemons ask of an API, no more and no less: a small API notes all of it.

import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { parse } from 'yaml'
import { followPods } from '../../agent/pods-loop.ts'
import { KEPT, RESOURCES } from '../../agent/snapshot.ts'
import { followPools } from '../../gateway/pools-loop.ts'
import { createApiClient } from '../../lib/k8s/api-client.ts'
import { runStore } from '../../lib/k8s/store-loop.ts'
import { createLog } from '../../lib/log.ts'
import { followNodeNames } from '../../relay/members-loop.ts'
import { createTokenReviewer } from '../../relay/token-review-client.ts'

const REPOSITORY = join(import.meta.dirname, '../..')
const log = createLog('test', 'silent')
const WITHIN_MS = 20_000

type Rule = {
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
  readonly verbs: readonly string[]
}
/** `verb resource.group`, each once, in order. */
const written = (files: readonly string[]): readonly string[] =>
  files
    .flatMap((name) => parse(readFileSync(`${REPOSITORY}/deploy/chart/files/${name}-rules.yaml`, 'utf8')) as Rule[])
    .flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}.${group}`)),
      ),
    )
    .toSorted()

/** Runs what talks to an API until it has asked for as much as is written, and a little longer. */
async function record(
  t: Test,
  files: readonly string[],
  run: (server: string, folder: string, signal: AbortSignal) => Promise<unknown>,
): Promise<readonly string[]> {
  const asked = new Set<string>()
  const server = createServer((request, response) => {
    const verb = noted(request)
    asked.add(verb)
    if (verb === 'create tokenreviews.authentication.k8s.io') response.end(JSON.stringify(REVIEW))
    else if (verb.startsWith('watch')) response.writeHead(200).flushHeaders()
    else response.end(JSON.stringify({ items: [], metadata: { resourceVersion: '1' } }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-'))
  const ending = new AbortController()
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
    rmSync(folder, { recursive: true, force: true })
  })
  const done = run(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, folder, ending.signal)
  for (const end = Date.now() + WITHIN_MS; asked.size < written(files).length && Date.now() < end;) await sleep(20)
  await sleep(200)
  ending.abort()
  await done
  return [...asked].toSorted()
}

/** Of a token that names its pod and not its node, so that the pod is asked for too. */
const REVIEW = {
  status: {
    authenticated: true,
    audiences: ['fulmar'],
    user: {
      username: 'system:serviceaccount:ns:agent',
      extra: {
        'authentication.kubernetes.io/pod-name': ['agent-1'],
        'authentication.kubernetes.io/pod-uid': ['uid-1'],
      },
    },
  },
}
const VERBS: Readonly<Record<string, string>> = { POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' }

/** As an API server reads it. */
function noted({ method = '', url = '' }: IncomingMessage): string {
  const { pathname, searchParams } = new URL(url, 'http://api')
  const [, core, group = '', resource = '', name] =
    /^\/(?:(api)|apis\/([^/]+))\/[^/]+(?:\/namespaces\/[^/]+)?\/([^/]+)(?:\/([^/]+))?$/.exec(pathname) ?? []
  const read = searchParams.has('watch') ? 'watch' : name === undefined ? 'list' : 'get'
  return `${VERBS[method] ?? read} ${resource}.${core === undefined ? group : ''}`
}

t.test('agent', async (t) => {
  const asked = await record(t, ['agent'], async (server, folder, signal) => {
    const client = createApiClient({ server })
    const store = await runStore(
      { resources: RESOURCES, kept: KEPT, client, file: join(folder, 'store.db'), log, onChange: () => {} },
      signal,
    )
    const pods = followPods({ client, node: 'h1', cgroups: () => folder, file: join(folder, 'pods'), log }, signal)
    return Promise.all([store.done, pods.done])
  })
  t.strictSame(asked, written(['agent']))
})

t.test('gateway', async (t) => {
  const asked = await record(t, ['gateway'], async (server, folder, signal) => {
    const identity = { node: 'h1', server, relays: ['https://192.0.2.1:443'], stun: [] }
    const pools = await followPools(
      {
        identity: { ...identity, caPem: '', certificatePem: '', keyPem: '' },
        access: { serverToken: undefined, serverCa: undefined },
        stateDir: folder,
        sessions: () => [],
        onChange: () => {},
        log,
      },
      signal,
    )
    return pools.done
  })
  t.strictSame(asked, written(['gateway']))
})

t.test('relay', async (t) => {
  const files = ['relay', 'relay-join', 'relay-join-namespace']
  const asked = await record(t, files, async (server, _folder, signal) => {
    const client = createApiClient({ server })
    const review = createTokenReviewer({ client, accounts: ['ns/agent'], log })
    return Promise.all([followNodeNames(client, log, signal).done, review('token')])
  })
  t.strictSame(asked, written(files))
})

t.test('nothing else of the daemons talks to the API', (t) => {
  const sources = ['agent', 'gateway', 'relay'].flatMap((folder) =>
    readdirSync(join(REPOSITORY, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`),
  )
  const users = sources.filter(
    (path) => path.endsWith('.ts') && /\bcreateApiClient\(/.test(readFileSync(join(REPOSITORY, path), 'utf8')),
  )
  t.strictSame(users, ['agent/main.ts', 'gateway/pools-loop.ts', 'relay/main.ts'])
  const uses = (path: string, pattern: RegExp): number =>
    readFileSync(`${REPOSITORY}/${path}`, 'utf8').match(pattern)?.length ?? 0
  const where = 'and gives its client to what is noted here only'
  t.equal(uses('agent/main.ts', /[({ ]client,/g), 2, `the agent ${where}`)
  t.equal(uses('relay/main.ts', /[(:] ?kubernetes\b/g), 2, `the relay ${where}`)
  t.end()
})
