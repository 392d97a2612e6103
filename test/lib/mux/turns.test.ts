import t from 'tap'
import { MAX_MESSAGE_BYTES, MuxReader } from '../../../lib/wire/mux.ts'
import { create, pull } from './pair.ts'

t.test('a key stroke does not wait for bulk', async (t) => {
  const { open, carry, agent } = create()
  const bulk = Array.from({ length: 20 }, open)
  const [, key] = open()
  for (const [, there] of bulk) there.pour(100_000_000)
  carry(10)
  key.stream.write(Buffer.from('k'), () => {})
  const message = pull(agent)!
  const streams: number[] = []
  new MuxReader((frame) => void (frame.kind === 'data' && streams.push(frame.stream))).read(message, true)
  t.equal(streams[0], key.stream.id, 'it is the first')
  t.ok(message.length <= MAX_MESSAGE_BYTES)
})

t.test('what many send at once leaves in whole frames', async (t) => {
  const { open, carry, agent } = create()
  const users = Array.from({ length: 8 }, open)
  for (const [, there] of users) there.pour(100_000_000)
  carry(20)
  for (let message = 0; message < 8; message++) {
    const sizes: number[] = []
    new MuxReader((frame) => void (frame.kind === 'data' && sizes.push(frame.data.length))).read(pull(agent)!, true)
    t.same(sizes, [64 * 1024])
  }
})

t.test('streams with bulk share alike', async (t) => {
  const { open, carry } = create()
  const users = Array.from({ length: 8 }, open)
  for (const [, there] of users) there.pour(100_000_000)
  carry(200)
  const got = users.map(([here]) => here.bytes)
  t.ok(Math.min(...got) > 0.8 * Math.max(...got), got.join(' '))
})
