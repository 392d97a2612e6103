// Two sites that get nothing out but TCP to port 443, and two relays: their packets go by one of them, and by the other when
// that one is gone.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { startStream } from '../lab/first-contact.ts'
import type { NatName } from '../lab/nat.ts'
import { addressOf, gatewaysOf, getOnce, openMesh, UNDER_LOAD, until, waysOnce } from './mesh.ts'

t.setTimeout(300_000)

const PAIR = ['east', 'west'] as const
const [CLIENT, SERVER] = ['east1-client', 'west1-shop'] as const
/** A session that is cut is noticed at once; what is under way is lost, and WireGuard's next handshake may be due. */
const GAP_MS = 3_000
const nat: ReadonlyMap<string, NatName> = new Map(PAIR.map((pool) => [pool, 'udp-blocked']))

const lab = await openMesh(t, 'q', { pools: PAIR, nodes: 1, nat, relays: 2 })
const server = addressOf(lab, SERVER, 4)
const relays = lab.topology.relays.map(({ host }) => host)

/** Each gateway has a session of each kind with each of these, and with no other. */
const sessionsWith = (hosts: readonly string[]): Promise<unknown> =>
  until(`sessions with ${hosts.join()}`, async () => {
    const { daemons } = await lab.status()
    const nodes = (await gatewaysOf(lab)).map(({ node }) => node)
    const held = daemons.flatMap(({ host, status }) =>
      status.kind === 'relay' ? status.sessions.map(({ node, kind }) => `${host} ${kind} ${node}`) : [],
    )
    const wanted = hosts.flatMap((host) =>
      (['signal', 'packets'] as const).flatMap((kind) => nodes.map((node) => `${host} ${kind} ${node}`)),
    )
    return nodes.length > 0 && wanted.every((each) => held.includes(each))
  })

t.test('gateways hold sessions with both relays', async () => {
  await sessionsWith(relays)
  await waysOnce(lab, PAIR, ({ rung }) => rung === 'relay-tcp', 'over a relay')
  await getOnce(lab, CLIENT, `http://${server}:8080/`, 4)
})

for (const [gone, other] of [relays, relays.toReversed()] as [string, string][])
  t.test(`packets go on when the relay on ${gone} is gone`, async (t) => {
    await sessionsWith(relays)
    const streams = [
      startStream(lab, CLIENT, addressOf(lab, 'west1-client', 4)),
      startStream(lab, 'west1-client', addressOf(lab, CLIENT, 4)),
    ]
    await sleep(1_500)
    await lab.stop(gone, 'relay')
    await sleep(3_000)
    for (const { stop } of streams) {
      const { received, lost, longestGapMs } = await stop()
      t.comment(`without ${gone}, by ${other}: ${lost} of ${received + lost} lost, none for ${longestGapMs} ms`)
      t.ok(received > 0 && longestGapMs <= GAP_MS * UNDER_LOAD, `${longestGapMs} ms`)
    }
    await getOnce(lab, CLIENT, `http://${server}:8080/`, 4)
    await lab.startAgain(gone, 'relay')
  })
