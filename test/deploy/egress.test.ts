// The ways of a real kube-apiserver to a kubelet: EgressSelector by a Unix socket and by mTLS, and the relay's port for kubelets
// by the node's name; a relay, an agent, and kubectl as the client of it all. What the relay says is wrong reaches who asked.

import { execFile, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { createClient, validFor } from '../../lib/certificates.ts'
import { find } from '../../lib/net/preflight.ts'
import { runOpsServer } from '../../relay/ops-server.ts'
import type { Kubectl, Target } from '../lab/kubectl/session.ts'
import { opsContainers, runSuite } from '../lab/kubectl/suite.ts'
import { connected } from '../lab/kubelet/netns-socket.ts'
import { startProcess } from '../lab/kubelet/process.ts'
import { POD_SERVER } from '../lab/paths.ts'
import { freeTcpPorts } from '../lib/free-ports.ts'
import { lacksKubeApiserver, startKubeApiserver, type KubeApiserver } from '../lib/kube-apiserver.ts'
import { until } from '../lib/until.ts'
import { serveKubelet, servePod } from '../relay/api/kubelets.ts'
import { temporaryFolder } from '../relay/api/serving.ts'
import { log } from '../relay/mesh.ts'
import { createOps } from '../relay/ops.ts'

t.setTimeout(280_000)
const skip = lacksKubeApiserver() || (find('kubectl') === undefined && 'needs kubectl')
const run = promisify(execFile)
const [NODE, POD, NAMESPACE] = ['edge-7', 'edge-7-ops', 'ops']
const COPY_BYTES = 8 << 20
/** On its LAN. */
const ADDRESS = '192.168.77.7'
const containers = [...opsContainers, { name: 'web', command: ['sleep', 'infinity'] }]
/** A kube-apiserver before 1.36 speaks SPDY to kubelets, whatever kubectl speaks to it. */
const ONCE = ['logs', 'logs -f', 'exec', 'exec -it', 'port-forward', 'get --raw nodes/proxy']

/** What deploy/kubectl.md gives, each by something that is in it alone. */
const GUIDE = {
  '/run/fulmar/egress.sock': guided('/run/fulmar/egress.sock'),
  'https://RELAY:8131': guided('https://RELAY:8131'),
  'kind: Deployment': guided('kind: Deployment'),
}

/** kube-apiserver proxies to no loopback address. */
const OWN = Object.values(networkInterfaces())
  .flatMap((infos = []) => infos)
  .find(({ internal, family }) => !internal && family === 'IPv4')?.address

/**
 * Where the node's name leads by kube-apiserver's /etc/hosts. Before it proxies to a node it looks the name up, and wants an
 * address that is not loopback's nor link-local; with an EgressSelector it dials the name all the same. By addresses it asks
 * nobody.
 */
const ROWS = [
  { way: 'Unix socket', by: 'Hostname', hosts: ADDRESS, cases: undefined, offline: /503 edge-7 offline \d/ },
  { way: 'mTLS', by: 'InternalIP', hosts: undefined, cases: ONCE, offline: /503 edge-7 offline \d/ },
  // Who speaks TLS to the kubelet is told by TLS.
  { way: 'name in TLS', by: 'Hostname', hosts: OWN, cases: ONCE, offline: /remote error: tls: internal error/ },
] as const

for (const { way, by, hosts, cases, offline } of ROWS)
  t.test(`kubectl through kube-apiserver, by ${way} and ${by}`, { skip }, async (t) => {
    const home = temporaryFolder(t)
    const file = (name: string, content: string): string => {
      writeFileSync(join(home, name), content)
      return join(home, name)
    }
    const { mesh, relay, agent } = await createOps(t)
    const { authority } = mesh
    const kubelet = await serveKubelet(t, {
      ...{ node: NODE, pod: POD, namespace: NAMESPACE, authority, containers },
      ...{ directory: join(home, 'containers'), names: [NODE, ADDRESS] },
    })
    const edge = await agent(NODE, kubelet.port)
    const socket = join(home, 'egress.sock')
    const [egressPort, kubeletPort] = (await freeTcpPorts(2)) as [number, number]
    const node = nodeObject(way === 'name in TLS' ? kubeletPort : 10250)
    const ops = await runOpsServer(
      {
        config: {
          egressSocket: socket,
          egressListen: [{ address: '127.0.0.1', port: egressPort, family: 4 }],
          kubeletListen: [{ address: OWN ?? '127.0.0.1', port: kubeletPort, family: 4 }],
          ...{ egressUsers: ['kube-apiserver'], cloudNodes: [], proxyUsers: undefined },
        },
        ...{ certificate: mesh.server, authorityPem: authority.certificatePem, nodes: () => [node], log },
        sessions: { dial: relay.dial, absence: relay.absence, lostAt: (node) => relay.lost.get(node) },
      },
      mesh.signal,
    )
    mesh.holds(ops.closed)
    const client = (commonName: string, organization?: string) =>
      createClient(authority, { commonName, organization }, validFor(Date.now(), 1))
    const toKubelets = await client('kube-apiserver-kubelet-client', 'system:masters')
    const ca = file('ca.crt', authority.certificatePem)
    const own = await client('kube-apiserver', 'egress')
    file('client.crt', own.certificatePem)
    file('client.key', own.keyPem)
    const selection = GUIDE[way === 'mTLS' ? 'https://RELAY:8131' : '/run/fulmar/egress.sock']
      .replace('/run/fulmar/egress.sock', socket)
      .replace('RELAY:8131', `127.0.0.1:${egressPort}`)
      .replaceAll('/etc/kubernetes/fulmar', home)
    const flagsOfApi = {
      ...(way !== 'name in TLS' && { 'egress-selector-config-file': file('egress.yaml', selection) }),
      'kubelet-preferred-address-types': by,
      'kubelet-certificate-authority': ca,
      'kubelet-client-certificate': file('kubelet.crt', toKubelets.certificatePem),
      'kubelet-client-key': file('kubelet.key', toKubelets.keyPem),
    }
    const api = await startKubeApiserver(t, flagsOfApi, hosts && `127.0.0.1 localhost\n${hosts} ${NODE}\n`)
    await createObjects(api, node)

    const made = await api.kubectl(['create', '--dry-run=server', '-f', '-'], GUIDE['kind: Deployment'])
    t.match(made, /^deployment\S+ created .+\nservice\S+ created /, 'a console as a Service, as the guide has it')

    const flags = [`--kubeconfig=${api.kubeconfig}`, `--cache-dir=${join(home, 'cache')}`]
    const env = { PATH: process.env['PATH'], HOME: home }
    const kubectl: Kubectl = {
      start: (args, more) =>
        spawn('kubectl', [...flags, ...args], { env: { ...env, ...more }, stdio: ['pipe', 'pipe', 'pipe'] }),
      startInTerminal: (args, more) =>
        startProcess(['kubectl', [...flags, ...args]], {
          ...{ command: [], tty: true, stdin: true },
          env: { ...env, ...more },
        }),
      connect: (port) =>
        connected(connect({ host: '127.0.0.1', port, allowHalfOpen: true }), AbortSignal.timeout(30_000)),
    }
    const [freePort] = (await freeTcpPorts(1)) as [number]
    const directory = join(home, 'pod')
    mkdirSync(directory)
    const target: Target = {
      ...{ node: NODE, namespace: NAMESPACE, pod: POD, copyBytes: COPY_BYTES, directory },
      port: await servePod(t, POD_SERVER, freePort),
      // No API of metrics is there.
      top: false,
    }
    const outcomes = await runSuite(
      kubectl,
      target,
      ({ name, protocol = '', ok, ms, detail }) => t.ok(ok, `${name} ${protocol}: ${detail} (${ms} ms)`),
      (name) => cases === undefined || cases.includes(name),
      cases === undefined ? undefined : ['websocket'],
    )
    t.ok(outcomes.length >= ONCE.length)

    const said = (...args: readonly string[]): Promise<string> =>
      run('kubectl', [...flags, ...args], { env }).then(
        ({ stdout }) => stdout,
        ({ stderr }: { stderr: string }) => stderr,
      )
    if (way === 'Unix socket')
      t.match(
        await said('get', '--raw', `/api/v1/nodes/${NODE}:9/proxy/`),
        /403 edge-7: edge-7:9 is not open to the cloud here/,
        'a port of the node that is not declared',
      )
    await edge.stop()
    await until(() => relay.absence(NODE) !== undefined)
    // kube-apiserver keeps connections to kubelets; those are gone with the agent.
    t.match(await said('logs', '-n', NAMESPACE, POD, '-c', 'lines'), offline, 'logs')
    t.match(await said('exec', '-n', NAMESPACE, POD, '-c', 'shell', '--', 'true'), offline, 'exec')
    t.match(await said('get', '--raw', `/api/v1/nodes/${NODE}/proxy/metrics`), offline, 'nodes/proxy')
    await agent(NODE, kubelet.port)
    t.equal(await said('logs', '-n', NAMESPACE, POD, '-c', 'lines', '--tail=1'), '5000\n', 'and it is back')
  })

/** As its kubelet would write it. */
const nodeObject = (kubeletPort: number) => ({
  metadata: { name: NODE },
  status: {
    addresses: [
      { type: 'InternalIP', address: ADDRESS },
      { type: 'Hostname', address: NODE },
    ],
    daemonEndpoints: { kubeletEndpoint: { Port: kubeletPort } },
  },
})

/** As kubelet and scheduler would have them. */
async function createObjects(api: KubeApiserver, { metadata, status }: ReturnType<typeof nodeObject>): Promise<void> {
  const create = (object: object): Promise<string> => api.kubectl(['create', '-f', '-'], JSON.stringify(object))
  const patch = (what: readonly string[], own: object): Promise<string> =>
    api.kubectl(['patch', ...what, '--subresource=status', '--type=merge', '-p', JSON.stringify({ status: own })])
  await create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } })
  await create({ apiVersion: 'v1', kind: 'Node', metadata })
  await patch(['node', NODE], status)
  await create({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: POD, namespace: NAMESPACE },
    spec: { nodeName: NODE, containers: containers.map((container) => ({ ...container, image: 'none' })) },
  })
  await patch(['pod', '-n', NAMESPACE, POD], { phase: 'Running' })
}

/** @returns the YAML of the guide that has this in it. */
function guided(what: string): string {
  const text = readFileSync(join(import.meta.dirname, '../../deploy/kubectl.md'), 'utf8')
  const blocks = Array.from(text.matchAll(/^ {2}```yaml\n(.*?)^ {2}```$/gms), ([, block = '']) => block)
  const found = blocks.filter((block) => block.includes(what))
  if (found.length !== 1) throw new Error(`deploy/kubectl.md has ${found.length} blocks with ${what}`)
  return found[0]!.replaceAll(/^ {2}/gm, '')
}
