import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { promisify } from 'node:util'
import t from 'tap'
import { createClient, validFor, type KeyPair } from '../../../lib/certificates.ts'
import { createApi } from '../../../relay/api/api-server.ts'
import { createKubeletClient } from '../../../relay/api/kubelet-client.ts'
import type { Kubectl, Target } from '../../lab/kubectl/session.ts'
import { opsContainers, runSuite } from '../../lab/kubectl/suite.ts'
import { connected } from '../../lab/kubelet/netns-socket.ts'
import { startProcess } from '../../lab/kubelet/process.ts'
import { POD_SERVER } from '../../lab/paths.ts'
import { anotherAuthority } from '../mesh.ts'
import { createOps } from '../ops.ts'
import { serveKubelet, servePod } from './kubelets.ts'
import { log, temporaryFolder, write } from './serving.ts'
import { until } from '../../lib/until.ts'

const run = promisify(execFile)
const hasKubectl = (process.env['PATH'] ?? '').split(':').some((folder) => existsSync(join(folder, 'kubectl')))
const COPY_BYTES = 4 << 20
const containers = [...opsContainers, { name: 'web', command: ['sleep', 'infinity'] }]
const podManifest = (name: string, node: string) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ops' },
    spec: { nodeName: node, containers },
    status: { phase: 'Running' },
  })
const nodeManifest = (name: string, port: number) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    status: { allocatable: { cpu: '2', memory: '1Gi' }, daemonEndpoints: { kubeletEndpoint: { Port: port } } },
  })

