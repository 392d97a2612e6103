// From the relay to direct under load: 100 numbered packets a second each way, in both families, of which none is lost;
// and what the core sees between the two sites is WireGuard and probes, and nothing else.

import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { bothOn, relayedOverKeepalive, startStream, type Pair } from '../lab/first-contact.ts'
import type { Lab } from '../lab/lab.ts'
import { addressOf, directOnce, openMesh, until, waysOnce } from './mesh.ts'

t.setTimeout(240_000)

const PAIR = ['peat', 'marl'] as const
const SWITCHES = 3
/** Of each stream. Relays whose code an emulated processor runs for the first time cannot carry more (test/kernel). */
const PER_SECOND = process.env['EMULATED'] === undefined ? 100 : 20
const AFTER_DIRECT_MS = 5_000
const SETTLE_MS = 300
const STALL_MS = 100
/** A small and a full-size one, both ways from both sides, six times; the streams would be 2000 packets. */
const MAX_ECHOES = 48

/** A stream of its own for each family, from and to pods of their own. */
const STREAMS = [
  { family: 4, hosts: ['peat1-client', 'marl1-shop'] },
  { family: 6, hosts: ['peat1-shop', 'marl1-client'] },
] as const

t.test('relay to direct, again and again', async (t) => {
  const lab = await openMesh(t, 's', {
    pools: PAIR,
    nodes: 1,
    nat: new Map([
      ['peat', 'port-restricted'],
      ['marl', 'port-restricted'],
    ]),
  })
  await directOnce(lab, PAIR)
  await watchCore(lab)
  const gateways = { client: end('peat'), server: end('marl'), service: '', url: '', family: 4 } satisfies Pair

  for (let round = 1; round <= SWITCHES; round++) {
    const cutAt = Date.now()
    await lab.cut('udp', PAIR[round % 2]!)
    await bothOn(lab, gateways, 'relay-tcp', cutAt)
    const before = await relayedOverKeepalive(lab, gateways)
    const streams = STREAMS.flatMap(({ family, hosts: [a, b] }) => [
      { what: `IPv${family} from marl`, stream: startStream(lab, a, addressOf(lab, b, family), PER_SECOND) },
      { what: `IPv${family} from peat`, stream: startStream(lab, b, addressOf(lab, a, family), PER_SECOND) },
    ])
    await until(
      'the relay carries all streams',
      async () => (await relayedOverKeepalive(lab, gateways)) > before + 2 * PER_SECOND,
    )

    const healedAt = Date.now()
    await lab.heal(PAIR[round % 2]!)
    const directAt = await bothOn(lab, gateways, 'direct', healedAt)
    const atOnce = await relayedOverKeepalive(lab, gateways)
    // What the relay had in its queues as the routes moved.
    await sleep(SETTLE_MS)
    const relayed = await relayedOverKeepalive(lab, gateways)
    t.comment(`switch ${round}: ${relayed - atOnce} more packets over the relay in ${SETTLE_MS} ms`)
    await sleep(Math.max(0, directAt + AFTER_DIRECT_MS - Date.now()))
    const over = (await relayedOverKeepalive(lab, gateways)) - relayed
    const reports = await Promise.all(streams.map(async ({ what, stream }) => ({ what, report: await stream.stop() })))
    // On a machine that stood still for a moment echoes come late, and the relay is asked too, to be ready: never with data.
    const stalled = reports.some(({ report }) => report.longestGapMs > STALL_MS)
    t.ok(
      over <= (stalled ? MAX_ECHOES : 0),
      `switch ${round}: ${over} packets over the relay for ${AFTER_DIRECT_MS / 1000} s`,
    )
    for (const { what, report } of reports) {
      const { received, lost, lostNumbers, doubled, longestGapMs } = report
      t.comment(
        `switch ${round}, direct ${directAt - healedAt} ms after the heal, ${what}: ${lost} of ${received + lost} lost, longest gap ${longestGapMs} ms`,
      )
      t.equal(lost, 0, `switch ${round}, ${what}: lost ${lostNumbers.join(' ')}`)
      t.equal(doubled, 0, `switch ${round}, ${what}: doubled`)
      t.ok(
        received > (AFTER_DIRECT_MS / 1000) * (PER_SECOND / 2),
        `switch ${round}, ${what}: ${received} packets arrived`,
      )
    }
  }

  const seen = await seenByCore(lab)
  t.comment(`the core saw ${JSON.stringify(seen)}`)
  t.ok(seen.wireguard > SWITCHES * 10 * PER_SECOND, 'the streams passed the core')
  t.not(seen.probes, 0, 'so did probes')
  t.equal(seen.other, 0, 'and nothing else')
  t.equal(seen.inner, 0, 'no packet of a pod by itself')
  await waysOnce(lab, PAIR, ({ rung, reason }) => rung === 'direct' && reason === '', 'direct at the end')
})

const end = (pool: string) => ({ host: '', pool, address: '' })

/**
 * Counts what the core forwards between two sites: WireGuard by its message types, probes by STUN's cookie, and what
 * routers say of probes that are meant to die on the way.
 */
async function watchCore(lab: Lab): Promise<void> {
  const [a, b] = PAIR.map((name) => lab.topology.pools.find((pool) => pool.name === name)!.uplink)
  const rules = `table inet watch {
  counter wireguard { }
  counter probes { }
  counter expired { }
  counter other { }
  counter inner { }
  chain between {
    icmp type time-exceeded counter name expired return
    udp length >= 40 @th,64,32 { 0x01000000, 0x02000000, 0x03000000, 0x04000000 } counter name wireguard return
    @th,96,32 0x2112a442 meta l4proto udp counter name probes return
    counter name other
  }
  chain forward {
    type filter hook forward priority filter + 1; policy accept;
    ip saddr 10.244.0.0/16 counter name inner
    ip6 saddr fd00:244::/32 counter name inner
    iifname "${a}" oifname "${b}" jump between
    iifname "${b}" oifname "${a}" jump between
  }
}
`
  const { code, stderr } = await lab.exec('core', ['nft', '-f', '-'], { input: rules })
  if (code !== 0) throw new Error(stderr)
}

async function seenByCore(lab: Lab): Promise<Readonly<Record<'wireguard' | 'probes' | 'other' | 'inner', number>>> {
  const { stdout } = await lab.exec('core', ['nft', '-j', 'list', 'counters', 'table', 'inet', 'watch'])
  const { nftables } = JSON.parse(stdout) as { nftables: readonly { counter?: { name: string; packets: number } }[] }
  const packets = (name: string) => nftables.find(({ counter }) => counter?.name === name)?.counter?.packets ?? NaN
  return {
    wireguard: packets('wireguard'),
    probes: packets('probes'),
    other: packets('other'),
    inner: packets('inner'),
  }
}
