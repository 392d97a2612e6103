// Pods that join their nodes by ServiceAccount tokens: what a review says is read row by row, and then a pod joins by a real
// issuer and a stand-in of the Kubernetes API, and tries what it may not.

import { X509Certificate } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { createApiClient } from '../../lib/k8s/api-client.ts'
import type { Pod } from '../../lib/k8s/objects.ts'
import { createLog } from '../../lib/log.ts'
import { enrolPod } from '../../lib/net/enrolment.ts'
import { followIdentity, type IdentityOptions } from '../../lib/net/identity-loop.ts'
import { nodeInToken } from '../../lib/wire/join.ts'
import { createIssuer } from '../../relay/issuer-server.ts'
import { createTokenReviewer } from '../../relay/token-review-client.ts'
import { nodeOfPod, readReview, type TokenReview } from '../../relay/token-review.ts'
import { createMesh } from './mesh.ts'

const log = createLog('test', 'silent')
const ACCOUNTS = ['fulmar/fulmar-agent', 'fulmar/fulmar-gateway']
const AGENT = 'system:serviceaccount:fulmar:fulmar-agent'
const DAY_MS = 86_400_000
const extra = (values: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [`authentication.kubernetes.io/${key}`, [value]]))
const POD = { 'pod-name': 'agent-x', 'pod-uid': 'u1' }
type Status = NonNullable<TokenReview['status']>
const good: Status = {
  authenticated: true,
  audiences: ['fulmar'],
  user: { username: AGENT, extra: extra({ ...POD, 'node-name': 'h1' }) },
}
const user = (change: object): Status => ({ ...good, user: { ...good.user, ...change } })

t.test('reviews', (t) => {
  const rows: readonly [name: string, status: Status | undefined, expected: object][] = [
    ['bound to a node', good, { kind: 'node', node: 'h1' }],
    [
      'bound to a pod alone',
      user({ extra: extra(POD) }),
      { kind: 'pod', account: 'fulmar/fulmar-agent', pod: { namespace: 'fulmar', name: 'agent-x', uid: 'u1' } },
    ],
    ['the other account', user({ username: 'system:serviceaccount:fulmar:fulmar-gateway' }), { kind: 'node' }],
    ['nothing', undefined, { message: /does not accept/ }],
    ['not accepted', { authenticated: false, error: 'expired' }, { message: /does not accept the token: expired/ }],
    ['an API that knows no audiences', { ...good, audiences: [] }, { message: /not for the audience fulmar/ }],
    ['for the API itself', { ...good, audiences: ['https://kubernetes.default.svc'] }, { message: /audience fulmar/ }],
    [
      'another account',
      user({ username: 'system:serviceaccount:fulmar:default' }),
      { message: /none of --service-accounts/ },
    ],
    ['the same name elsewhere', user({ username: 'system:serviceaccount:shop:fulmar-agent' }), { message: /none of/ }],
    ['a user', user({ username: 'jane' }), { message: /of jane, which is none of/ }],
    ['a node', user({ username: 'system:node:h1' }), { message: /none of/ }],
    ['bound to nothing', user({ extra: {} }), { message: /bound to no pod/ }],
    ['a name that is none', user({ extra: extra({ 'node-name': '../h1' }) }), { message: /bound to no pod/ }],
    [
      'two nodes',
      user({ extra: { 'authentication.kubernetes.io/node-name': ['h1', 'h2'] } }),
      { message: /bound to no pod/ },
    ],
  ]
  for (const [name, status, expected] of rows)
    t.match(readReview({ ...(status && { status }) }, ACCOUNTS), expected, name)

  const pod: Pod = {
    metadata: { uid: 'u1' },
    spec: { containers: [], nodeName: 'h2', serviceAccountName: 'fulmar-agent' },
  }
  const ref = { namespace: 'fulmar', name: 'agent-x', uid: 'u1' }
  const pods: readonly [name: string, found: Pod | undefined, expected: object][] = [
    ['on a node', pod, { kind: 'node', node: 'h2' }],
    ['gone', undefined, { message: /pod fulmar\/agent-x.* is gone/ }],
    ['another of its name', { ...pod, metadata: { uid: 'u2' } }, { message: /is gone/ }],
    [
      'not scheduled',
      { ...pod, spec: { containers: [], serviceAccountName: 'fulmar-agent' } },
      { message: /on no node/ },
    ],
    [
      'of another account',
      { ...pod, spec: { containers: [], nodeName: 'h2', serviceAccountName: 'default' } },
      { message: /not of fulmar\/fulmar-agent/ },
    ],
  ]
  for (const [name, found, expected] of pods) t.match(nodeOfPod('fulmar/fulmar-agent', ref, found), expected, name)
  t.end()
})

/** In its look a JWT; what it claims is for the API to verify, and here its signature names what that says of it. */
const tokenOf = (review: string, node?: string): string =>
  ['{}', JSON.stringify({ 'kubernetes.io': { ...(node !== undefined && { node: { name: node } }) } }), review]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.')

