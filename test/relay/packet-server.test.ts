import t from 'tap'
import type { WebSocket } from 'ws'
import {
  bindFrame,
  boundNode,
  dataFrame,
  indexOf,
  kindOf,
  packetOf,
  PACKETS_PATH,
} from '../../lib/wire/packet-frame.ts'
import { runPacketServer, type PacketServer } from '../../relay/packet-server.ts'
import { closeCode, createMesh, log, reader, type Mesh } from './mesh.ts'
import { until } from '../lib/until.ts'

type Relay = {
  readonly mesh: Mesh
  readonly packets: PacketServer
  readonly dial: (node: string) => Promise<WebSocket>
}

async function start(
  t: { teardown(fn: () => unknown): unknown },
  mayReach = (_from: string, _to: string) => true,
): Promise<Relay> {
  const mesh = await createMesh(t)
  const packets = runPacketServer({ mayReach, log }, mesh.signal)
  mesh.holds(packets.closed)
  const { port } = await mesh.listen({ packets: packets.sessions.upgrade })
  return { mesh, packets, dial: async (node) => mesh.dial(port, PACKETS_PATH, await mesh.node(node)) }
}

const packet = (number: number, bytes: number): Buffer => {
  const buffer = Buffer.alloc(bytes, number & 0xff)
  buffer.writeUInt32BE(number)
  return buffer
}

t.test('two gateways exchange 1000 packets, in order and unchanged', async (t) => {
  const { packets, dial } = await start(t)
  const [a, b] = [await dial('a'), await dial('b')]
  const [fromB, fromA] = [reader(a), reader(b)]
  a.send(bindFrame(7, 'b'))
  b.send(bindFrame(0xfffffff0, 'a'))
  const COUNT = 1000
  const received: Record<string, number> = { a: 0, b: 0 }
  const send = async (socket: WebSocket, index: number, from: string) => {
    for (let i = 0; i < COUNT; i++) {
      socket.send(dataFrame(index, packet(i, i % 2 === 0 ? 32 : 1452)))
      // Some at once, and no more under way than a new connection may have: what waits for long would be dropped.
      if (i % 10 === 9) await until(() => received[from]! >= i)
    }
  }
  const receive = async (messages: ReturnType<typeof reader>, from: string) => {
    const bind = await messages.next()
    t.equal(kindOf(bind), 'bind')
    t.equal(boundNode(bind), from, 'the relay says who sends before the first packet')
    for (let i = 0; i < COUNT; i++) {
      const frame = await messages.next()
      if (indexOf(frame) !== indexOf(bind) || !packet(i, i % 2 === 0 ? 32 : 1452).equals(packetOf(frame)))
        return t.fail(`${from} packet ${i}`)
      received[from]!++
    }
  }
  await Promise.all([send(a, 7, 'a'), send(b, 0xfffffff0, 'b'), receive(fromB, 'b'), receive(fromA, 'a')])
  const bytes = (COUNT / 2) * (32 + 1452)
  t.same(packets.totals, { forwarded: 2 * COUNT, bytes: 2 * bytes, overKeepalive: COUNT, dropped: 0 })
  t.same([...packets.pairs()].map(({ from, to, forwarded }) => `${from} ${to} ${forwarded}`).toSorted(), [
    'a b 1000',
    'b a 1000',
  ])
})

t.test('a receiver that stalls loses its own oldest packets and delays nobody', { timeout: 30_000 }, async (t) => {
  const { packets, dial } = await start(t)
  const [a, stalled, c] = [await dial('a'), await dial('stalled'), await dial('c')]
  const atC = reader(c)
  stalled.pause()
  a.send(bindFrame(1, 'stalled'))
  a.send(bindFrame(2, 'c'))
  a.send(dataFrame(2, packet(0, 64)))
  t.equal(kindOf(await atC.next()), 'bind')
  await atC.next()
  let worstMs = 0
  // Far more than the kernel's buffers on loopback hold for the one that does not read.
  const ROUNDS = 200
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < 100; i++) a.send(dataFrame(1, packet(round * 100 + i, 1400)))
    const startMs = performance.now()
    a.send(dataFrame(2, packet(round, 64)))
    if (!packet(round, 64).equals(packetOf(await atC.next()))) t.fail(`round ${round}`)
    worstMs = Math.max(worstMs, performance.now() - startMs)
  }
  t.ok(worstMs < 500, `worst ${worstMs.toFixed(1)} ms`)
  t.ok(packets.totals.dropped > 1000, `${packets.totals.dropped} dropped`)
  const last = new Promise<number>((resolve) => {
    stalled.on('message', (data) => {
      if (kindOf(data as Buffer) !== 'data') return
      const number = (packetOf(data as Buffer) as Buffer).readUInt32BE()
      if (number === 19_999) resolve(number)
    })
  })
  stalled.resume()
  t.equal(await last, 19_999, 'what is newest comes when it reads again')
  const [pair] = [...packets.pairs()].filter(({ to }) => to === 'stalled')
  t.equal(pair!.forwarded + pair!.dropped, 20_000, 'each packet is counted once')
})

t.test('packets find the receiver again after it came back', async (t) => {
  const { packets, dial } = await start(t)
  const a = await dial('a')
  a.send(bindFrame(1, 'b'))
  a.send(dataFrame(1, packet(1, 40)))
  await until(() => packets.totals.dropped === 1)
  for (const attempt of ['first', 'second, which replaces it']) {
    const b = await dial('b')
    const atB = reader(b)
    a.send(dataFrame(1, packet(2, 40)))
    t.equal(boundNode(await atB.next()), 'a', attempt)
    t.equal(indexOf(await atB.next()), 0)
  }
  t.equal(packets.sessions.byNode.size, 2)
})

t.test('a pair that policy refuses, an unknown peer, itself and an index never bound: dropped', async (t) => {
  const { packets, dial } = await start(t, (from, to) => !(from === 'a' && to === 'c'))
  const [a, c] = [await dial('a'), await dial('c')]
  const atC = reader(c)
  for (const [index, node] of ['c', 'nobody', 'a'].entries()) a.send(bindFrame(index, node))
  for (let index = 0; index < 4; index++) a.send(dataFrame(index, packet(1, 40)))
  await until(() => packets.totals.dropped === 4)
  t.equal(packets.totals.forwarded, 0)
  t.equal(atC.waiting(), 0)
})

t.test('a gateway that breaks the protocol loses its session, and only it', async (t) => {
  const { dial } = await start(t)
  const other = await dial('other')
  const rows: readonly [name: string, send: (socket: WebSocket) => void, code: number][] = [
    ['text', (socket) => socket.send('hello'), 1008],
    ['another version', (socket) => socket.send(Buffer.from('020000000000', 'hex')), 1008],
    ['a bad name', (socket) => socket.send(Buffer.from('0101000000 00ff'.replace(' ', ''), 'hex')), 1008],
    ['more than a frame may have', (socket) => socket.send(Buffer.alloc(5000, 1)), 1009],
    [
      'peers without end',
      (socket) => {
        for (let i = 0; i <= 4096; i++) socket.send(bindFrame(i, `n${i}`))
      },
      1008,
    ],
  ]
  for (const [name, send, code] of rows) {
    const socket = await dial('a')
    send(socket)
    t.equal(await closeCode(socket), code, name)
  }
  t.equal(other.readyState, other.OPEN)
})
