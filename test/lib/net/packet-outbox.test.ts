import { EventEmitter } from 'node:events'
import { Duplex } from 'node:stream'
import t from 'tap'
import type { WebSocket } from 'ws'
import { openPacketOutbox } from '../../../lib/net/packet-outbox.ts'

/** A WebSocket that answers pings when told to. */
function create() {
  const written: number[] = []
  let writes = 0
  const stream = new Duplex({
    writev(chunks, done) {
      writes++
      for (const { chunk } of chunks as { chunk: Buffer }[]) written.push(chunk.readUInt32BE())
      done()
    },
  })
  const pings: Buffer[] = []
  const socket = Object.assign(new EventEmitter(), {
    readyState: 1,
    send: (frame: Buffer) => stream.write(frame),
    ping: (payload: Buffer) => pings.push(payload),
  })
  const counts = { sent: 0, dropped: 0 }
  const outbox = openPacketOutbox<string>(socket as unknown as WebSocket, stream, {
    sent: () => counts.sent++,
    dropped: () => counts.dropped++,
  })
  return {
    outbox,
    written,
    counts,
    pings,
    writes: () => writes,
    turn: () => new Promise((resolve) => setImmediate(() => setImmediate(resolve))),
    answer: () => socket.emit('pong', pings.shift()),
    pong: (payload: Buffer) => socket.emit('pong', payload),
  }
}
const frame = (number: number): Buffer => {
  const buffer = Buffer.alloc(1000)
  buffer.writeUInt32BE(number)
  return buffer
}
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

t.test('what fits goes at once, in one write a turn', async (t) => {
  const { outbox, turn, written, writes, counts } = create()
  for (const number of range(0, 5)) outbox.send(frame(number), 'a')
  t.equal(writes(), 0, 'not before the turn ends')
  await turn()
  t.same([written, writes(), counts.sent], [range(0, 5), 1, 5])
})

t.test('beyond the window frames wait for an answer, and control frames do not', async (t) => {
  const { outbox, turn, written, pings, answer, pong, counts } = create()
  for (const number of range(0, 30)) outbox.send(frame(number), 'a')
  outbox.sendNow(frame(99))
  await turn()
  t.same(written, [...range(0, 17), 99], '16 KiB at first')
  for (const foreign of ['', 'abc', 'abcdef']) pong(Buffer.from(foreign))
  await turn()
  t.equal(written.length, 18, 'pongs of somebody else say nothing')
  while (pings.length > 0) answer()
  await turn()
  t.same(written, [...range(0, 17), 99, ...range(17, 30)])
  t.same(counts, { sent: 30, dropped: 0 })
})

t.test('what waits at the end is dropped and counted', async (t) => {
  const { outbox, answer, counts } = create()
  for (const number of range(0, 30)) outbox.send(frame(number), 'a')
  outbox.close()
  answer()
  t.same(counts, { sent: 17, dropped: 13 })
})
