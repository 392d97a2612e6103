// Clients that mean harm, at every port of a relay: what they send is answered or cut in time, and costs others nothing.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import t from 'tap'
import { createClient, validFor } from '../../lib/certificates.ts'
import { acceptOf, controlFrame, OPCODE } from '../../lib/wire/websocket.ts'
import { encodeMux, MUX_PATH } from '../../lib/wire/mux.ts'
import { runEgressServer } from '../../relay/egress-server.ts'
import { runKubeletServer } from '../../relay/kubelet-server.ts'
import { createMesh, log } from './mesh.ts'
import { createOps, echo, listen, NEVER, self } from './ops.ts'
import { helloOf } from '../lib/client-hello.ts'
import { until } from '../lib/until.ts'

const DEADLINE_MS = 400

/** All that comes until the other side closes. */
async function lastWords(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = []
  stream.on('error', () => {})
  stream.once('end', () => stream.end())
  stream.on('data', (chunk: Buffer) => chunks.push(chunk)).resume()
  // A client that is cut while it writes meets an error first.
  await until(() => stream.closed, 'it was not cut')
  return Buffer.concat(chunks).toString('latin1')
}

/** Says a byte every few milliseconds for as long as somebody listens. */
function drip(stream: Duplex, bytes: Buffer): void {
  let at = 0
  const timer = setInterval(() => stream.writable && stream.write(bytes.subarray(at, ++at)), 5)
  stream.once('close', () => clearInterval(timer))
}

