// The traps of reverse tunnels that their users report, each as a test of each way in.

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { runEgressServer } from '../../relay/egress-server.ts'
import { log } from './mesh.ts'
import { createOps, echo, textOf } from './ops.ts'
import { HELLO, openWays, SHORT_MS } from './ways.ts'
import { until } from '../lib/until.ts'

t.setTimeout(120_000)

const { mesh, ways, target, idle } = await openWays(t)

/** Everything that the target got of what the client said, but the hello of the ways that need one. */
const said = (chunks: readonly Buffer[]): Buffer => {
  const bytes = Buffer.concat(chunks)
  return bytes.subarray(0, HELLO.length).toString() === HELLO ? bytes.subarray(HELLO.length) : bytes
}
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

for (const { name, open } of ways)
  t.test(name, async (t) => {
    t.afterEach(() => until(idle, 'streams are left'))

    t.test('bytes that come with the request are not lost', async (t) => {
      const port = await target(t, echo)
      const stream = await open(port, 'early')
      stream.end(' and late')
      t.equal(await textOf(stream), 'early and late')
    })

    t.test('an answer may come after the end of the question', async (t) => {
      const port = await target(t, (socket) => {
        const chunks: Buffer[] = []
        socket.on('data', (chunk: Buffer) => chunks.push(chunk))
        socket.once('end', () => socket.end(sha256(said(chunks))))
      })
      const question = randomBytes(2_000_000)
      const stream = await open(port)
      stream.end(question)
      t.equal(await textOf(stream), sha256(question))
    })

    t.test('a question may go on after the end of the answer', async (t) => {
      const got = Promise.withResolvers<string>()
      const port = await target(t, (socket) => {
        const chunks: Buffer[] = []
        socket.on('data', (chunk: Buffer) => chunks.push(chunk))
        socket.once('end', () => got.resolve(sha256(said(chunks))))
        socket.end('enough')
      })
      const question = randomBytes(1_000_000)
      const stream = await open(port, HELLO)
      let answer = ''
      stream.on('data', (chunk: Buffer) => (answer += chunk.toString())).resume()
      await once(stream, 'end')
      t.equal(answer, 'enough')
      stream.end(question)
      t.equal(await got.promise, sha256(question))
    })

    t.test('all data comes before the end: the exit code is the last message', async (t) => {
      const port = await target(t, (socket) => {
        socket.write(Buffer.alloc(3_000_000, 'x'))
        socket.end('exit 3')
      })
      for (let i = 0; i < 5; i++) {
        const stream = await open(port, HELLO)
        const text = await textOf(stream)
        t.equal(`${text.length} ${text.slice(-6)}`, '3000006 exit 3')
        stream.end()
      }
    })

    t.test('Ctrl-C of a follower reaches the target, and the death of the target its client', async (t) => {
      const targets = new Set<Socket>()
      const port = await target(t, (socket) => {
        targets.add(socket)
        const timer = setInterval(() => socket.write('line\n'), 10)
        socket.once('close', () => {
          clearInterval(timer)
          targets.delete(socket)
        })
      })
      const left = await open(port, HELLO)
      left.resume()
      await once(left, 'data')
      const startMs = performance.now()
      left.destroy()
      await until(() => targets.size === 0)
      t.comment(`${Math.round(performance.now() - startMs)} ms`)
      const told = await open(port, HELLO)
      told.on('error', () => {})
      told.resume()
      await until(() => targets.size === 1)
      for (const socket of targets) socket.resetAndDestroy()
      // TLS and Unix sockets know no reset: what is cut off there ends.
      told.once('end', () => told.destroy())
      await until(() => told.closed)
    })

    t.test('a reader that pauses and goes on gets every byte', async (t) => {
      const bytes = randomBytes(6_000_000)
      const port = await target(t, (socket) => void socket.end(bytes))
      const stream = await open(port, HELLO)
      const hash = createHash('sha256')
      let chunks = 0
      stream.on('data', (chunk: Buffer) => {
        hash.update(chunk)
        if (++chunks % 20 !== 0) return
        stream.pause()
        setTimeout(() => stream.resume(), chunks % 3)
      })
      stream.resume()
      await once(stream, 'end')
      stream.end()
      t.equal(hash.digest('hex'), sha256(bytes))
    })

    t.test('key strokes leave at once', async (t) => {
      const port = await target(t, echo)
      const stream = await open(port, HELLO)
      let got = 0
      stream.on('data', (chunk: Buffer) => (got += chunk.length)).resume()
      await until(() => got === HELLO.length)
      const times: number[] = []
      for (let i = 0; i < 40; i++) {
        const before = got
        const startMs = performance.now()
        // Two small packets: the second would wait for the acknowledgement of the first, which is delayed by 40 ms.
        stream.write('a')
        await new Promise((resolve) => setImmediate(resolve))
        stream.write('b')
        while (got < before + 2) await once(stream, 'data')
        times.push(performance.now() - startMs)
      }
      const median = times.toSorted((a, b) => a - b)[times.length / 2]!
      t.ok(median < 30, `${median.toFixed(1)} ms`)
      stream.destroy()
    })

    t.test('transfers that are cut in the middle leave nothing, and the next one passes', async (t) => {
      const sockets = new Set<Socket>()
      const port = await target(t, (socket) => {
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
        socket.write(Buffer.alloc(1_000_000))
        if (sockets.size % 3 === 0) socket.resetAndDestroy()
      })
      const streams = new Set<Duplex>()
      for (let round = 0; round < 8; round++) {
        for (let i = 0; i < 6; i++) {
          // The target that hangs up at once may do so before its client hears that it is there.
          const stream = await open(port, HELLO).catch(() => undefined)
          if (stream === undefined) continue
          streams.add(stream)
          stream.on('error', () => {})
          stream.once('close', () => streams.delete(stream))
          if (i % 2 === 0) stream.write(Buffer.alloc(1_000_000))
        }
        for (const stream of streams) stream.destroy()
        await until(() => streams.size === 0 && sockets.size === 0 && idle(), 'sockets are left')
      }
      const next = await target(t, echo)
      const stream = await open(next, 'still there')
      stream.end()
      t.equal(await textOf(stream), 'still there')
    })
  })

