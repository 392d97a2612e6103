// Several relays and agents of them in one process: any relay reaches any node, one hop at most; a relay that stops breaks
// no stream before its time.

import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { openOpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { createClient, validFor } from '../../lib/certificates.ts'
import { rendezvousOrder } from '../../lib/rendezvous.ts'
import type { Replica } from '../../lib/replicas.ts'
import { openForwardClient } from '../../relay/forward-client.ts'
import { REPLICA_PATHS } from '../../relay/replicas.ts'
import { anotherAuthority, log, nodeOf, type Mesh } from './mesh.ts'
import { echo, listen, NEVER, self, textOf } from './ops.ts'
import { connected, createWorld, heldByTwo, type Relay } from './replica-world.ts'
import { until } from '../lib/until.ts'

t.test('agents hold two sessions, and every relay reaches every node', async (t) => {
  const { relays, agent, relayOf } = await createWorld(t, 4)
  const server = await listen(t, (socket) => {
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('end', () => socket.end(`got ${Buffer.concat(chunks).length}`))
  })
  for (const node of ['edge-1', 'edge-2', 'edge-3']) {
    const client = await agent(node, server.port)
    const urls = relays.map(({ url }) => url)
    await until(() => connected(client).length === 2 && connected(client).every((url) => own().includes(url)), node)
    function own(): readonly string[] {
      return rendezvousOrder(node, urls).slice(0, 2)
    }
    await until(() => relays.every(({ absence }) => absence(node) === undefined), 'all know')
    for (const relay of relays) {
      const stream = await relay.dial(node, self(server.port, node), NEVER)
      stream.end(Buffer.alloc(300_000))
      t.equal(await textOf(stream), 'got 300000', 'each half to its own end')
    }
    for (const url of urls)
      t.equal(relayOf(url).sessions.absence(node) === undefined, own().includes(url), `${url} holds ${node}`)
  }
  await until(() => relays.every(({ streams }) => streams() === 0))
})

t.test('what the node answers is passed on, and so is how long it has been away', async (t) => {
  const { relays, agent } = await createWorld(t, 2)
  const [first, second] = relays as [Relay, Relay]
  const server = await listen(t, echo)
  const client = await agent('edge-7', server.port, [second])
  await until(() => first.absence('edge-7') === undefined)
  await t.rejects(first.dial('edge-7', { host: '192.0.2.9', port: 80 }, NEVER), {
    failure: 'refused',
    message: /^edge-7: 192.0.2.9:80 is not open to the cloud/,
  })
  server.close()
  await t.rejects(first.dial('edge-7', self(server.port), NEVER), {
    failure: 'failed',
    message: /^edge-7: nothing listens on/,
  })
  client.stop()
  await client.closed
  await until(() => first.absence('edge-7') !== undefined)
  t.match(first.absence('edge-7'), /^edge-7 offline \d/)
  await t.rejects(first.dial('edge-7', self(1), NEVER), { failure: 'offline', message: /^edge-7 offline \d/ })
  t.match(first.absence('edge-8'), /^edge-8 has not connected since this relay started/)
})

t.test('a stream that breaks on one side breaks on the other', async (t) => {
  const { relays, agent } = await createWorld(t, 2)
  const [first, second] = relays as [Relay, Relay]
  const sockets = new Set<Socket>()
  const server = await listen(t, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    echo(socket)
  })
  await agent('edge-7', server.port, [second])
  await until(() => first.absence('edge-7') === undefined)
  const open = async (): Promise<Duplex> => {
    const stream = await first.dial('edge-7', self(server.port), NEVER)
    stream.on('error', () => {})
    stream.write('x')
    await once(stream, 'data')
    return stream
  }
  const left = await open()
  left.destroy()
  await until(() => sockets.size === 0, 'the client is gone')
  const right = await open()
  let ended = false
  right.on('end', () => (ended = true))
  for (const socket of sockets) socket.resetAndDestroy()
  await until(() => right.closed, 'the target is gone')
  t.notOk(ended, 'which is no end')
  await until(() => first.streams() + second.streams() === 0)
})

t.test('one hop and no more: a replica answers from its own sessions', async (t) => {
  const { relays, agent, mesh, replica } = await createWorld(t, 2)
  const [first, second] = relays as [Relay, Relay]
  const server = await listen(t, echo)
  await agent('edge-7', server.port, [second])
  await until(() => first.absence('edge-7') === undefined)
  const { certificatePem: cert, keyPem: key } = replica
  const shown = { cert, key, ca: mesh.authority.certificatePem }
  const { dial, closed } = openForwardClient(() => Promise.resolve(shown), log, mesh.signal)
  mesh.holds(closed)
  const asked = dial([first.url], 'edge-7', self(server.port), NEVER)
  await t.rejects(asked, { failure: 'offline', message: /^edge-7 has not connected/ })
  t.ok(await dial([second.url], 'edge-7', self(server.port), NEVER))
  await t.rejects(dial([second.url], 'edge-7', { host: 'x'.repeat(250), port: 1 }, NEVER), { message: /too long/ })
  await t.rejects(dial(['https://127.0.0.1:1'], 'edge-7', self(1), NEVER), {
    failure: 'offline',
    message: /^edge-7 is with https:\/\/127.0.0.1:1, which cannot be reached: .*ECONNREFUSED/,
  })
})

