// Sessions with a real relay, through a proxy that can stop forwarding without a word, as a NAT does that lost its state.

import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { WebSocketServer } from 'ws'
import { openRelaySession, type RelaySession } from '../../../lib/net/relay-session.ts'
import { SIGNAL_PATH } from '../../../lib/wire/signal.ts'
import { runSessions } from '../../../relay/websocket-server.ts'
import { createMesh, log, type Mesh } from '../../relay/mesh.ts'
import { until } from '../until.ts'

type Proxy = {
  readonly port: number
  /** Connections that are there are kept and forward nothing any more; new ones work. */
  readonly freeze: () => void
  readonly setOpen: (open: boolean) => void
  /** When connections came, in milliseconds of `performance.now()`. */
  readonly accepted: readonly number[]
  /** Bytes that came from the client. */
  readonly bytes: () => number
}

async function startProxy(t: Test, target: number): Promise<Proxy> {
  const pairs = new Set<readonly [Socket, Socket]>()
  const accepted: number[] = []
  let bytes = 0
  let open = true
  const server = createServer((client) => {
    accepted.push(performance.now())
    if (!open) return client.resetAndDestroy()
    const relay = connect(target, '127.0.0.1')
    pairs.add([client, relay])
    client.on('data', (chunk) => (bytes += chunk.length)).pipe(relay)
    relay.pipe(client)
    for (const socket of [client, relay]) socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.close()
    for (const socket of [...pairs].flat()) socket.destroy()
  })
  return {
    port: (server.address() as AddressInfo).port,
    freeze: () => [...pairs].flat().forEach((socket) => socket.unpipe().pause()),
    setOpen: (value) => (open = value),
    accepted,
    bytes: () => bytes,
  }
}

/** A relay's signal endpoint that does nothing but keep sessions. */
function keepSessions(mesh: Mesh): ReturnType<typeof runSessions>['upgrade'] {
  const sessions = runSessions(
    { kind: 'signal', maxPayloadBytes: 1024, log },
    { open: () => undefined, message: () => undefined, close: () => undefined },
    mesh.signal,
  )
  mesh.holds(sessions.closed)
  return sessions.upgrade
}

async function start(t: Test, upgrade = keepSessions): Promise<{ session: RelaySession; proxy: Proxy }> {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({ signal: upgrade(mesh) })
  const proxy = await startProxy(t, port)
  const life = new AbortController()
  const { certificatePem, keyPem } = await mesh.node('h1')
  const session = openRelaySession(
    {
      identity: {
        node: 'h1',
        ...{ certificatePem, keyPem, caPem: mesh.authority.certificatePem },
        relays: [`https://127.0.0.1:${proxy.port}`],
        stun: [],
        server: '',
      },
      path: SIGNAL_PATH,
      maxPayloadBytes: 1024,
      log,
      onOpen: () => undefined,
      onMessage: () => undefined,
      onChange: () => undefined,
    },
    life.signal,
  )
  t.teardown(async () => {
    life.abort()
    await session.closed
  })
  await until(() => session.socket() !== undefined)
  return { session, proxy }
}

t.test('a session that the network forgot is dialled anew within 2 s of a check', async (t) => {
  const { session, proxy } = await start(t)
  const before = session.socket()
  t.equal(session.address(), '127.0.0.1')
  proxy.freeze()
  const startedAt = performance.now()
  // Whoever misses answers asks again and again.
  const asking = setInterval(session.check, 100)
  t.teardown(() => clearInterval(asking))
  await until(() => session.socket() !== undefined && session.socket() !== before)
  t.comment(`dialled after ${Math.round(proxy.accepted[1]! - startedAt)} ms`)
  t.comment(`a session after ${Math.round(performance.now() - startedAt)} ms`)
  t.ok(proxy.accepted[1]! - startedAt < 2_000)
  const next = session.socket()
  await sleep(1_500)
  t.equal(session.socket(), next, 'and it stays, for all the checks')
  t.equal(proxy.accepted.length, 2)
})

t.test('a relay that did not answer in time is given twice as long by the next session', async (t) => {
  const { session, proxy } = await start(t)
  const lost = async (): Promise<number> => {
    const [before, dials] = [session.socket(), proxy.accepted.length]
    proxy.freeze()
    const startMs = performance.now()
    session.check()
    await until(() => session.socket() !== undefined && session.socket() !== before)
    return proxy.accepted[dials]! - startMs
  }
  const firstMs = await lost()
  const secondMs = await lost()
  t.ok(firstMs < 1_800, `${Math.round(firstMs)} ms`)
  t.ok(secondMs > 1_950 && secondMs < 3_500, `${Math.round(secondMs)} ms`)
})

t.test('one that lives goes on, and costs nothing unasked', async (t) => {
  const { session, proxy } = await start(t)
  const before = session.socket()
  session.check()
  await sleep(1_300)
  t.equal(session.socket(), before)
  const bytes = proxy.bytes()
  await sleep(1_500)
  t.equal(proxy.bytes(), bytes)
})

t.test('whatever arrives is a sign of life', async (t) => {
  const server = new WebSocketServer({ noServer: true, autoPong: false })
  const { session } = await start(t, (mesh) => (request, stream, head) => {
    server.handleUpgrade(request, stream, head, (socket) => {
      const talking = setInterval(() => socket.send('.'), 200)
      socket.on('close', () => clearInterval(talking))
      mesh.signal.addEventListener('abort', () => socket.terminate())
    })
  })
  const before = session.socket()
  const asking = setInterval(session.check, 100)
  t.teardown(() => clearInterval(asking))
  await sleep(2_500)
  t.equal(session.socket(), before, 'without a single pong')
})

t.test('between sessions a check shortens the wait to a second', async (t) => {
  const { session, proxy } = await start(t)
  proxy.setOpen(false)
  session.socket()!.terminate()
  // Back-off doubles: once it has waited so long, the next wait is of 1.6 s or more.
  const waited = () => proxy.accepted.at(-1)! - proxy.accepted.at(-2)!
  await until(() => proxy.accepted.length > 2 && waited() > 1_200)
  const dials = proxy.accepted.length
  proxy.setOpen(true)
  const startedAt = performance.now()
  session.check()
  await until(() => session.socket() !== undefined)
  t.equal(proxy.accepted.length, dials + 1)
  t.ok(proxy.accepted.at(-1)! - startedAt < 1_500, `${Math.round(proxy.accepted.at(-1)! - startedAt)} ms`)
})