t.test('a pod joins its node, and no other', async (t) => {
  const reviews: Record<string, Status> = {
    h1: good,
    h2: user({ extra: extra(POD) }),
    stranger: user({ username: 'system:serviceaccount:shop:default' }),
  }
  const pod: Pod = {
    metadata: { uid: 'u1' },
    spec: { containers: [], nodeName: 'h2', serviceAccountName: 'fulmar-agent' },
  }
  let isAway = false
  const asked: TokenReview['spec'][] = []
  const api = createServer((request, response) => {
    const answer = (status: number, value: object): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    }
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('end', () => {
      if (isAway) return answer(500, { kind: 'Status', message: 'etcd is away' })
      if (request.url === '/api/v1/namespaces/fulmar/pods/agent-x') return answer(200, pod)
      if (request.url !== '/apis/authentication.k8s.io/v1/tokenreviews') return answer(404, {})
      const { spec } = JSON.parse(body) as TokenReview
      asked.push(spec)
      const review = Buffer.from(spec!.token.split('.')[2]!, 'base64url').toString()
      answer(201, { kind: 'TokenReview', status: reviews[review] ?? { authenticated: false } })
    })
  })
  await new Promise<void>((resolve) => api.listen(0, '127.0.0.1', resolve))
  t.teardown(() => api.close())
  const client = createApiClient({ server: `http://127.0.0.1:${(api.address() as AddressInfo).port}` })
  t.teardown(() => client.close())

  const mesh = await createMesh(t)
  const logged: object[] = []
  const tell = (value: object): void => void logged.push(value)
  const issuer = createIssuer({
    ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
    ...{ certificateLifeMs: 90 * DAY_MS, renewalGraceMs: DAY_MS, now: Date.now },
    review: createTokenReviewer({ client, accounts: ACCOUNTS, log }),
    log: { ...log, info: tell, warn: tell } as unknown as typeof log,
  })
  const { port } = await mesh.listen({ join: issuer.handle })
  const relay = new URL(`https://127.0.0.1:${port}`)
  const folder = await mkdtemp(join(tmpdir(), 'fulmar-pod-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const [caFile, tokenFile] = [join(folder, 'ca.crt'), join(folder, 'token')]
  await writeFile(caFile, mesh.authority.certificatePem)
  let joins = 0
  const attempt = async (token: string, node?: string) => {
    await writeFile(tokenFile, `${token}\n`)
    return enrolPod(join(folder, `state${joins++}`), { relay, caFile, tokenFile, node })
  }

  const h1 = await attempt(tokenOf('h1', 'h1'))
  t.equal(
    new X509Certificate(h1.certificatePem).subject,
    'O=system:nodes\nCN=system:node:h1',
    'by the claim of its token',
  )
  t.match(asked.at(-1), { audiences: ['fulmar'] })
  t.equal((await attempt(tokenOf('h2'), 'h2')).node, 'h2', 'by its pod')

  type Row = readonly [name: string, token: string, node: string | undefined, code: string, reason: RegExp]
  const rows: readonly Row[] = [
    [
      'another node’s name',
      tokenOf('h1', 'h1'),
      'h9',
      'FULMAR_SERVICE_ACCOUNT_OTHER_NODE',
      /pod on node h1, the request for system:node:h9/,
    ],
    [
      'a claim that it made itself',
      tokenOf('h1', 'h9'),
      undefined,
      'FULMAR_SERVICE_ACCOUNT_OTHER_NODE',
      /pod on node h1/,
    ],
    ['another node’s, by its pod', tokenOf('h2'), 'h1', 'FULMAR_SERVICE_ACCOUNT_OTHER_NODE', /pod on node h2/],
    ['another account', tokenOf('stranger'), 'h1', 'FULMAR_SERVICE_ACCOUNT_REFUSED', /none of --service-accounts/],
    ['no token at all', tokenOf('x'), 'h1', 'FULMAR_SERVICE_ACCOUNT_REFUSED', /does not accept/],
  ]
  for (const [name, token, node, code, message] of rows) {
    await t.rejects(attempt(token, node), { code, message }, name)
    t.match(logged.at(-1), { code, reason: message }, `${name}: in the log`)
  }
  isAway = true
  await t.rejects(attempt(tokenOf('h1', 'h1')), { code: 'FULMAR_REVIEW_UNAVAILABLE' }, 'the API is away')

  await writeFile(tokenFile, tokenOf('h1', 'h1'))
  const life = new AbortController()
  const stateDir = join(folder, 'agent')
  const mounted: IdentityOptions = {
    stateDir,
    daemon: 'agent',
    join: { relay, caFile, tokenFile, node: undefined },
    log,
  }
  const joining = followIdentity(mounted, life.signal)
  isAway = false
  const identity = await joining
  t.equal(identity.node, 'h1', 'an agent tries until it can join')
  life.abort()
  await identity.done
  for (const damaged of ['node.crt', 'node.key']) {
    const file = join(stateDir, 'identity', damaged)
    t.match(await readFile(file, 'utf8'), /BEGIN/)
    await writeFile(file, '')
    const again = await followIdentity(mounted, AbortSignal.abort())
    await again.done
    t.ok(
      again.certificatePem.includes('BEGIN') && again.keyPem.includes('BEGIN'),
      `joins anew for a damaged ${damaged}`,
    )
  }
})

t.test('a relay that reviews none', async (t) => {
  const mesh = await createMesh(t)
  const issuer = createIssuer({
    ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
    ...{ certificateLifeMs: DAY_MS, renewalGraceMs: DAY_MS, now: Date.now, log },
  })
  const { port } = await mesh.listen({ join: issuer.handle })
  const [caFile, tokenFile] = [join(mesh.stateDir, 'ca'), join(mesh.stateDir, 'token')]
  await writeFile(caFile, mesh.authority.certificatePem)
  await writeFile(tokenFile, tokenOf('h1', 'h1'))
  const relay = new URL(`https://127.0.0.1:${port}`)
  await t.rejects(enrolPod(join(mesh.stateDir, 'node'), { relay, caFile, tokenFile, node: undefined }), {
    code: 'FULMAR_SERVICE_ACCOUNT_REFUSED',
    message: /--server and --service-accounts/,
  })
})

t.test('the node that a token names', (t) => {
  t.equal(nodeInToken(tokenOf('', 'h1')), 'h1')
  for (const token of ['', 'x', 'a.b.c', tokenOf(''), tokenOf('', '-')]) t.equal(nodeInToken(token), undefined, token)
  t.end()
})
