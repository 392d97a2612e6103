// The Internet between sites in IPv6, in both versions, and in IPv4 with one LAN prefix everywhere: pairs become direct,
// and calls run in both families inside the mesh, whatever is outside.

import { isIPv6 } from 'node:net'
import t from 'tap'
import type { LabOptions } from '../lab/lab.ts'
import type { NatType } from '../lab/nat.ts'
import { addressOf, directOnce, get, openMesh, until, waysOf } from './mesh.ts'

t.setTimeout(240_000)

type Row = {
  readonly name: string
  readonly options: LabOptions
  readonly nat: Readonly<Record<string, NatType>>
  /** The family by which the two sites meet. */
  readonly outside: 4 | 6
}
const rows: readonly Row[] = [
  {
    name: 'IPv6 only, behind stateful firewalls',
    options: { underlay: 'v6' },
    nat: { oslo: 'port-restricted', turku: 'symmetric' },
    outside: 6,
  },
  {
    name: 'both, where the NATs of IPv4 do not punch',
    options: { underlay: 'dual' },
    nat: { riga: 'symmetric', gdynia: 'port-restricted' },
    outside: 6,
  },
  {
    name: 'IPv4 with one LAN prefix at all sites',
    options: { underlay: 'v4', overlapLans: true },
    nat: { kiel: 'port-restricted', visby: 'port-restricted' },
    outside: 4,
  },
]

for (const [index, { name, options, nat, outside }] of rows.entries())
  t.test(name, async (t) => {
    const [a, b] = Object.keys(nat) as [string, string]
    const lab = await openMesh(t, `f${index}`, {
      ...options,
      pools: [a, b],
      nodes: 1,
      nat: new Map(Object.entries(nat)),
    })
    if (options.overlapLans) {
      const [first, second] = [a, b].map((pool) => lab.topology.nodes.find((node) => node.pool === pool)!.addresses[0])
      t.equal(first, second, 'two nodes have one address')
    }

    const nodes = { [a]: `${a}1`, [b]: `${b}1`, cloud: 'cloud' }
    const pools = Object.keys(nodes)
    for (const pair of [
      [a, b],
      [a, 'cloud'],
      [b, 'cloud'],
    ] as readonly (readonly [string, string])[]) {
      await directOnce(lab, pair)
      const located = async () =>
        (await waysOf(lab)).filter(
          ({ from, to, path }) => pair.includes(from) && pair.includes(to) && path.endpoint !== undefined,
        )
      await until(`${pair.join(' ↔ ')} say where they are`, async () => (await located()).length === 2)
      const endpoints = (await located()).map(({ path }) => path.endpoint!)
      const families = endpoints.map((text) => (isIPv6(text.replace(/^\[(.*)\]:\d+$/, '$1')) ? 6 : 4))
      // With the cloud both families work in the second row, and either is as good.
      const asExpected = families.every((family) => family === outside)
      t.ok(asExpected || (pair as readonly string[]).includes('cloud'), `by IPv${outside}: ${endpoints.join(' ')}`)
    }
    for (const family of [4, 6] as const)
      for (const from of pools) {
        const others = pools.filter((pool) => pool !== from)
        const host = `${nodes[from]}-client`
        const answers = await get(
          lab,
          host,
          others.map((pool) => `http://web-${pool}.shop/`),
          family,
        )
        t.strictSame(
          answers.map(({ node, client }) => ({ node, client })),
          others.map((pool) => ({ node: nodes[pool], client: addressOf(lab, host, family) })),
          `${from} calls over IPv${family}`,
        )
      }
  })
