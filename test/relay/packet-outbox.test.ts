import { Duplex } from 'node:stream'
import t from 'tap'
import type { WebSocket } from 'ws'
import { createOutbox } from '../../relay/packet-outbox.ts'
import type { PairCounts } from '../../relay/packet-server.ts'

const pair: PairCounts = { from: 'a', to: 'b', forwarded: 0, bytes: 0, overKeepalive: 0, dropped: 0 }

/** A socket of 1000 bytes' room that takes what it has only when told to. */
function stalled() {
  const written: number[] = []
  let writes = 0
  let release: (() => void) | undefined
  const stream = new Duplex({
    writableHighWaterMark: 1000,
    writev(chunks, done) {
      writes++
      for (const { chunk } of chunks as { chunk: Buffer }[]) written.push(chunk.readUInt32BE())
      release = done
    },
  })
  const socket = { send: (frame: Buffer) => stream.write(frame) } as unknown as WebSocket
  const dropped: number[] = []
  let sent = 0
  const outbox = createOutbox(
    socket,
    stream,
    () => sent++,
    () => dropped.push(1),
  )
  return {
    outbox,
    written,
    dropped,
    writes: () => writes,
    sent: () => sent,
    turn: () => new Promise((resolve) => setImmediate(resolve)),
    release: async () => {
      const done = release
      release = undefined
      done?.()
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}
const frame = (number: number): Buffer => {
  const buffer = Buffer.alloc(100)
  buffer.writeUInt32BE(number)
  return buffer
}
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

t.test('what fits goes at once, in one write a turn', async (t) => {
  const s = stalled()
  for (const number of range(0, 5)) s.outbox.send(frame(number), pair)
  t.equal(s.writes(), 0, 'not before the turn ends')
  await s.turn()
  t.same([s.written, s.writes(), s.sent()], [range(0, 5), 1, 5])
})

t.test('above the mark frames wait, the oldest are dropped, the order stays', async (t) => {
  const s = stalled()
  for (const number of range(0, 200)) s.outbox.send(frame(number), pair)
  await s.turn()
  t.same(s.written, range(0, 10), 'the room of the socket')
  t.equal(s.dropped.length, 200 - 10 - 64)
  for (let i = 0; i < 20; i++) await s.release()
  t.same(s.written, [...range(0, 10), ...range(136, 200)], 'the newest 64 come when it drains')
  t.equal(s.sent() + s.dropped.length, 200)
})

t.test('what waits at the end is dropped and counted', async (t) => {
  const s = stalled()
  for (const number of range(0, 30)) s.outbox.send(frame(number), pair)
  s.outbox.close()
  for (let i = 0; i < 5; i++) await s.release()
  t.same([s.written, s.dropped.length], [range(0, 10), 20])
})
