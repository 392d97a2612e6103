import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { breakOff, splice } from '../../../lib/net/splice.ts'
import { listen } from '../../relay/ops.ts'
import { until } from '../until.ts'

type Test = Parameters<typeof listen>[0]

/** Both ends of a connection on loopback. */
async function pair(t: Test): Promise<readonly [Socket, Socket]> {
  const accepted = Promise.withResolvers<Socket>()
  const server = await listen(t, accepted.resolve)
  const near = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true })
  near.on('error', () => {})
  await once(near, 'connect')
  return [near, await accepted.promise]
}
/** All that a socket brings; its other half goes on. */
async function textOf(socket: Socket): Promise<string> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'end')
  return Buffer.concat(chunks).toString()
}
const handles = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length

t.test('what is broken off is reset, and its descriptor goes, whenever that is', async (t) => {
  const rows: readonly [name: string, before: (near: Socket) => unknown][] = [
    ['at once', () => {}],
    ['as it ends', (near) => near.end()],
    ['after it ended', async (near) => once(near.end(), 'finish')],
    ['with much to write and an end behind it', (near) => near.end(Buffer.alloc(20_000_000))],
  ]
  for (const [name, before] of rows) {
    const open = handles()
    const [near, far] = await pair(t)
    const failed = once(far, 'error')
    far.pause()
    await before(near)
    breakOff(near)
    await until(() => near.closed, name)
    far.resume()
    far.write('x')
    t.match((await failed)[0], { code: /ECONNRESET|EPIPE/ }, name)
    await until(() => handles() <= open, `${name}: ${handles()} handles, ${open} before`)
  }
})

t.test('two streams are one, whatever was read before and however fast each reads', async (t) => {
  const [a, left] = await pair(t)
  const [b, right] = await pair(t)
  left.pause()
  a.write('first ')
  splice(left, right)
  const answer = textOf(a)
  // Nobody reads for a while.
  a.write(Buffer.alloc(3_000_000, 'x'))
  await pause(50)
  a.end(' last')
  const question = await textOf(b)
  t.equal(question.length, 6 + 3_000_000 + 5)
  t.match(question, /^first x+ last$/)
  b.end('the other half goes on')
  t.equal(await answer, 'the other half goes on')
  await until(() => left.closed && right.closed)
})

t.test('many at once each bring what they were given, to its end', async (t) => {
  await Promise.all(
    Array.from({ length: 8 }, async (_, i) => {
      const [from, left] = await pair(t)
      const [to, right] = await pair(t)
      splice(left, right)
      const bytes = randomBytes(8_000_000 + i)
      // Some read late: what is read for them waits meanwhile, in memory that others must not find free.
      if (i % 2 === 1) to.pause()
      const got = hashOf(to)
      if (i % 2 === 1) setTimeout(() => to.resume(), 50)
      from.end(bytes)
      t.equal(await got, createHash('sha256').update(bytes).digest('hex'), `stream ${i}`)
      to.end('and back')
      t.equal(await textOf(from), 'and back', `stream ${i}: the other half`)
    }),
  )
})

async function hashOf(socket: Socket): Promise<string> {
  const hash = createHash('sha256')
  socket.on('data', (chunk: Buffer) => hash.update(chunk))
  await once(socket, 'end')
  return hash.digest('hex')
}
