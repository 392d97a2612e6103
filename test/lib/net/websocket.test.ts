// Our WebSocket with ws at the other end, of either kind, and with itself.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { connect, type ConnectionOptions } from 'node:tls'
import t from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { https } from '../../../lib/net/http.ts'
import {
  acceptWebSocket,
  HEADROOM_BYTES,
  type RawWebSocket,
  upgradeWebSocket,
  type WebSocketEnd,
} from '../../../lib/net/websocket.ts'
import { MUX_PATH } from '../../../lib/wire/mux.ts'
import { refuseUpgrade } from '../../../relay/websocket-server.ts'
import { closeCode, createMesh, type Mesh } from '../../relay/mesh.ts'
import { listen } from '../../relay/ops.ts'
import { until } from '../until.ts'

const MAX_BYTES = 70_000
const SIZES = [0, 1, 125, 126, 65_535, 65_536, 70_000]
const NEVER = new AbortController().signal

/** Sends every message back. @param onEnd what it was told at the end. */
function echo(socket: RawWebSocket, onEnd: (end: WebSocketEnd) => void = () => {}): void {
  let parts: Buffer[] = []
  const payload = (bytes: Buffer, end: boolean): void => {
    parts.push(bytes)
    if (!end) return
    send(socket, Buffer.concat(parts))
    parts = []
  }
  socket.use({ payload, end: onEnd }, MAX_BYTES)
}

function send(socket: RawWebSocket, message: Buffer): void {
  socket.send(Buffer.concat([Buffer.alloc(HEADROOM_BYTES), message]), message.length, () => {})
}

async function dialOurs(mesh: Mesh, port: number, timeoutMs = 10_000): Promise<RawWebSocket> {
  const { certificatePem: cert, keyPem: key } = await mesh.node('edge-7')
  const dial = (to: ConnectionOptions) => connect({ ...to, cert, key, ca: mesh.authority.certificatePem })
  return upgradeWebSocket(
    new URL(`https://127.0.0.1:${port}${MUX_PATH}`),
    dial,
    { connectMs: 10_000, answerMs: timeoutMs },
    NEVER,
  )
}

t.test('our server and the client of ws', async (t) => {
  const mesh = await createMesh(t)
  const ends: WebSocketEnd[] = []
  const { port } = await mesh.listen({
    ops: (request, stream, head) =>
      echo(acceptWebSocket(request, stream, head, refuseUpgrade)!, (end) => ends.push(end)),
  })
  const caPem = mesh.authority.certificatePem
  const { certificatePem, keyPem } = await mesh.node('edge-7')
  // With masks as browsers make them.
  const options = { ca: caPem, cert: certificatePem, key: keyPem, perMessageDeflate: true }
  const socket = new WebSocket(`wss://127.0.0.1:${port}${MUX_PATH}`, options)
  await once(socket, 'open')
  for (const size of SIZES) {
    const message = randomBytes(size)
    socket.send(message)
    const [answer] = (await once(socket, 'message')) as [Buffer]
    t.ok(answer.equals(message), `${size} bytes`)
  }
  socket.send(Buffer.from('frag'), { fin: false })
  socket.ping('well?')
  socket.send(Buffer.from('ments'))
  const [[pong], [answer]] = (await Promise.all([once(socket, 'pong'), once(socket, 'message')])) as [
    [Buffer],
    [Buffer],
  ]
  t.same([String(pong), String(answer)], ['well?', 'fragments'])
  socket.close(4000, 'enough')
  t.equal(await closeCode(socket), 4000)
  await until(() => ends.length > 0)
  t.match(ends, [{ code: 4000, reason: 'enough', error: undefined }])

  const rude = await mesh.dial(port, MUX_PATH, await mesh.node('edge-7'))
  rude.send('text')
  t.equal(await closeCode(rude), 1008)
  const long = await mesh.dial(port, MUX_PATH, await mesh.node('edge-7'))
  long.send(Buffer.alloc(MAX_BYTES + 1))
  t.equal(await closeCode(long), 1009)
})

