// NATs of every type at once: each pair of pools ends on the best path that its two NATs allow, says what stands in the
// way of a better one, and carries calls either way.

import t from 'tap'
import { natName } from '../../lib/status-text.ts'
import type { NatType } from '../lab/nat.ts'
import { get, gatewaysOf, addressOf, openMesh, until, waysOf, type Way } from './mesh.ts'

t.setTimeout(240_000)

const SITES = {
  dale: 'full-cone',
  moor: 'restricted',
  fen: 'port-restricted',
  tarn: 'symmetric',
  beck: 'symmetric',
  crag: 'udp-blocked',
  holm: 'none',
} as const satisfies Record<string, NatType>
const POOLS = ['cloud', ...Object.keys(SITES)]
const typeOf = (pool: string): NatType => (SITES as Record<string, NatType>)[pool] ?? 'none'

const NAMES: Record<NatType, string> = {
  'full-cone': 'full cone',
  restricted: 'restricted cone',
  'port-restricted': 'port restricted cone',
  symmetric: 'symmetric',
  'udp-blocked': 'UDP blocked',
  none: 'none',
}

/** RFC 4787's behaviours: a mapping that nobody can foretell needs a peer that lets unknown ports in. */
function expectedOf(a: NatType, b: NatType): { readonly rung: string; readonly reason: RegExp } {
  const pair = [a, b]
  if (pair.includes('udp-blocked')) return { rung: 'relay-tcp', reason: /UDP is blocked at (this site|crag)/ }
  const strict = (type: NatType) => type === 'symmetric' || type === 'port-restricted'
  if (pair.includes('symmetric') && pair.every(strict))
    return { rung: 'relay-tcp', reason: /NATs here \(.*\) and at .*\(.*\) do not punch: forward a UDP port/ }
  return { rung: 'direct', reason: /^$/ }
}

const named = ({ from, to }: Way) => `${from} → ${to}`

t.test('every pair of NATs', async (t) => {
  const pools = Object.keys(SITES)
  const lab = await openMesh(t, 'n', { pools, nodes: 1, nat: new Map(Object.entries(SITES)) })

  // A relayed pair has the path it keeps only when an attempt at a better one has ended.
  const settled = new Map<string, Way>()
  const open = () =>
    POOLS.flatMap((from) =>
      POOLS.flatMap((to) => (from === to || settled.has(`${from} → ${to}`) ? [] : [`${from} → ${to}`])),
    )
  await until(
    'every pair has the path it should have',
    async () => {
      for (const way of await waysOf(lab)) {
        const { rung, reason } = expectedOf(typeOf(way.from), typeOf(way.to))
        const done =
          way.path.rung === rung &&
          reason.test(way.path.reason) &&
          (rung === 'direct' || way.path.reason.includes('next try'))
        if (done) settled.set(named(way), way)
      }
      return open().length === 0
    },
    { withinMs: 60_000, everyMs: 250, seen: open },
  ).catch((error: Error) => t.fail(error.message))

  const ways = await waysOf(lab)
  t.equal(ways.length, POOLS.length * (POOLS.length - 1), 'a path for each pair')
  for (const way of ways) {
    const { rung, reason } = expectedOf(typeOf(way.from), typeOf(way.to))
    const what = `${named(way)} (${typeOf(way.from)}, ${typeOf(way.to)})`
    t.equal(way.path.rung, rung, what)
    t.match(way.path.reason, reason, `${what}: why not better`)
    t.equal(natName(way.path.peerNat!), NAMES[typeOf(way.to)], `${what}: the peer's NAT`)
    // One side sets the endpoint; the other may know the peer by what WireGuard learned of it.
    const back = ways.find(({ from, to }) => from === way.to && to === way.from)
    const endpoints = [way, back].flatMap((each) => each?.path.endpoint ?? [])
    t.equal(endpoints.length > 0, rung === 'direct', `${what}: where the peer is`)
  }
  for (const { pool, nat } of await gatewaysOf(lab)) {
    t.equal(natName(nat), NAMES[typeOf(pool)], `NAT of ${pool}`)
    const { wan } = lab.topology.pools.find(({ name }) => name === pool)!
    if (!['none', 'udp-blocked'].includes(typeOf(pool)))
      t.match(nat.mapped, `${wan[0]}:`, `${pool} is seen as its router`)
  }
  const table = (await lab.exec('crag1', ['fulmar', 'status'])).stdout
  t.match(table, /crag → fen +relay-tcp .*UDP is blocked at this site: let it out/, 'for people')

  for (const family of [4, 6] as const)
    await Promise.all(
      POOLS.map(async (from) => {
        const others = POOLS.filter((pool) => pool !== from)
        const [host, nodeOf] = [
          `${from === 'cloud' ? from : `${from}1`}-client`,
          (pool: string) => (pool === 'cloud' ? pool : `${pool}1`),
        ]
        const answers = await get(
          lab,
          host,
          others.map((pool) => `http://web-${pool}.shop/`),
          family,
        )
        const expected = others.map((pool) => ({ node: nodeOf(pool), client: addressOf(lab, host, family) }))
        t.strictSame(
          answers.map(({ node, client }) => ({ node, client })),
          expected,
          `${from} calls all others over IPv${family}`,
        )
      }),
    )
})
