import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import type { WebSocket } from 'ws'
import {
  decodeSignal,
  encodeSignal,
  SIGNAL_PATH,
  type SignalFrame,
  type SignedAnnouncement,
} from '../../lib/wire/signal.ts'
import { runSignalServer, type SignalServer } from '../../relay/signal-server.ts'
import { closeCode, createMesh, log, reader, type Mesh } from './mesh.ts'

type Gateway = {
  readonly socket: WebSocket
  readonly send: (frame: SignalFrame | string | Buffer) => void
  readonly next: () => Promise<SignalFrame>
  readonly waiting: () => number
}
type Test = { teardown(fn: () => unknown): unknown }

const HELLO: SignalFrame = { kind: 'hello', version: 1, role: 'gateway' }
const signed = (payload: string): SignedAnnouncement => ({ certificate: 'c', payload, signature: 's' })
const announce = (node: string, payload: string): SignalFrame => ({
  kind: 'announce',
  node,
  announcement: signed(payload),
})

async function start(t: Test, mesh?: Mesh, heartbeatMs = 10_000, mayReach = (_from: string, _to: string) => true) {
  const home = mesh ?? (await createMesh(t))
  const life = new AbortController()
  const server: SignalServer = await runSignalServer(
    { stateDir: home.stateDir, relay: 'relay-1', mayReach, heartbeatMs, log },
    AbortSignal.any([home.signal, life.signal]),
  )
  home.holds(server.closed)
  const { port } = await home.listen({ signal: server.sessions.upgrade })
  const dial = async (node: string): Promise<Gateway> => {
    const socket = await home.dial(port, SIGNAL_PATH, await home.node(node))
    const { next, waiting } = reader(socket)
    return {
      socket,
      send: (frame) => socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : encodeSignal(frame)),
      next: async () => decodeSignal((await next()).toString())!,
      waiting,
    }
  }
  const greet = async (node: string): Promise<Gateway> => {
    const gateway = await dial(node)
    gateway.send(HELLO)
    t.teardown(() => gateway.socket.terminate())
    const welcome = await gateway.next()
    if (welcome.kind !== 'welcome') throw new Error(`${welcome.kind} instead of welcome`)
    return gateway
  }
  const stop = async () => {
    life.abort()
    await server.closed
  }
  return { mesh: home, server, dial, greet, stop }
}

/** Resolves when a node has no session any more, or after 5 s. */
async function ended(server: SignalServer, node: string): Promise<void> {
  for (let i = 0; i < 100 && server.sessions.byNode.has(node); i++) await wait(50)
}

t.test('gateways learn of each other, call each other, and hear who is not there', async (t) => {
  const { greet, server } = await start(t)
  const a = await greet('a')
  a.send(announce('a', 'a1'))
  const b = await greet('b')
  t.same(await b.next(), announce('a', 'a1'), 'a newcomer gets all')
  b.send(announce('b', 'b1'))
  t.same(await a.next(), announce('b', 'b1'), 'the others get the newcomer')
  a.send(announce('a', 'a2'))
  t.same(await b.next(), announce('a', 'a2'), 'and each change')

  a.send({ kind: 'call', node: 'b', reply: false })
  t.same(await b.next(), { kind: 'call', node: 'a', reply: false }, 'a call says who calls')
  b.send({ kind: 'ready', node: 'a', reply: true })
  t.same(await a.next(), { kind: 'ready', node: 'b', reply: true })
  a.send({ kind: 'call', node: 'nobody', reply: false })
  t.same(await a.next(), { kind: 'gone', node: 'nobody' }, 'nobody answers')

  b.send('{"kind":"of a later version","x":1}')
  b.send({ kind: 'call', node: 'a', reply: false })
  t.same(await a.next(), { kind: 'call', node: 'b', reply: false })
  b.socket.close()
  await ended(server, 'b')
  a.send({ kind: 'call', node: 'b', reply: false })
  t.same(await a.next(), { kind: 'gone', node: 'b' })
})

t.test('welcome says what the relay sees', async (t) => {
  const { dial } = await start(t)
  const { socket, send, next } = await dial('a')
  send(HELLO)
  const welcome = await next()
  t.match(welcome, { kind: 'welcome', relay: 'relay-1', observedAddress: /^127\.0\.0\.1:\d+$/ })
  socket.terminate()
})

