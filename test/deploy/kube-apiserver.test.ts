// The chart at a real API: what it renders is admitted, its roles allow what the daemons ask and nothing else, and a pod's
// token says on which node it runs.

import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { KEPT, RESOURCES } from '../../agent/snapshot.ts'
import { createApiClient, type ApiClient } from '../../lib/k8s/api-client.ts'
import { NODES } from '../../lib/k8s/objects.ts'
import { runStore } from '../../lib/k8s/store-loop.ts'
import { createLog } from '../../lib/log.ts'
import { enrolPod } from '../../lib/net/enrolment.ts'
import { find } from '../../lib/net/preflight.ts'
import { createIssuer } from '../../relay/issuer-server.ts'
import { followNodeNames } from '../../relay/members-loop.ts'
import { createTokenReviewer } from '../../relay/token-review-client.ts'
import { findHelm, renderChart } from '../lab/helm.ts'
import { lacksKubeApiserver, startKubeApiserver } from '../lib/kube-apiserver.ts'
import { until } from '../mesh/mesh.ts'
import { createMesh } from '../relay/mesh.ts'
import { allTaken } from './renderings.ts'

t.setTimeout(180_000)
const skip =
  lacksKubeApiserver() ||
  (findHelm() === undefined && 'needs helm: go install helm.sh/helm/v3/cmd/helm@v3.19.5') ||
  (find('kubectl') === undefined && 'needs kubectl')
const NAMESPACE = 'fulmar-system'
const DAY_MS = 86_400_000
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
  /** By TokenRequest, as kubelets have them. @param pod that it is bound to. */
  const tokenOf = async (account: string, spec: { readonly audience?: string; readonly pod?: string } = {}) => {
    const { audience, pod } = spec
    const asked = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {
        audiences: audience === undefined ? [] : [audience],
        ...(pod !== undefined && { boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod } }),
      },
    }
    const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`
    const answer = await api.kubectl(['create', '--raw', path, '-f', '-'], JSON.stringify(asked))
    return (JSON.parse(answer) as { readonly status: { readonly token: string } }).status.token
  }
  const as = async (account: string): Promise<ApiClient> => {
    const token = await tokenOf(account)
    return createApiClient({ server: api.url, ca: api.caPem, token: () => token })
  }
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

  await t.test('a relay by its token', async (t) => {
    const client = await as('fulmar-relay')
    const { nodes, done } = followNodeNames(client, log, ending.signal)
    ends.push(done)
    await until('it knows the nodes', () => nodes()?.length === 1)

    const pod = (name: string, account: string) => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: NAMESPACE },
      spec: { nodeName: 'cloud-1', serviceAccountName: account, containers: [{ name: 'c', image: 'i' }] },
    })
    await apply(JSON.stringify(pod('agent-x', 'fulmar-agent')))
    await apply(JSON.stringify(pod('stranger-x', 'fulmar-relay')))
    const audience = 'fulmar'
    const review = createTokenReviewer({ client, accounts: [`${NAMESPACE}/fulmar-agent`], log })

    const good = await tokenOf('fulmar-agent', { audience, pod: 'agent-x' })
    t.same(await review(good), { kind: 'node', node: 'cloud-1' }, 'the node that the pod of a token runs on')
    const refused: readonly (readonly [string, string, RegExp])[] = [
      ['for the API itself', await tokenOf('fulmar-agent', { pod: 'agent-x' }), /does not accept|not for the audience/],
      ['of no pod', await tokenOf('fulmar-agent', { audience }), /bound to no pod/],
      [
        'of another account',
        await tokenOf('fulmar-relay', { audience, pod: 'stranger-x' }),
        /none of --service-accounts/,
      ],
      ['cut off', good.slice(0, -8), /does not accept/],
    ]
    for (const [name, token, message] of refused)
      t.match(await review(token), { kind: 'refused', status: 403, message }, `a token ${name}`)

    const mesh = await createMesh(t)
    const { handle } = createIssuer({
      ...{ stateDir: mesh.stateDir, authority: mesh.authority, relays: [], stun: [] },
      ...{ certificateLifeMs: DAY_MS, renewalGraceMs: DAY_MS, now: Date.now, review, log },
    })
    const { port } = await mesh.listen({ join: handle })
    const [caFile, tokenFile] = [join(mesh.stateDir, 'ca.crt'), join(mesh.stateDir, 'token')]
    writeFileSync(caFile, mesh.authority.certificatePem)
    writeFileSync(tokenFile, good)
    const enrolled = await enrolPod(join(mesh.stateDir, 'node'), {
      ...{ relay: new URL(`https://127.0.0.1:${port}`), caFile, tokenFile, node: undefined },
    })
    t.equal(new X509Certificate(enrolled.certificatePem).subject, 'O=system:nodes\nCN=system:node:cloud-1', 'it joins')

    await kubectl('-n', NAMESPACE, 'delete', 'pod', 'agent-x', '--force', '--grace-period=0')
    const gone = async () => (await review(good)).kind === 'refused'
    await until('a token of a pod that is gone is refused', gone)
  })
})
