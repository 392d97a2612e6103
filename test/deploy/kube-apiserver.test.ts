// The chart at a real API: what it renders is admitted, its roles allow what the daemons ask and nothing else, and a pod's
// token says on which node it runs.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { KEPT, RESOURCES } from '../../agent/snapshot.ts'
import { NODES } from '../../lib/k8s/objects.ts'
import { runStore } from '../../lib/k8s/store-loop.ts'
import { createLog } from '../../lib/log.ts'
import { find } from '../../lib/net/preflight.ts'
import { followNodeNames } from '../../relay/members-loop.ts'
import { lacksHelm, renderChart } from '../lab/helm.ts'
import { lacksKubeApiserver, startKubeApiserver } from '../lib/kube-apiserver.ts'
import { until } from '../mesh/mesh.ts'
import { clientOf, NAMESPACE, podTokens, type TokenApi } from './pod-tokens.ts'
import { allTaken } from './renderings.ts'

t.setTimeout(180_000)
const skip = lacksKubeApiserver() || lacksHelm() || (find('kubectl') === undefined && 'needs kubectl')
const log = createLog('test', 'silent')

t.test('the chart at a kube-apiserver', { skip }, async (t) => {
  const api = await startKubeApiserver(t)
  const kubectl = (...args: readonly string[]): Promise<string> => api.kubectl(args)
  const apply = (yaml: string, ...flags: readonly string[]): Promise<string> =>
    api.kubectl(['apply', '--server-side', ...flags, '-f', '-'], yaml)
  await kubectl('create', 'namespace', NAMESPACE)
  await kubectl('label', 'namespace', NAMESPACE, 'pod-security.kubernetes.io/enforce=privileged')
  const identity = { ca: api.caPem }
  const relay = { replicas: [{ node: 'cloud-1', public: ['203.0.113.10'] }] }
  const joining = await renderChart({ identity, relay, api: { server: api.url } })

  await t.test('all that it renders is admitted', async (t) => {
    await allTaken(t, joining, (yaml) => apply(yaml, '--dry-run=server'))
    const misspelt = joining.replace('hostNetwork: true', 'hostNetworks: true')
    await t.rejects(apply(misspelt, '--dry-run=server'), /hostNetworks/, 'and what it does not know is refused')
  })

  await apply(joining)
  for (const name of ['cloud-1', 'edge-1'])
    await api.kubectl(['create', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name } }))
  const tokens: TokenApi = {
    ...{ server: api.url, ca: api.caPem },
    post: (path, body) => api.kubectl(['create', '--raw', path, '-f', '-'], body),
    addPod: (_name, pod) => apply(pod),
    removePod: (name) => kubectl('-n', NAMESPACE, 'delete', 'pod', name, '--force', '--grace-period=0'),
  }
  const as = (account: string) => clientOf(tokens, account)
  const ending = new AbortController()
  const ends: Promise<unknown>[] = []
  t.teardown(async () => {
    ending.abort()
    await Promise.all(ends)
  })

  await t.test('its roles', async (t) => {
    const may = async (account: string, verb: string, what: string): Promise<boolean> => {
      const [path = '', group = ''] = what.split(/\.(.*)/)
      const [resource, subresource] = path.split('/')
      const spec = {
        user: `system:serviceaccount:${NAMESPACE}:${account}`,
        resourceAttributes: { namespace: NAMESPACE, verb, group: group && `${group}.k8s.io`, resource, subresource },
      }
      const asked = { apiVersion: 'authorization.k8s.io/v1', kind: 'SubjectAccessReview', spec }
      const reviews = '/apis/authorization.k8s.io/v1/subjectaccessreviews'
      const answer = await api.kubectl(['create', '--raw', reviews, '-f', '-'], JSON.stringify(asked))
      return (JSON.parse(answer) as { readonly status: { readonly allowed: boolean } }).status.allowed
    }
    const others = ['get secrets', 'list configmaps', 'patch nodes', 'delete pods', 'create pods/exec', 'create pods']
    for (const account of ['fulmar-agent', 'fulmar-gateway', 'fulmar-relay']) {
      t.ok(await may(account, 'watch', 'nodes'), `${account} and nodes`)
      for (const other of [...others, 'create serviceaccounts/token', 'list roles.rbac.authorization']) {
        const [verb = '', what = ''] = other.split(' ')
        t.notOk(await may(account, verb, what), `${account}: ${other}`)
      }
    }
    t.ok(await may('fulmar-relay', 'create', 'tokenreviews.authentication'))
    t.notOk(await may('fulmar-agent', 'create', 'tokenreviews.authentication'))
  })

  await t.test('an agent by its token', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'fulmar-store-'))
    t.teardown(() => rmSync(folder, { recursive: true, force: true }))
    const store = await runStore(
      {
        resources: RESOURCES,
        kept: KEPT,
        client: await as('fulmar-agent'),
        file: join(folder, 'store.db'),
        log,
        onChange: () => {},
      },
      ending.signal,
    )
    ends.push(store.done)
    const nodes = () => store.list(NODES).map(({ metadata }) => metadata?.name)
    await until('it knows the nodes', () => nodes().length === 2, { seen: nodes })
    t.same(nodes(), ['cloud-1', 'edge-1'])
    await kubectl('delete', 'node', 'edge-1')
    await until('and hears of one that is deleted', () => nodes().length === 1, { seen: nodes })
  })

  await t.test('a relay by its token', async () => {
    const client = await as('fulmar-relay')
    const { nodes, done } = followNodeNames(client, log, ending.signal)
    ends.push(done)
    await until('it knows the nodes', () => nodes()?.length === 1)
  })

  await t.test('the tokens of pods', (t) => podTokens(t, tokens))
})