t.test('nodes and users are no replicas', async (t) => {
  const { relays, agent, mesh } = await createWorld(t, 2)
  const server = await listen(t, echo)
  await agent('edge-7', server.port)
  const { port } = relays[0]!
  const user = await createClient(
    mesh.authority,
    { commonName: 'system:fulmar:relays', organization: 'system:masters' },
    validFor(Date.now(), 1),
  )
  for (const path of REPLICA_PATHS) {
    for (const [name, pair] of Object.entries({ node: await mesh.node('edge-8'), user }))
      await t.rejects(mesh.dial(port, path, pair), { message: /^404/ }, name)
    await t.rejects(mesh.dial(port, path), { message: /^404/ }, 'nobody')
  }
})

t.test('a relay dies: its nodes are reached by the others at once, and agents find another', async (t) => {
  const { first, second, third, client, port } = await heldByTwo(t)
  const running = await second.dial('edge-7', self(port), NEVER)
  first.stop()
  await wait(0)
  t.ok(await third.dial('edge-7', self(port), NEVER), 'through the second')
  running.write('still here')
  t.equal(String((await once(running, 'data'))[0]), 'still here')
  await until(() => connected(client).length === 2, 'a session with the third')
  t.same(connected(client).toSorted(), [second.url, third.url].toSorted())
})

t.test('a relay that is drained: agents go, streams stay to their end', async (t) => {
  const { first, second, third, client, port } = await heldByTwo(t)
  const own = await first.dial('edge-7', self(port), NEVER)
  let over = false
  const drained = first.drain(60_000).then(() => (over = true))
  await until(
    () => connected(client).length === 2 && !connected(client).includes(first.url),
    'the agent goes elsewhere',
  )
  t.same(connected(client).toSorted(), [second.url, third.url].toSorted())
  own.write('still here')
  t.equal(String((await once(own, 'data'))[0]), 'still here')
  await until(() => first.absence('edge-7') === undefined)
  const late = await first.dial('edge-7', self(port), NEVER)
  t.equal(first.sessions.absence('edge-7') === undefined, false, 'who still asks it is sent on')
  late.end()
  t.equal(await textOf(late), '')
  t.notOk(over)
  own.end()
  t.equal(await textOf(own), '')
  await drained
  t.equal(first.streams(), 0)
})

/** An agent whose identity the test changes. @param refused called when a relay did not let it in. */
async function changing(mesh: Mesh, relays: readonly Relay[], kubeletPort: number, refused = () => {}) {
  const listeners: (() => void)[] = []
  const identity = {
    ...(await mesh.node('edge-7')),
    ...{ node: 'edge-7', caPem: mesh.authority.certificatePem, relays: [], stun: [], server: '' },
    onChange: (listener: () => void) => void listeners.push(listener),
  }
  const client = openOpsClient(
    {
      identity,
      relays: { current: () => relays.map(({ url }): Replica => [url]), told: () => undefined },
      dial: (host, port) => dialTarget({ node: 'edge-7', kubeletPort, targets: [] }, host, port),
      log: Object.assign(Object.create(log) as typeof log, { warn: refused }),
    },
    mesh.signal,
  )
  mesh.holds(client.closed)
  const change = (to: Partial<typeof identity>): void => {
    Object.assign(identity, to)
    for (const listener of listeners) listener()
  }
  return { client, change }
}

t.test('a new certificate: the next session is there before the last one goes, and streams stay', async (t) => {
  const { relays, mesh } = await createWorld(t, 2)
  const server = await listen(t, echo)
  const { client, change } = await changing(mesh, relays, server.port)
  const current = () => relays.map(({ sessions }) => sessions.list().find(({ leaving }) => !leaving)?.since)
  await until(() => current().every((since) => since !== undefined), 'two sessions')
  const before = current()
  const streams = await Promise.all(relays.map(({ dial }) => dial('edge-7', self(server.port), NEVER)))
  await wait(5)
  change(await mesh.node('edge-7'))
  await until(() => current().every((since, index) => since !== undefined && since !== before[index]), 'two others')
  for (const stream of streams) {
    stream.end('still here')
    t.equal(await textOf(stream), 'still here')
  }
  await until(() => relays.every(({ sessions }) => sessions.list().length === 1), 'the first ones went')
  t.equal(connected(client).length, 2)
})

t.test('a node that was refused again and again is let in as soon as it has a certificate that counts', async (t) => {
  const { relays, mesh } = await createWorld(t, 1)
  let refusals = 0
  const { client, change } = await changing(mesh, relays, 1, () => refusals++)
  change(await nodeOf(await anotherAuthority(), 'edge-7', validFor(Date.now(), 1)))
  // The next attempt would be 2 s away.
  await until(() => refusals === 4, 'it is refused')
  const changedMs = performance.now()
  change(await mesh.node('edge-7'))
  await until(() => connected(client).length === 1, 'let in')
  t.ok(performance.now() - changedMs < 1_500, `after ${Math.round(performance.now() - changedMs)} ms`)
})

t.test('a drain ends at its deadline', async (t) => {
  const { relays, agent } = await createWorld(t, 2)
  const server = await listen(t, echo)
  await agent('edge-7', server.port)
  await relays[0]!.dial('edge-7', self(server.port), NEVER)
  await relays[0]!.drain(100)
  t.equal(relays[0]!.streams(), 1)
})