t.test('announcements outlive the relay', async (t) => {
  const mesh = await createMesh(t)
  const first = await start(t, mesh)
  const a = await first.greet('a')
  for (let i = 0; i <= 20; i++) a.send(announce('a', `a${i}`))
  const b = await first.greet('b')
  while (true) {
    const frame = await b.next()
    if (frame.kind === 'announce' && frame.announcement.payload === 'a20') break
  }
  await first.stop()
  const second = await start(t, mesh)
  t.same(await (await second.greet('c')).next(), announce('a', 'a20'))
})

t.test('a new session replaces the old without a farewell', async (t) => {
  const { greet, server } = await start(t)
  const watcher = await greet('w')
  const old = await greet('a')
  const ended = closeCode(old.socket)
  const young = await greet('a')
  t.equal(await ended, 4001)
  young.send(announce('a', 'young'))
  t.same(await watcher.next(), announce('a', 'young'), 'the first that others hear')
  t.equal(server.sessions.byNode.size, 2)
})

t.test('a session that breaks the rules ends', async (t) => {
  const { dial, greet } = await start(t)
  const [watcher, other] = [await greet('w'), await greet('o')]
  const rows: readonly [name: string, frames: readonly (SignalFrame | string | Buffer)[], code: number][] = [
    ['not JSON', [HELLO, '{'], 1008],
    ['binary', [HELLO, Buffer.from('{}')], 1008],
    ['something before hello', [announce('a', 'x')], 1008],
    ['hello twice', [HELLO, HELLO], 1008],
    ['an announcement of another node', [HELLO, announce('w', 'forged')], 1008],
    ['what only the relay says', [HELLO, { kind: 'gone', node: 'w' }], 1008],
    ['a field of the wrong type', [HELLO, '{"kind":"call","node":5,"reply":false}'], 1008],
    ['a frame too long', [HELLO, 'x'.repeat(70_000)], 1009],
    ['too many frames', Array(1500).fill(HELLO).fill('{"kind":"later"}', 1), 1008],
  ]
  for (const [name, frames, code] of rows) {
    const gateway = await dial('a')
    const ended = closeCode(gateway.socket)
    for (const frame of frames) gateway.send(frame)
    t.equal(await ended, code, name)
    other.send(announce('o', name))
    t.same(await watcher.next(), announce('o', name), `${name}: others hear nothing of it`)
  }
})

t.test('who announces without end is cut off', async (t) => {
  const { greet } = await start(t)
  const [watcher, a, other] = [await greet('w'), await greet('a'), await greet('o')]
  const ended = closeCode(a.socket)
  for (let i = 0; i < 200; i++) a.send(announce('a', `a${i}`))
  t.equal(await ended, 1008)
  other.send(announce('o', 'the end'))
  const isOfA = (frame: SignalFrame) => frame.kind === 'announce' && frame.node === 'a'
  let heard = 0
  while (isOfA(await watcher.next())) heard++
  t.ok(heard >= 64 && heard < 100, `others heard ${heard}`)
})

t.test('a pair that policy refuses does not hear of each other', async (t) => {
  const { greet } = await start(t, undefined, 10_000, (from, to) => !(from === 'a' && to === 'b'))
  const [a, b, c] = [await greet('a'), await greet('b'), await greet('c')]
  a.send(announce('a', 'x'))
  t.same(await c.next(), announce('a', 'x'))
  a.send({ kind: 'call', node: 'b', reply: false })
  t.same(await a.next(), { kind: 'gone', node: 'b' })
  t.equal(b.waiting(), 0)
})

t.test('a dead link is noticed, a living one is left alone', async (t) => {
  const { greet, server } = await start(t, undefined, 50)
  await greet('living')
  const dead = await greet('dead')
  // A socket that is not read answers no ping: what a cut link looks like from the relay.
  dead.socket.pause()
  await ended(server, 'dead')
  await wait(300)
  t.same([...server.sessions.byNode.keys()], ['living'])
})

t.test('a session ends with its certificate', async (t) => {
  const { mesh, server } = await start(t, undefined, 50)
  const { port } = await mesh.listen({ signal: server.sessions.upgrade })
  const nowMs = Date.now()
  const client = await mesh.node('a', { notBefore: new Date(nowMs - 60_000), notAfter: new Date(nowMs + 2_000) })
  const socket = await mesh.dial(port, SIGNAL_PATH, client)
  t.equal(await closeCode(socket), 4002)
})
