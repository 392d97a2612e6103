// NATs of every type at once: each pair of pools ends on the best path that its two NATs allow, says what stands in the
// way of a better one, and carries calls either way.

import t from 'tap'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import { natName } from '../../lib/nat-text.ts'
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
/** The types that are here; `npm run lab -- matrix` has all. */
type Type = (typeof SITES)[keyof typeof SITES]
const typeOf = (pool: string): Type => (SITES as Record<string, Type>)[pool] ?? 'none'

const NAMES: Record<Type, string> = {
  'full-cone': 'full cone',
  restricted: 'restricted cone',
  'port-restricted': 'port restricted cone',
  symmetric: 'symmetric',
  'udp-blocked': 'UDP blocked',
  none: 'none',
}

/** RFC 4787's behaviours: a mapping that nobody can foretell needs a peer that lets unknown ports in. */
function expectedOf(from: string, to: string): { readonly rung: string; readonly reason: RegExp } {
  const pair = [typeOf(from), typeOf(to)]
  if (pair.includes('udp-blocked')) {
    const where = typeOf(from) === 'udp-blocked' ? 'this site' : to
    return { rung: 'relay-tcp', reason: new RegExp(`UDP is blocked at ${where}: let it out.*; next try in`) }
  }
  const strict = (type: Type) => type === 'symmetric' || type === 'port-restricted'
  if (pair.includes('symmetric') && pair.every(strict))
    return {
      rung: 'relay-udp',
      reason: /NATs here \(.*\) and at .*\(.*\) do not punch: forward a UDP port.*; next try in/,
    }
  return { rung: 'direct', reason: /^$/ }
}

function isAsExpected({ from, to, path }: Way): boolean {
  const { rung, reason } = expectedOf(from, to)
  return path.rung === rung && reason.test(path.reason) && natName(path.peerNat ?? UNKNOWN_NAT) === NAMES[typeOf(to)]
}

const named = ({ from, to }: Way) => `${from} → ${to}`

t.test('every pair of NATs', async (t) => {
  const pools = Object.keys(SITES)
  const lab = await openMesh(t, 'n', { pools, nodes: 1, nat: new Map(Object.entries(SITES)) })

  const openedAt = Date.now()
  /** By which address others see a pool's gateway. */
  const outsideOf = (pool: string) => {
    const { gateway, nat, wan } = lab.topology.pools.find(({ name }) => name === pool)!
    return nat === 'none' ? lab.topology.nodes.find(({ name }) => name === gateway)!.addresses[0] : wan[0]
  }

  // A relayed pair has the path it keeps only when an attempt at a better one has ended. Each pair is held to what it was
  // when it was as it should be: on a machine under load one may leave its path for a moment while others come up.
  const settled = new Map<string, Way>()
  const all = POOLS.flatMap((from) => POOLS.filter((to) => to !== from).map((to) => `${from} → ${to}`))
  const missing = () => all.filter((name) => !settled.has(name))
  const look = async () => {
    for (const way of await waysOf(lab)) if (isAsExpected(way)) settled.set(named(way), way)
    return missing().length === 0
  }
  await until('every pair has the path it should have', look, { withinMs: 60_000, everyMs: 250 }).catch(async () => {
    for (const way of await waysOf(lab))
      if (missing().includes(named(way))) t.match(way.path, expectedOf(way.from, way.to), named(way))
  })
  t.comment(`all pairs are as they should be ${Date.now() - openedAt} ms after the lab was open`)
  t.strictSame(missing(), [], 'every pair has the path it should have')
  for (const way of settled.values()) {
    const { rung, endpoint } = way.path
    t.equal(
      endpoint?.split(':')[0],
      rung === 'direct' ? outsideOf(way.to) : undefined,
      `${named(way)}, ${rung}: where the peer is`,
    )
  }
  for (const { pool, nat } of await gatewaysOf(lab)) {
    t.equal(natName(nat), NAMES[typeOf(pool)], `NAT of ${pool}`)
    const mapped = typeOf(pool) === 'udp-blocked' ? undefined : outsideOf(pool)
    t.equal(nat.mapped?.split(':')[0], mapped, `${pool} knows by which address it is seen`)
  }
  const table = (await lab.exec('crag1', ['fulmar', 'status'])).stdout
  t.match(table, /crag → fen +relay-tcp .*\n +(why +)?UDP is blocked at this site: let it out/, 'for people')

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
