import { once } from 'node:events'
import { connect } from 'node:net'
import t from 'tap'
import { allocate, free } from '../../lib/chunk.ts'
import { listen } from '../relay/ops.ts'

t.test('what is freed, and what may be others’', (t) => {
  const rows: readonly [name: string, chunk: Buffer, freed: boolean][] = [
    ['allocated for it', allocate(100), true],
    ['a part of such', allocate(100).subarray(0, 20), true],
    ['alone in its memory', Buffer.allocUnsafeSlow(4_096), true],
    ['alone, and small', Buffer.allocUnsafeSlow(1_000), false],
    ['a part of a buffer', Buffer.allocUnsafeSlow(65_536).subarray(0, 65_000), false],
    ['of the pool', Buffer.from('x'.repeat(2_000)), false],
  ]
  for (const [name, chunk, freed] of rows) {
    const { length } = chunk
    free(chunk)
    t.equal(chunk.length, freed ? 0 : length, name)
  }
  t.end()
})

t.test('memory goes back at once', (t) => {
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 1_000; i++) free(allocate(65_536))
  t.ok(process.memoryUsage().arrayBuffers - before < 10_000_000)
  t.end()
})

t.test('a socket whose chunks are freed reads on', async (t) => {
  const bytes = 8_000_000
  const server = await listen(t, (socket) => void socket.end(Buffer.alloc(bytes, 'x')))
  const socket = connect(server.port, '127.0.0.1')
  let [got, right] = [0, true]
  socket.on('data', (chunk: Buffer) => {
    got += chunk.length
    right &&= chunk[0] === 120 && chunk.at(-1) === 120
    free(chunk)
  })
  await once(socket, 'end')
  t.equal(got, bytes)
  t.ok(right)
})
