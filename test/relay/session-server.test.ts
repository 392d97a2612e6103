// Streams between a relay and its agents, each trap of tunnels as a test: a slow reader that stalls others, half-closes that
// cut an answer off, aborts that are not passed on, dead agents that are still chosen, leaks.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { openOpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { openMuxConnection, type MuxConnection } from '../../lib/net/mux-connection.ts'
import { MuxDuplex } from '../../lib/net/mux-duplex.ts'
import { acceptWebSocket } from '../../lib/net/websocket.ts'
import { encodeMux, MAX_MESSAGE_BYTES, MUX_PATH, writeDataHeader } from '../../lib/wire/mux.ts'
import { refuseUpgrade } from '../../relay/websocket-server.ts'
import { collectGarbage } from '../garbage.ts'
import { closeCode, log } from './mesh.ts'
import { createOps, listen, NEVER, textOf, until } from './ops.ts'

const echo = (socket: Socket): void => void socket.pipe(socket)
const self = (port: number, host = 'edge-7') => ({ host, port })

/** Resolves when the kernel's buffers and the windows are full, or after a minute. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const before = process.cpuUsage()
    await wait(100)
    if (process.cpuUsage(before).user < 10_000) return
  }
}

t.test('a stream to the kubelet, byte for byte, each half to its own end', async (t) => {
  const { relay, agent } = await createOps(t)
  const server = await listen(t, (socket) => {
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    // The answer begins when the question has ended, as `kubectl exec` with stdin does.
    socket.once('end', () => socket.end(Buffer.concat([Buffer.from('got '), ...chunks])))
  })
  await agent('edge-7', server.port)
  for (const host of ['edge-7', 'EDGE-7', 'localhost', '127.0.0.1', '::ffff:127.0.0.1']) {
    const stream = await relay.dial('edge-7', self(server.port, host), NEVER)
    const question = randomBytes(1_000_000).toString('base64')
    stream.end(question)
    t.equal(await textOf(stream), `got ${question}`, host)
  }
  await until(() => relay.list()[0]!.streams === 0)
  t.same(relay.counts, { dials: 5, failures: { offline: 0, refused: 0, failed: 0, timeout: 0, busy: 0 } })
})

t.test('all data before the end: the exit code is the last message', async (t) => {
  const { relay, agent } = await createOps(t)
  const server = await listen(t, (socket) => {
    socket.write(Buffer.alloc(3_000_000, 1))
    socket.end('exit 3')
  })
  await agent('edge-7', server.port)
  for (let i = 0; i < 20; i++) {
    const stream = await relay.dial('edge-7', self(server.port), NEVER)
    t.equal((await textOf(stream)).length, 3_000_006)
    stream.end()
  }
})

t.test('an abort passes in both directions within a second and frees everything', async (t) => {
  const { relay, agent } = await createOps(t)
  const sockets = new Set<Socket>()
  const server = await listen(t, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    echo(socket)
  })
  const { client } = await agent('edge-7', server.port)
  const rows: readonly [name: string, cut: (stream: Duplex, socket: Socket) => void, code: string | undefined][] = [
    ['the client is gone', (stream) => void stream.destroy(), undefined],
    ['the client broke', (stream) => void stream.destroy(new Error('ECONNRESET')), 'ignored'],
    ['the target is reset', (_, socket) => void socket.resetAndDestroy(), 'FULMAR_STREAM_RESET'],
  ]
  for (const [name, cut, code] of rows) {
    const stream = await relay.dial('edge-7', self(server.port), NEVER)
    stream.write('hello')
    await once(stream, 'data')
    const errors: (string | undefined)[] = []
    stream.on('error', (error: NodeJS.ErrnoException) => errors.push(error.code))
    const startMs = performance.now()
    cut(stream, [...sockets][0]!)
    await until(() => stream.closed && sockets.size === 0, name)
    t.ok(performance.now() - startMs < 1000, `${name}: ${Math.round(performance.now() - startMs)} ms`)
    if (code !== 'ignored') t.same(errors, code === undefined ? [] : [code], name)
    await until(() => relay.list()[0]!.streams === 0 && client.state().streams === 0, name)
  }
})

t.test('50 stalled readers and 50 stalled uploads delay nobody and keep little', async (t) => {
  const { relay, agent } = await createOps(t)
  const pouring = await listen(t, (socket) => {
    const pour = (): void => {
      while (socket.write(Buffer.alloc(65_536)));
    }
    socket.on('drain', pour)
    pour()
  })
  const stalled = await listen(t, (socket) => void socket.pause())
  const echoing = await listen(t, echo)
  const targets = [`localhost:${pouring.port}`, `localhost:${stalled.port}`]
  await agent('edge-7', echoing.port, { targets })
  const exec = await relay.dial('edge-7', self(echoing.port), NEVER)
  const trips = async (): Promise<number> => {
    const times: number[] = []
    for (let i = 0; i < 300; i++) {
      const startMs = performance.now()
      exec.write('k')
      await once(exec, 'data')
      times.push(performance.now() - startMs)
    }
    return times.toSorted((a, b) => a - b)[150]!
  }
  await trips()
  const before = await trips()
  collectGarbage()
  const memory = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 50; i++) {
    // Nobody reads from it.
    await relay.dial('edge-7', self(pouring.port), NEVER)
    const upload = await relay.dial('edge-7', self(stalled.port), NEVER)
    const pour = (): void => {
      while (upload.write(Buffer.alloc(65_536)));
    }
    upload.on('drain', pour)
    pour()
  }
  await quiet()
  const beside = await trips()
  // Of relay and agent together, and of the test's own writes.
  collectGarbage()
  const grown = process.memoryUsage().arrayBuffers - memory
  t.ok(grown < 64 << 20, `${Math.round(grown / 2 ** 20)} MiB more`)
  t.ok(beside < 1.5 * before + 0.2, `${before.toFixed(2)} ms alone, ${beside.toFixed(2)} ms beside them`)
})

t.test('thousands of streams leave nothing behind', async (t) => {
  const { relay, agent } = await createOps(t)
  let open = 0
  const server = await listen(t, (socket) => {
    open++
    socket.once('close', () => open--)
    echo(socket)
  })
  const { client } = await agent('edge-7', server.port)
  const count = process.env.LONG === undefined ? 1_000 : 10_000
  const handles = () => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length
  let before = 0
  for (let i = 0; i < count; i++) {
    if (i === 100) before = handles()
    const stream = await relay.dial('edge-7', self(server.port), NEVER)
    if (i % 3 === 0) stream.destroy()
    else {
      stream.end('x')
      await textOf(stream)
    }
    await until(() => stream.closed)
  }
  await until(() => open === 0 && relay.list()[0]!.streams === 0 && client.state().streams === 0)
  await wait(50)
  t.ok(handles() <= before, `${handles()} handles, ${before} before`)
})

t.test('who cannot be reached, and why', async (t) => {
  const { relay, agent } = await createOps(t)
  const server = await listen(t, echo)
  const other = await listen(t, echo)
  const edge = await agent('edge-7', server.port)
  const rows: readonly [node: string, host: string, port: number, failure: string, message: RegExp][] = [
    ['edge-9', 'edge-9', 1, 'offline', /^edge-9 has not connected since this relay started .* ago$/],
    ['edge-7', 'edge-7', other.port, 'refused', /^edge-7: edge-7:\d+ is not open to the cloud here; --ops-targets/],
    ['edge-7', '192.168.1.1', 80, 'refused', /not open to the cloud/],
    ['edge-7', '169.254.169.254', 80, 'refused', /not open to the cloud/],
    ['edge-7', 'edge-9', server.port, 'refused', /not open to the cloud/],
  ]
  for (const [node, host, port, failure, message] of rows)
    await t.rejects(relay.dial(node, { host, port }, NEVER), { failure, message }, `${node} ${host}`)
  server.close()
  await t.rejects(
    relay.dial('edge-7', self(server.port), NEVER),
    { failure: 'failed', message: /^edge-7: nothing listens on 127.0.0.1:\d+$/ },
    'no kubelet',
  )
  await edge.stop()
  await until(() => relay.absence('edge-7') !== undefined)
  await t.rejects(relay.dial('edge-7', self(1), NEVER), { failure: 'offline', message: /^edge-7 offline \d/ })
  t.same(relay.counts.failures, { offline: 2, refused: 4, failed: 1, timeout: 0, busy: 0 })
})

t.test('dials end in time, and when their client is gone', async (t) => {
  const { relay, agent } = await createOps(t, { dialMs: 200 })
  const server = await listen(t, echo)
  let gone = 0
  const dial = (): Promise<Socket> => new Promise(() => gone++)
  await agent('edge-7', server.port, { dial })
  await t.rejects(relay.dial('edge-7', self(1), NEVER), {
    failure: 'timeout',
    message: /did not reach edge-7:1 within/,
  })
  const client = new AbortController()
  const dialled = relay.dial('edge-7', self(1), client.signal)
  setTimeout(() => client.abort(), 20)
  await t.rejects(dialled, { failure: 'timeout', message: /not wanted/ })
  t.equal(gone, 2)
  const many = await Promise.allSettled(Array.from({ length: 65 }, () => relay.dial('edge-7', self(1), NEVER)))
  t.match((many.at(-1) as PromiseRejectedResult).reason, { failure: 'busy', message: /64 dials under way/ })
  await until(() => relay.list()[0]!.streams === 0)
})

t.test('a node is dialled so often and no more', async (t) => {
  const { relay, agent } = await createOps(t, {}, { perSecond: 1, burst: 3 })
  const server = await listen(t, echo)
  await agent('edge-7', server.port)
  const dials = await Promise.allSettled([1, 2, 3, 4].map(() => relay.dial('edge-7', self(server.port), NEVER)))
  t.same(
    dials.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'fulfilled', 'rejected'],
  )
  t.match((dials[3] as PromiseRejectedResult).reason, { failure: 'busy', message: /more than 1 times a second/ })
})

t.test('a dead agent is noticed when it is dialled, and the dial goes to its next session', async (t) => {
  const { relay, agent, mesh, port } = await createOps(t, { aliveMs: 200, dialMs: 2_000 })
  const server = await listen(t, echo)
  // A socket that is not read answers nothing: what a cut link looks like from the relay.
  const socket = await mesh.dial(port, MUX_PATH, await mesh.node('edge-7'))
  socket.send(encodeMux({ kind: 'hello', text: '{}' }))
  await until(() => relay.absence('edge-7') === undefined)
  socket.pause()
  await t.rejects(relay.dial('edge-7', self(server.port), NEVER), {
    failure: 'offline',
    message: 'edge-7 does not answer',
  })
  await until(() => relay.list().length === 0)
  await agent('edge-7', server.port)
  t.ok(await relay.dial('edge-7', self(server.port), NEVER))
})

t.test('a dead link is noticed without a dial too, on both sides; a living one is left alone', async (t) => {
  const { relay, agent, mesh, port } = await createOps(t, { silenceMs: 300, roundMs: 150 })
  const server = await listen(t, echo)
  const living = await agent('living', server.port, { times: { pingMs: 60, pongMs: 100 } })
  const { since } = living.client.state()
  const dead = await mesh.dial(port, MUX_PATH, await mesh.node('dead'))
  dead.send(encodeMux({ kind: 'hello', text: '{}' }))
  await until(() => relay.absence('dead') === undefined)
  dead.pause()
  await until(() => relay.absence('dead') !== undefined)
  await wait(500)
  t.same(
    relay.list().map(({ node }) => node),
    ['living'],
  )
  t.equal(living.client.state().since, since)
})

t.test('an agent whose relay is silent dials anew', async (t) => {
  const { relay, agent, mesh } = await createOps(t)
  const server = await listen(t, echo)
  const { client } = await agent('edge-7', server.port, { times: { pingMs: 50, pongMs: 100 } })
  const first = relay.list()[0]!.since
  await wait(300)
  t.equal(relay.list()[0]!.since, first, 'answered pings keep it')
  client.check()
  await wait(100)
  t.equal(relay.list()[0]!.since, first, 'and so does an answered check')
  t.notOk(mesh.signal.aborted)
})

t.test('a newer session takes new streams, the older ends with its last', async (t) => {
  const { relay, agent } = await createOps(t)
  const server = await listen(t, echo)
  await agent('edge-7', server.port)
  const old = await relay.dial('edge-7', self(server.port), NEVER)
  await agent('edge-7', server.port)
  await until(() => relay.list().length === 2)
  t.same(
    relay.list().map(({ leaving, streams }) => [leaving, streams]),
    [
      [true, 1],
      [false, 0],
    ],
  )
  const young = await relay.dial('edge-7', self(server.port), NEVER)
  old.write('still here')
  t.equal(String((await once(old, 'data'))[0]), 'still here')
  old.end()
  old.resume()
  await until(() => !relay.list().some(({ leaving, streams }) => leaving && streams > 0))
  young.write('x')
  await once(young, 'data')
})

t.test('an agent that is sent away has its next session first, and ends its streams on the last', async (t) => {
  const { relay, identity, mesh } = await createOps(t)
  const closed: number[] = []
  let first: MuxConnection | undefined
  const { port } = await mesh.listen({
    ops: (request, stream, head) => {
      const socket = acceptWebSocket(request, stream, head, refuseUpgrade)!
      const events = { opened: () => {}, goAway: () => {}, pong: () => {}, idle: () => {} }
      const greeted = (): void => connection.session.greet('{}')
      const connection = openMuxConnection(socket, 'opener', { ...events, greeted }, () => closed.push(Date.now()))
      first = connection
    },
  })
  const server = await listen(t, echo)
  const mine = await identity('edge-7')
  const client = openOpsClient(
    {
      identity: { ...mine, relays: [`https://127.0.0.1:${port}`, ...mine.relays] },
      dial: (host, target) => dialTarget({ node: 'edge-7', kubeletPort: server.port, targets: [] }, host, target),
      log,
    },
    mesh.signal,
  )
  mesh.holds(client.closed)
  await until(() => first?.session.usable === true)
  const opened = Promise.withResolvers<void>()
  const old = new MuxDuplex(first!.session.open('edge-7', server.port)!, {
    onOpened: opened.resolve,
    onRefused: opened.reject,
  })
  await opened.promise
  first!.session.goAway('this relay is drained')
  await until(() => relay.absence('edge-7') === undefined, 'it goes to the next relay')
  t.equal(closed.length, 0, 'and has not left the first')
  old.write('x')
  t.equal(String((await once(old, 'data'))[0]), 'x')
  old.end()
  old.resume()
  await until(() => closed.length === 1, 'it leaves with its last stream')
  t.ok(await relay.dial('edge-7', self(server.port), NEVER))
})

t.test('streams on a session that was cut end when the next is there', async (t) => {
  const { relay, agent, mesh, port } = await createOps(t, { aliveMs: 100 })
  const server = await listen(t, echo)
  const socket = await mesh.dial(port, MUX_PATH, await mesh.node('edge-7'))
  socket.send(encodeMux({ kind: 'hello', text: '{}' }))
  const opened = encodeMux({ kind: 'opened', stream: 1, windowBytes: 1000 })
  socket.once('message', () => socket.once('message', () => socket.send(opened)))
  await until(() => relay.absence('edge-7') === undefined)
  const old = await relay.dial('edge-7', self(server.port), NEVER)
  let error: Error | undefined
  old.once('error', (cause: Error) => (error = cause))
  socket.pause()
  await agent('edge-7', server.port)
  await until(() => error !== undefined)
  t.match(error, { code: 'FULMAR_STREAM_RESET', reason: 'broken' })
})

t.test('a session that breaks the rules ends, and only that', async (t) => {
  const { relay, agent, mesh, port } = await createOps(t)
  const server = await listen(t, echo)
  await agent('good', server.port)
  const data = Buffer.alloc(9)
  writeDataHeader(data, 0, 5, 1, 0)
  const hello = encodeMux({ kind: 'hello', text: '{}' })
  const rows: readonly [name: string, frames: readonly (Buffer | string)[], code: number][] = [
    ['text', ['{}'], 1008],
    ['no greeting', [data], 1008],
    [
      'a stream that it opens',
      [hello, encodeMux({ kind: 'open', stream: 1, windowBytes: 1, host: 'x', port: 1 })],
      1008,
    ],
    ['data of no stream', [hello, data], 1008],
    ['a message too long', [hello, Buffer.alloc(MAX_MESSAGE_BYTES + 1)], 1009],
    ['rubbish', [hello, randomBytes(7)], 1008],
  ]
  for (const [name, frames, code] of rows) {
    const socket = await mesh.dial(port, MUX_PATH, await mesh.node('bad'))
    const ended = closeCode(socket)
    for (const frame of frames) socket.send(frame)
    t.equal(await ended, code, name)
  }
  await until(() => relay.list().length === 1)
  const stream = await relay.dial('good', self(server.port, 'good'), NEVER)
  stream.write('x')
  await once(stream, 'data')
})

t.test('nobody takes the place of another node', async (t) => {
  const { mesh, port, relay, agent } = await createOps(t)
  const server = await listen(t, echo)
  await agent('edge-7', server.port)
  await t.rejects(mesh.dial(port, MUX_PATH), { message: /^401/ }, 'without a certificate')
  const other = await mesh.dial(port, MUX_PATH, await mesh.node('edge-8'))
  other.send(encodeMux({ kind: 'hello', text: '{"version":1,"node":"edge-7","host":"edge-7"}' }))
  await until(() => relay.absence('edge-8') === undefined)
  t.same(
    relay.list().map(({ node, leaving }) => [node, leaving]),
    [
      ['edge-7', false],
      ['edge-8', false],
    ],
    'what it says of itself counts for nothing',
  )
  other.terminate()
})

t.test('a session ends with its certificate', async (t) => {
  const { mesh, port } = await createOps(t, { roundMs: 150 })
  const nowMs = Date.now()
  const client = await mesh.node('edge-7', { notBefore: new Date(nowMs - 60_000), notAfter: new Date(nowMs + 2_000) })
  const socket = await mesh.dial(port, MUX_PATH, client)
  t.equal(await closeCode(socket), 4002)
})
