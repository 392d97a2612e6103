// Sessions of agents with a relay: which one takes new streams, when one is dead, who may have one, and what ends it.

import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { openOpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { openMuxConnection, type MuxConnection } from '../../lib/net/mux-connection.ts'
import { MuxDuplex } from '../../lib/net/mux-duplex.ts'
import { acceptWebSocket } from '../../lib/net/websocket.ts'
import { encodeMux, MAX_MESSAGE_BYTES, MUX_PATH, writeDataHeader } from '../../lib/wire/mux.ts'
import { refuseUpgrade } from '../../relay/websocket-server.ts'
import { closeCode, log } from './mesh.ts'
import { createOps, echo, listen, NEVER, self } from './ops.ts'
import { until } from '../lib/until.ts'

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
  // Its next ping follows the answer to the last, however long that may take: the relay hears of it in time.
  const living = await agent('living', server.port, { times: { pingMs: 60, pongMs: 60_000 } })
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