t.test('our client and the server of ws', async (t) => {
  const mesh = await createMesh(t)
  const server = new WebSocketServer({ noServer: true })
  const theirs = Promise.withResolvers<WebSocket>()
  const { port } = await mesh.listen({
    ops: (request, stream, head) =>
      server.handleUpgrade(request, stream, head, (socket) => {
        // With the answer to the upgrade.
        socket.send(Buffer.from('at once'))
        theirs.resolve(socket)
      }),
  })
  const ours = await dialOurs(mesh, port)
  const socket = await theirs.promise
  const ended = new Promise<WebSocketEnd>((resolve) => echo(ours, resolve))
  const [first] = (await once(socket, 'message')) as [Buffer]
  t.equal(String(first), 'at once')
  for (const size of SIZES) {
    const message = randomBytes(size)
    socket.send(message)
    const [answer] = (await once(socket, 'message')) as [Buffer]
    t.ok(answer.equals(message), `${size} bytes`)
  }
  ours.close(4001, 'replaced')
  t.equal(await closeCode(socket), 4001)
  t.match(await ended, { code: 4001 })
})

t.test('ends', async (t) => {
  const mesh = await createMesh(t)
  const accepted: RawWebSocket[] = []
  const ends: WebSocketEnd[] = []
  const { port } = await mesh.listen({
    ops: (request, stream, head) => {
      const socket = acceptWebSocket(request, stream, head, refuseUpgrade)!
      accepted.push(socket)
      echo(socket, (end) => ends.push(end))
    },
  })
  const rows: readonly [name: string, end: (server: RawWebSocket) => void, code: number][] = [
    ['by a word', (server) => server.close(4002, 'the certificate expired'), 4002],
    ['by a cut', (server) => server.terminate(), 1006],
  ]
  for (const [name, end, code] of rows) {
    const ours = await dialOurs(mesh, port)
    const ended = new Promise<WebSocketEnd>((resolve) => echo(ours, resolve))
    end(accepted.at(-1)!)
    t.equal((await ended).code, code, name)
    t.notOk(ours.open, name)
  }
  t.equal(ends.length, 2)
})

t.test('why there is none', async (t) => {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({
    ops: (_request, stream) => refuseUpgrade(stream, 503, 'the relay stops'),
  })
  await t.rejects(dialOurs(mesh, port), { message: 'the relay answered 503 Service Unavailable' })
  const silent = await listen(t, () => {})
  await t.rejects(dialOurs(mesh, silent.port, 50), { message: 'no answer within 0.05 s' })
  const nobody = createServer()
  await new Promise<void>((resolve) => nobody.listen(0, '127.0.0.1', resolve))
  const { port: closed } = nobody.address() as { port: number }
  await new Promise((resolve) => nobody.close(resolve))
  await t.rejects(dialOurs(mesh, closed), { code: 'ECONNREFUSED' })
})

t.test('requests that are none', async (t) => {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({
    ops: (request, stream, head) => {
      acceptWebSocket(request, stream, head, refuseUpgrade)
    },
  })
  const { certificatePem: cert, keyPem: key } = await mesh.node('edge-7')
  const ask = async (headers: Record<string, string>): Promise<number> => {
    const url = `https://127.0.0.1:${port}${MUX_PATH}`
    const call = https.request(url, {
      ...{ cert, key, ca: mesh.authority.certificatePem },
      headers: { connection: 'Upgrade', ...headers },
    })
    call.end()
    const [response] = (await once(call, 'response')) as [{ statusCode: number; resume(): void }]
    response.resume()
    return response.statusCode
  }
  const good = 'dGhlIHNhbXBsZSBub25jZQ=='
  const rows: readonly [name: string, headers: Record<string, string>, status: number][] = [
    ['no key', { upgrade: 'websocket', 'sec-websocket-version': '13' }, 400],
    ['a bad key', { upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'x' }, 400],
    ['another protocol', { upgrade: 'h2c', 'sec-websocket-version': '13', 'sec-websocket-key': good }, 400],
    ['another version', { upgrade: 'websocket', 'sec-websocket-version': '8', 'sec-websocket-key': good }, 426],
  ]
  for (const [name, headers, status] of rows) t.equal(await ask(headers), status, name)
})
