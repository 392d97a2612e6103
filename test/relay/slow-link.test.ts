// A session whose link or whose streams are slow is not a dead one: what asks for signs of life gets through.

import { createServer, connect, type AddressInfo, type Socket } from 'node:net'
import { once } from 'node:events'
import t from 'tap'
import { openOpsClient } from '../../agent/ops-client.ts'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { log } from './mesh.ts'
import { createOps, listen, NEVER, textOf } from './ops.ts'
import { until } from '../lib/until.ts'

t.setTimeout(120_000)

/** Twice as long on its way as a session may be silent. */
const BULK_BYTES = 24 << 20

t.test('streams that nobody reads silence no ping', async (t) => {
  const { relay, agent } = await createOps(t, { silenceMs: 5_000, roundMs: 150 })
  const pouring = await listen(t, (socket) => {
    const pour = (): void => {
      while (socket.write(Buffer.alloc(65_536)));
    }
    socket.on('drain', pour)
    pour()
  })
  const { client } = await agent('edge-7', pouring.port, { times: { pingMs: 500, pongMs: 4_000 } })
  const { since } = client.state()
  for (let i = 0; i < 20; i++) await relay.dial('edge-7', { host: 'edge-7', port: pouring.port }, NEVER)
  // Nothing moves any more but pings, for longer than silence is borne.
  await new Promise((resolve) => setTimeout(resolve, 7_000))
  t.match(relay.list(), [{ node: 'edge-7', streams: 20 }])
  t.equal(client.state().since, since)
})

t.test('a link full of bulk is not taken for a dead one, and can be dialled over', async (t) => {
  const { relay, identity, mesh } = await createOps(t, {
    ...{ aliveMs: 3_000, silenceMs: 5_000 },
    ...{ roundMs: 150, dialMs: 60_000 },
  })
  let got = 0
  const sink = await listen(t, (socket) => {
    socket.on('data', (chunk: Buffer) => (got += chunk.length))
    socket.once('end', () => socket.end('all of it'))
  })
  const mine = await identity('edge-7')
  const slow = await throttle(t, Number(new URL(mine.relays[0]!).port), BULK_BYTES / 8)
  const client = openOpsClient(
    {
      identity: { ...mine, relays: [`https://127.0.0.1:${slow}`] },
      dial: (host, port) => dialTarget({ node: 'edge-7', kubeletPort: sink.port, targets: [] }, host, port),
      log,
      times: { pingMs: 500, pongMs: 3_000 },
    },
    mesh.signal,
  )
  mesh.holds(client.closed)
  await until(() => relay.absence('edge-7') === undefined)
  const { since } = client.state()
  const target = { host: 'edge-7', port: sink.port }
  const bulk = await relay.dial('edge-7', target, NEVER)
  bulk.end(Buffer.alloc(BULK_BYTES))
  const answer = textOf(bulk)
  await until(() => got > 1 << 20)
  const second = await relay.dial('edge-7', target, NEVER)
  second.end('x')
  t.equal(await textOf(second), 'all of it', 'beside the bulk')
  t.equal(await answer, 'all of it')
  t.equal(got, BULK_BYTES + 1)
  t.equal(client.state().since, since, 'by one session')
})

/** A link to a port of loopback that carries so many bytes per second each way. @returns its port. */
async function throttle(t: Parameters<typeof listen>[0], port: number, bytesPerSecond: number): Promise<number> {
  const sockets = new Set<Socket>()
  const carry = (from: Socket, to: Socket): void => {
    sockets.add(from)
    from.on('error', () => to.destroy())
    from.once('close', () => to.destroy())
    from.on('data', (chunk: Buffer) => {
      from.pause()
      to.write(chunk)
      setTimeout(() => from.resume(), (1000 * chunk.length) / bytesPerSecond)
    })
  }
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port })
    carry(near, far)
    carry(far, near)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}