t.test('what kubelets answer', async (t) => {
  const home = temporaryFolder(t)
  const { mesh, relay, agent } = await createOps(t)
  const common = { authority: mesh.authority, containers, namespace: 'ops' }
  const edge = await serveKubelet(t, { ...common, node: 'edge', pod: 'edge-ops', directory: join(home, 'edge') })
  // A node that was led to another's kubelet.
  const liar = await serveKubelet(t, {
    ...common,
    node: 'liar',
    pod: 'liar-ops',
    directory: join(home, 'liar'),
    names: ['edge', '127.0.0.1'],
  })
  const old = await serveKubelet(t, {
    ...common,
    node: 'old',
    pod: 'old-ops',
    directory: join(home, 'old'),
    webSockets: false,
  })
  // Of a fourth node there is no session.
  const ports = { edge: edge.port, liar: liar.port, old: old.port, away: 10250 }
  const directory = temporaryFolder(t)
  for (const [name, kubelet] of Object.entries(ports)) {
    write(directory, {
      [`${name}.json`]: nodeManifest(name, kubelet),
      [`${name}-ops.json`]: podManifest(`${name}-ops`, name),
    })
    if (name !== 'away') await agent(name, kubelet)
  }
  const identity = (commonName: string, organization: string) =>
    createClient(mesh.authority, { commonName, organization }, validFor(Date.now(), 1))
  const credentials = identity('kube-apiserver-kubelet-client', 'system:masters')
  const kubelets = createKubeletClient({
    dial: relay.dial,
    serverCa: mesh.authority.certificatePem,
    credentials: () => credentials,
    log,
  })
  const api = createApi({ directory, stateDir: temporaryFolder(t), kubelets, tokenKey: randomBytes(32), log })
  mesh.holds(api.run(mesh.signal))
  const { port } = await mesh.listen({ api: api.handle, apiUpgrade: api.handleUpgrade })
  await until(() => api.status()!.objects >= 8, 'the folder is read')

  const authority = join(home, 'ca.crt')
  writeFileSync(authority, mesh.authority.certificatePem)
  const flagsOf = (name: string, pair: KeyPair) => {
    const [cert, key] = [join(home, `${name}.crt`), join(home, `${name}.key`)]
    writeFileSync(cert, pair.certificatePem)
    writeFileSync(key, pair.keyPem)
    return [
      `--server=https://127.0.0.1:${port}`,
      `--certificate-authority=${authority}`,
      `--client-certificate=${cert}`,
      `--client-key=${key}`,
    ]
  }
  const adminPair = await identity('admin', 'system:masters')
  const admin = flagsOf('admin', adminPair)
  const env = { PATH: process.env['PATH'], HOME: home, KUBECONFIG: '/dev/null' }

  await t.test('kubectl', { skip: hasKubectl ? false : 'kubectl is not installed' }, async (t) => {
    const kubectl: Kubectl = {
      start: (args, more) =>
        spawn('kubectl', [...admin, ...args], { env: { ...env, ...more }, stdio: ['pipe', 'pipe', 'pipe'] }),
      startInTerminal: (args, more) =>
        startProcess(['kubectl', [...admin, ...args]], {
          command: [],
          tty: true,
          stdin: true,
          env: { ...env, ...more },
        }),
      connect: connectTo,
    }
    const free = createServer().listen(0)
    const freePort = (free.address() as AddressInfo).port
    free.close()
    const podDirectory = join(home, 'pod')
    mkdirSync(podDirectory)
    const target: Target = {
      node: 'edge',
      namespace: 'ops',
      pod: 'edge-ops',
      port: await servePod(t, POD_SERVER, freePort),
      copyBytes: COPY_BYTES,
      directory: podDirectory,
      top: true,
    }
    await runSuite(kubectl, target, ({ name, protocol = '', ok, ms, detail }) =>
      t.ok(ok, `${name} ${protocol}: ${detail} (${ms} ms)`),
    )
    // kubectl asks by SPDY where a kubelet before 1.36 has no WebSocket: what it said must come through as it was.
    await runSuite(
      kubectl,
      { ...target, node: 'old', pod: 'old-ops' },
      ({ name, ok, detail }) => t.ok(ok, `${name} by a kubelet without WebSocket: ${detail}`),
      (name) => name === 'exec' || name === 'port-forward',
      ['websocket'],
    )
    await until(() => edge.open() + old.open() === 0, 'every connection to the kubelets is closed again')
  })

  await t.test('errors name the node', { skip: hasKubectl ? false : 'kubectl is not installed' }, async (t) => {
    const refused = async (words: RegExp, ...argv: readonly string[]) => {
      const running = run('kubectl', argv, { env })
      running.child.stdin?.end()
      t.match(
        await running.then(
          ({ stdout }) => stdout,
          (error: Error) => error.message,
        ),
        words,
        argv.slice(4).join(' '),
      )
    }
    const user = flagsOf('user', await identity('ann', 'viewers'))
    const node = flagsOf('node', await mesh.node('edge'))
    const ops = ['-n', 'ops']
    await refused(/ServiceUnavailable.*away /, ...admin, 'logs', ...ops, 'away-ops', '-c', 'lines')
    await refused(/away /, ...admin, 'exec', ...ops, 'away-ops', '-c', 'shell', '--', 'true')
    await refused(/liar cannot be asked: TLS: .*does not match/, ...admin, 'logs', ...ops, 'liar-ops', '-c', 'lines')
    await refused(
      /container nobody is not valid for pod edge-ops/,
      ...admin,
      'logs',
      ...ops,
      'edge-ops',
      '-c',
      'nobody',
    )
    await refused(
      /previous terminated container "shell" not found \(node edge\)/,
      ...admin,
      'logs',
      ...ops,
      'edge-ops',
      '-c',
      'shell',
      '-p',
    )
    await refused(/^5000\n$/, ...user, 'logs', ...ops, 'edge-ops', '-c', 'lines', '--tail=1')
    await refused(
      /User "ann" cannot (get|create) resource "pods\/exec"/,
      ...user,
      'exec',
      ...ops,
      'edge-ops',
      '-c',
      'shell',
      '--',
      'true',
    )
    await refused(
      /User "system:node:edge" cannot get resource "pods\/log"/,
      ...node,
      'logs',
      ...ops,
      'edge-ops',
      '-c',
      'lines',
    )
    await refused(/cannot get resource "nodes\/proxy"/, ...user, 'get', '--raw', '/api/v1/nodes/edge/proxy/metrics')
  })

  await t.test('a connection is the client’s only after the kubelet has switched protocols', async (t) => {
    // The kubelet refuses (no command); whatever follows must not reach it with the API's certificate.
    const path = '/api/v1/namespaces/ops/pods/edge-ops/exec?container=shell&stdout=true'
    const head =
      'Host: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n'
    const answer = await conversation(port, mesh.authority, adminPair, [
      `POST ${path} HTTP/1.1\r\n${head}`,
      'GET /pods HTTP/1.1\r\nHost: x\r\n\r\n',
    ])
    t.match(answer, /^HTTP\/1\.1 400 /)
    t.match(answer, /you must specify a command \(node edge\)/)
    t.notMatch(answer, /PodList/)
    t.equal(answer.split('HTTP/1.1').length, 2, 'one answer')
  })

  await t.test('a page of another origin opens no shell', async (t) => {
    const ask = (origin: string) =>
      conversation(port, mesh.authority, adminPair, [
        `GET /api/v1/namespaces/ops/pods/edge-ops/exec?container=shell&stdout=true HTTP/1.1\r\nHost: relay:443\r\n` +
          `Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: ${origin}\r\n\r\n`,
      ])
    t.match(await ask('https://evil.example'), /^HTTP\/1\.1 403 /)
    t.match(await ask('null'), /^HTTP\/1\.1 403 /)
    t.match(await ask('https://relay:8443'), /^HTTP\/1\.1 403 /)
    t.match(await ask('http://relay:443'), /^HTTP\/1\.1 403 /)
    t.match(await ask('https://relay'), /you must specify a command/, 'its own page may')
  })

  await t.test('a client that goes is gone at the kubelet', async (t) => {
    const tls = connectTls({ port, host: '127.0.0.1', ...clientOptions(mesh.authority, adminPair) })
    tls.on('error', () => {})
    tls.write('GET /api/v1/namespaces/ops/pods/edge-ops/log?container=ticker&follow=true HTTP/1.1\r\nHost: x\r\n\r\n')
    await new Promise((resolve) => tls.once('data', resolve))
    t.equal(edge.open(), 1)
    tls.destroy()
    const startedMs = performance.now()
    await until(() => edge.open() === 0, 'the kubelet’s connection ends')
    t.ok(performance.now() - startedMs < 1_000, 'within a second')
  })

  await t.test('a CA of others is not trusted', async (t) => {
    const stranger = await anotherAuthority()
    const other = createKubeletClient({
      dial: relay.dial,
      serverCa: stranger.certificatePem,
      credentials: () => credentials,
      log,
    })
    const call = { kind: 'call', node: 'edge', port: edge.port, path: '/pods', what: 'pods', asStatus: true } as const
    await t.rejects(other.read(call, 1024, AbortSignal.timeout(5_000)), {
      message: /kubelet of node edge cannot be asked: TLS/,
    })
    const foreign = createClient(
      stranger,
      { commonName: 'api', organization: 'system:masters' },
      validFor(Date.now(), 1),
    )
    const unknown = createKubeletClient({
      dial: relay.dial,
      serverCa: mesh.authority.certificatePem,
      credentials: () => foreign,
      log,
    })
    await t.rejects(unknown.read(call, 1024, AbortSignal.timeout(5_000)), { message: /does not trust this API/ })
  })
})

const connectTo = (port: number): Promise<Socket> =>
  connected(connect({ host: '127.0.0.1', port, allowHalfOpen: true }), AbortSignal.timeout(5_000))

const clientOptions = (authority: KeyPair, client: KeyPair) => ({
  ca: authority.certificatePem,
  cert: client.certificatePem,
  key: client.keyPem,
})

/** What comes back to all that is said, until the other side closes. */
async function conversation(
  port: number,
  authority: KeyPair,
  client: KeyPair,
  words: readonly string[],
): Promise<string> {
  const tls = connectTls({ port, host: '127.0.0.1', ...clientOptions(authority, client) })
  tls.on('error', () => {})
  for (const word of words) tls.write(word)
  let text = ''
  for await (const chunk of tls as AsyncIterable<Buffer>) text += chunk.toString()
  return text
}