t.test('a stream may be silent for longer than any time limit, in every way', async (t) => {
  const port = await target(t, echo)
  const streams: Duplex[] = []
  for (const { open } of ways) streams.push(await open(port, HELLO))
  // The proxy is on the relay's port, whose limits are half a minute.
  await wait(process.env.LONG === undefined ? 5 * SHORT_MS : 60_000)
  for (const [index, stream] of streams.entries()) {
    let text = ''
    stream.on('data', (chunk: Buffer) => (text += chunk.toString())).resume()
    stream.write('awake')
    await until(() => text.endsWith('awake'), ways[index]!.name)
    stream.destroy()
  }
  await until(idle)
})

t.test('hundreds of CONNECTs to who does not answer all end, and leave nothing', async (t) => {
  const { relay: busy, agent: another } = await createOps(t, { dialMs: 1_500 })
  await another('edge-8', 0, { dial: () => new Promise(() => {}) })
  const path = join(mesh.stateDir, 'busy.sock')
  const server = await runEgressServer(
    {
      ...{ socket: path, listen: [], users: [], log, certificate: mesh.server },
      authorityPem: mesh.authority.certificatePem,
      dial: (host, port, signal) => busy.dial(host, { host, port }, signal),
    },
    mesh.signal,
  )
  mesh.holds(server.closed)
  const statuses = new Map<string, number>()
  let most = 0
  const watch = setInterval(() => (most = Math.max(most, busy.list()[0]!.streams)), 5)
  t.teardown(() => clearInterval(watch))
  const ask = async (index: number): Promise<void> => {
    const stream = connect({ path, allowHalfOpen: true })
    stream.on('error', () => {})
    stream.write('CONNECT edge-8:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
    // Every third leaves before it is answered.
    if (index % 3 === 0) return void setTimeout(() => stream.destroy(), index % 100)
    const status = (await textOf(stream)).slice(9, 12)
    statuses.set(status, (statuses.get(status) ?? 0) + 1)
  }
  await Promise.all(Array.from({ length: 300 }, (_, index) => ask(index)))
  await until(() => busy.list()[0]!.streams === 0)
  t.same([...statuses.keys()].toSorted(), ['503', '504'], 'told to wait, or that nothing was heard')
  t.equal(statuses.get('503')! + statuses.get('504')!, 200)
  t.ok(most <= 64, `${most} were tried at a time`)
})
