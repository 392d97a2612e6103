import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import t from 'tap'
import { giveBack, isPooled } from '../../../lib/net/pooled-reads.ts'
import { splice } from '../../../lib/net/splice.ts'
import { connectTcp } from '../../../lib/net/tcp-connect.ts'
import { listen } from '../../relay/ops.ts'
import { until } from '../until.ts'

const never = new AbortController().signal
const BYTES = 8 * 1024 * 1024

/** Two connections whose near ends are joined, the first with pooled reads; their far ends. */
async function joined(t: Parameters<typeof listen>[0]): Promise<readonly [Socket, Socket]> {
  const far: Socket[] = []
  const server = await listen(t, (socket) => void far.push(socket))
  const pooled = await connectTcp('127.0.0.1', server.port, never, 'pooled')
  const plain = await connectTcp('127.0.0.1', server.port, never)
  await until(() => far.length === 2, 'both are accepted')
  splice(pooled, plain)
  const farOf = ({ localPort }: Socket): Socket => far.find(({ remotePort }) => remotePort === localPort)!
  return [farOf(pooled), farOf(plain)]
}

const hashOf = async (socket: Socket): Promise<string> => {
  const hash = createHash('sha256')
  socket.on('data', (chunk: Buffer) => hash.update(chunk))
  await once(socket, 'end')
  return hash.digest('hex')
}

t.test('many streams at once each bring what they were given, to its end', async (t) => {
  const streams = await Promise.all(Array.from({ length: 8 }, () => joined(t)))
  await Promise.all(
    streams.map(async ([from, to], i) => {
      const bytes = randomBytes(BYTES + i)
      // Some read late: what is read for them waits meanwhile, in buffers that others must not find spare.
      if (i % 2 === 1) to.pause()
      const got = hashOf(to)
      if (i % 2 === 1) setTimeout(() => to.resume(), 50)
      from.end(bytes)
      t.equal(await got, createHash('sha256').update(bytes).digest('hex'), `stream ${i}`)
      const answer = hashOf(from)
      to.end('and back')
      t.equal(await answer, createHash('sha256').update('and back').digest('hex'), `stream ${i}: the other half`)
    }),
  )
})

t.test('what comes before somebody listens waits', async (t) => {
  let sent = false
  const server = await listen(t, (far) => void far.end('welcome', () => (sent = true)))
  const socket = await connectTcp('127.0.0.1', server.port, never, 'pooled')
  await until(() => sent, 'it is on the way')
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.resume()
  await once(socket, 'end')
  t.equal(Buffer.concat(chunks).toString(), 'welcome')
  t.notOk(isPooled(chunks[0]!), 'what is short has memory of its own')
  socket.destroy()
})

t.test('a buffer that is given back is the next one', async (t) => {
  const server = await listen(t, (socket) => void socket.write(Buffer.alloc(BYTES)))
  const socket = await connectTcp('127.0.0.1', server.port, never, 'pooled')
  const seen = new Set<ArrayBufferLike>()
  let bytes = 0
  socket.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (!isPooled(chunk)) return
    seen.add(chunk.buffer)
    giveBack(chunk)
  })
  socket.resume()
  await until(() => bytes === BYTES, 'all came')
  t.equal(seen.size, 1)
  socket.destroy()
})