t.test('CONNECTs of nobody: over the Unix socket and TLS of kube-apiserver', async (t) => {
  const mesh = await createMesh(t)
  const path = join(mesh.stateDir, 'egress.sock')
  let dials = 0
  const server = await runEgressServer(
    {
      ...{ socket: path, listen: [{ address: '127.0.0.1', port: 0 }], users: ['kube-apiserver'], log },
      ...{ certificate: mesh.server, authorityPem: mesh.authority.certificatePem, requestMs: DEADLINE_MS },
      dial: () => new Promise(() => dials++),
    },
    mesh.signal,
  )
  mesh.holds(server.closed)
  const { certificatePem: cert, keyPem: key } = await createClient(
    mesh.authority,
    { commonName: 'kube-apiserver', organization: undefined },
    validFor(Date.now(), 1),
  )
  const shown = { ca: mesh.authority.certificatePem, cert, key, allowHalfOpen: true }
  const ways: Readonly<Record<string, () => Duplex>> = {
    'Unix socket': () => connect({ path, allowHalfOpen: true }),
    mTLS: () => connectTls({ ...shown, port: server.addresses[0]!.port, host: '127.0.0.1' }),
  }
  const connectTo = (target: string): string => `CONNECT ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`
  const rows: readonly [name: string, said: string, answer: RegExp][] = [
    ['a page', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', /^HTTP\/1\.1 405 /],
    ['no HTTP', 'hello?\r\n\r\n', /^HTTP\/1\.1 400 /],
    ['giant headers', `CONNECT edge-7:10250 HTTP/1.1\r\nx: ${'a'.repeat(100_000)}\r\n\r\n`, /^HTTP\/1\.1 431 /],
    ['many headers', `CONNECT edge-7:10250 HTTP/1.1\r\n${'x: y\r\n'.repeat(20_000)}\r\n`, /^HTTP\/1\.1 431 /],
    ['a port too high', connectTo('edge-7:65536'), /^HTTP\/1\.1 400 CONNECT is for HOST:PORT\r\n/],
    ['six digits', connectTo('edge-7:102500'), /^HTTP\/1\.1 400 /],
    ['no port', connectTo('edge-7'), /^HTTP\/1\.1 400 /],
    ['port 0', connectTo('edge-7:0'), /^HTTP\/1\.1 400 /],
    ['a name too long', connectTo(`${'a'.repeat(254)}:1`), /^HTTP\/1\.1 400 /],
    ['an address with a zone', connectTo('[fe80::1%lo]:1'), /^HTTP\/1\.1 400 /],
    ['an address without brackets', connectTo('fe80::1:1'), /^HTTP\/1\.1 400 /],
    ['a user', connectTo('admin@edge-7:10250'), /^HTTP\/1\.1 400 /],
    ['a path', connectTo('edge-7:10250/healthz'), /^HTTP\/1\.1 400 /],
    ['nothing', '', /^(HTTP\/1\.1 408 |$)/],
    ['a request without an end', 'CONNECT edge-7:10250 HTTP/1.1\r\nHost: x\r\n', /^(HTTP\/1\.1 408 |$)/],
  ]
  for (const [way, open] of Object.entries(ways))
    await t.test(way, async (t) => {
      await Promise.all(
        rows.map(async ([name, said, answer]) => {
          const stream = open()
          stream.write(said)
          t.match(await lastWords(stream), answer, name)
        }),
      )
      const slow = open()
      drip(slow, Buffer.from(`CONNECT edge-7:10250 HTTP/1.1\r\nx: ${'a'.repeat(5_000)}\r\n\r\n`))
      t.match(await lastWords(slow), /^(HTTP\/1\.1 408 |$)/, 'a byte now and then')
      t.equal(dials, 0, 'nothing was dialled')
    })
})

t.test('ClientHellos at the port of kubelets', async (t) => {
  const mesh = await createMesh(t)
  const dials: string[] = []
  const server = await runKubeletServer(
    {
      ...{ listen: [{ address: '127.0.0.1', port: 0 }], log, helloMs: DEADLINE_MS },
      nodeOf: (name) => (name === 'edge-7' ? name : undefined),
      dial: (node) => new Promise(() => dials.push(node)),
    },
    mesh.signal,
  )
  mesh.holds(server.closed)
  const hello = await helloOf('edge-7')
  const longer = Buffer.from(hello)
  longer.writeUInt16BE(0x3fff, 3)
  longer.writeUIntBE(0x3ffb, 6, 3)
  const alert = (description: number): string => Buffer.from([21, 3, 3, 0, 2, 2, description]).toString('latin1')
  const rows: readonly [name: string, act: (socket: Socket) => void, answer: string][] = [
    ['without a name', async (socket) => socket.write(await helloOf('')), alert(112)],
    ['for a name of nobody', async (socket) => socket.write(await helloOf('edge-8')), alert(112)],
    ['that never ends: all but a byte', (socket) => socket.write(hello.subarray(0, -1)), ''],
    ['that never ends: byte by byte', (socket) => drip(socket, hello.subarray(0, 30)), ''],
    ['that says it is longer, and goes on', (socket) => socket.write(longer), ''],
    ['of 16 MiB', (socket) => socket.write(Buffer.concat([longer, Buffer.alloc(16 << 20, 1)])), alert(50)],
    ['in records of a byte', (socket) => socket.write(Buffer.from('16030100010116030100010016', 'hex')), ''],
    ['of nothing', (socket) => socket.write(Buffer.from('1603010000', 'hex')), alert(50)],
  ]
  await Promise.all(
    rows.map(async ([name, act, answer]) => {
      const socket = connect({ host: '127.0.0.1', port: server.addresses[0]!.port })
      await once(socket, 'connect')
      const told = lastWords(socket)
      act(socket)
      t.equal(await told, answer, name)
    }),
  )
  t.same(dials, [])
  const gone = connect({ host: '127.0.0.1', port: server.addresses[0]!.port })
  gone.write(hello)
  await until(() => dials.length === 1)
  gone.resetAndDestroy()
})

/** A node's connection to the relay that speaks as it likes, from the upgrade on. @param early goes with the request. */
async function upgraded(
  { mesh, port }: Pick<Awaited<ReturnType<typeof createOps>>, 'mesh' | 'port'>,
  node: string,
  early: Buffer = Buffer.alloc(0),
): Promise<Duplex> {
  const { certificatePem: cert, keyPem: key } = await mesh.node(node)
  const stream = connectTls({ host: '127.0.0.1', port, ca: mesh.authority.certificatePem, cert, key })
  stream.on('error', () => {})
  const websocketKey = 'dGhlIHNhbXBsZSBub25jZQ=='
  const request =
    `GET ${MUX_PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${websocketKey}\r\n\r\n`
  stream.write(Buffer.concat([Buffer.from(request), early]))
  const [answer] = (await once(stream, 'data')) as [Buffer]
  stream.pause()
  if (!answer.includes(acceptOf(websocketKey))) throw new Error(answer.toString())
  return stream
}

const HELLO = encodeMux({ kind: 'hello', text: '{}' })
/** As of a client, with a mask of zeros. */
const masked = (message: Buffer): Buffer =>
  Buffer.concat([Buffer.from([0x82, 0x80 | message.length, 0, 0, 0, 0]), message])

t.test('what comes with the request to switch protocols is not lost', async (t) => {
  const world = await createOps(t)
  const stream = await upgraded(world, 'edge-7', masked(HELLO))
  await until(() => world.relay.absence('edge-7') === undefined)
  stream.destroy()
  t.pass('it was greeted')
})

t.test('a node that opens connections and says nothing takes the place of no other', async (t) => {
  const world = await createOps(t)
  const server = await listen(t, echo)
  const streams: Duplex[] = []
  for (let i = 0; i < 12; i++) streams.push(await upgraded(world, 'bad'))
  for (const stream of streams) stream.resume()
  await until(() => streams.filter(({ closed }) => closed).length === 8, 'all but the last four are cut')
  await world.agent('edge-7', server.port)
  streams.at(-1)!.write(masked(HELLO))
  await until(() => world.relay.absence('bad') === undefined, 'and who speaks at last has its session')
  t.ok(await world.relay.dial('edge-7', self(server.port), NEVER))
  for (const stream of streams) stream.destroy()
})

t.test('a node that pings without end and reads no answer fills no memory', async (t) => {
  const world = await createOps(t)
  const stream = await upgraded(world, 'bad', masked(HELLO))
  await until(() => world.relay.absence('bad') === undefined)
  const pings = Buffer.concat(Array.from({ length: 2_000 }, () => controlFrame(OPCODE.ping, Buffer.alloc(125), true)))
  const before = process.memoryUsage().rss
  // What the kernel holds of the answers is some MiB at most.
  let sent = 0
  while (sent < 96 << 20 && !stream.destroyed) {
    sent += pings.length
    if (!stream.write(pings)) await once(stream, 'drain')
  }
  const grown = (process.memoryUsage().rss - before) / 2 ** 20
  t.ok(grown < 128, `${Math.round(grown)} MiB more after ${sent >> 20} MiB of pings`)
  stream.destroy()
})
