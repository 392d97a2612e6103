// The chart at the embedded API, by kubectl: all that it renders is taken by a server-side dry run, and a pod of it has a
// token that says on which node it runs. That API has no schema to validate fields by: chart.test.ts compares them with
// Kubernetes' types, and kube-apiserver.test.ts has a real one say so.

import { execFile } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { createClient, validFor } from '../../lib/certificates.ts'
import { find } from '../../lib/net/preflight.ts'
import { nodeInToken } from '../../lib/wire/join.ts'
import { createApi } from '../../relay/api/api-server.ts'
import { lacksHelm, renderChart, template } from '../lab/helm.ts'
import { until } from '../lib/until.ts'
import { createMesh } from '../relay/mesh.ts'
import { log, nodeManifest, temporaryFolder, write } from '../relay/api/serving.ts'
import { NAMESPACE, podTokens, tokenOf, type TokenApi } from './pod-tokens.ts'
import { allTaken } from './renderings.ts'

t.setTimeout(120_000)
const skip = lacksHelm() || (find('kubectl') === undefined && 'needs kubectl')

t.test('the chart at the embedded API', { skip }, async (t) => {
  const mesh = await createMesh(t)
  const home = temporaryFolder(t)
  const directory = temporaryFolder(t)
  const relay = { replicas: [{ node: 'cloud-1', public: ['203.0.113.10'] }] }
  const identity = { ca: mesh.authority.certificatePem }
  const joining = await renderChart({ identity, relay, api: { server: 'https://203.0.113.10:6443' } })
  const pod = {
    ...{ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'stays-x', namespace: NAMESPACE } },
    spec: { nodeName: 'edge-1', serviceAccountName: 'fulmar-agent' },
  }
  write(directory, {
    'node.yaml': `${nodeManifest('cloud-1')}---\n${nodeManifest('edge-1')}`,
    'chart.yaml': joining,
    'pod.json': JSON.stringify(pod),
  })
  const api = createApi({ directory, stateDir: temporaryFolder(t), tokenKey: new Uint8Array(32).fill(1), log })
  mesh.holds(api.run(mesh.signal))
  const { port } = await mesh.listen({ api: api.handle })
  await until(() => api.status()!.objects > 0, 'the folder is read')
  t.strictSame(api.status()!.problems, [], 'the folder takes what the chart renders')

  const subject = { commonName: 'admin', organization: 'system:masters' }
  const admin = await createClient(mesh.authority, subject, validFor(Date.now(), 1))
  const files = { 'ca.crt': mesh.authority.certificatePem, 'tls.crt': admin.certificatePem, 'tls.key': admin.keyPem }
  write(home, files)
  const flags = (client: readonly string[]) => [
    `--server=https://127.0.0.1:${port}`,
    `--certificate-authority=${home}/ca.crt`,
    ...client,
  ]
  const ADMIN = [`--client-certificate=${home}/tls.crt`, `--client-key=${home}/tls.key`]
  const kubectl = async (args: readonly string[], client = ADMIN): Promise<string> => {
    const env = { PATH: process.env['PATH'], HOME: home, KUBECONFIG: '/dev/null' }
    const { stdout } = await promisify(execFile)('kubectl', [...flags(client), ...args], { env })
    return stdout
  }
  const apply = (yaml: string): Promise<string> => {
    writeFileSync(join(home, 'objects.yaml'), yaml)
    return kubectl(['apply', '--server-side', '--dry-run=server', '--validate=ignore', '-f', `${home}/objects.yaml`])
  }

  await t.test('all that it renders is taken', async (t) => {
    await allTaken(t, joining, apply)
    const before = await kubectl(['get', 'daemonsets', '-n', NAMESPACE, '-o', 'name'])
    await apply(await template('--set', 'wireguardGo.enabled=true'))
    t.equal(await kubectl(['get', 'daemonsets', '-n', NAMESPACE, '-o', 'name']), before, 'and nothing is kept')
  })

  await t.test('what is wrong in it is refused', async (t) => {
    const rows = [
      [/^kind: DaemonSet$/m, 'kind: DemonSet', /DemonSet/],
      [/^apiVersion: apps\/v1$/m, 'apiVersion: apps/v1beta1', /apps\/v1beta1/],
      [/^( +)name: fulmar-agent$/m, '$1name: Fulmar_Agent', /Fulmar_Agent|no DNS name/],
      [/^( +)namespace: fulmar-system$/m, '$1namespace: elsewhere', /namespaces "elsewhere" not found/],
    ] as const
    for (const [what, instead, message] of rows)
      await t.rejects(apply(joining.replace(what, instead)), { message }, instead.trim())
  })

  const post = async (path: string, body: string): Promise<string> => {
    write(home, { 'request.json': body })
    return kubectl(['create', '--raw', path, '-f', `${home}/request.json`])
  }
  const read = (kind: string, name: string) => kubectl(['get', kind, '-n', NAMESPACE, name, '-o', 'name'])
  const tokens: TokenApi = {
    ...{ server: `https://127.0.0.1:${port}`, ca: mesh.authority.certificatePem, post },
    async addPod(name, pod) {
      write(directory, { [`${name}.json`]: pod })
      await until(() => read('pod', name).then(Boolean, () => false), `pod ${name} is read`)
    },
    removePod: async (name) => rmSync(join(directory, `${name}.json`)),
  }
  await t.test('the tokens of pods', (t) => podTokens(t, tokens))

  await t.test('what a pod may by its token', async (t) => {
    const token = await tokenOf(tokens, 'fulmar-agent', { pod: 'stays-x' })
    t.equal(nodeInToken(token), 'edge-1')
    const as = (...args: readonly string[]) => kubectl(args, [`--token=${token}`])
    t.equal(await as('get', 'nodes', '-o', 'name'), 'node/cloud-1\nnode/edge-1\n', 'its role lets it list nodes')
    await t.rejects(as('get', 'configmaps', '-A'), {
      message: /User "system:serviceaccount:fulmar-system:fulmar-agent" cannot list resource "configmaps"/,
    })
    await t.rejects(as('get', 'node', 'edge-1'), { message: /cannot get resource "nodes"/ }, 'and not get one')
    await t.rejects(tokenOf(tokens, 'fulmar-agent', { pod: 'ghost' }), { message: /pods "ghost" not found/ })
  })
})
