import t from 'tap'
import { planAgentRoutes, type LocalAddress } from '../../agent/routes.ts'
import type { Pool, PoolNode } from '../../lib/k8s/pools.ts'
import { routeText } from '../../lib/routes.ts'

const node = (name: string, site: number, host: number, addresses?: readonly string[]): PoolNode => ({
  name,
  addresses: addresses ?? [`192.168.${site}.1${host}`, `fd00:168:${site}::1${host}`],
  podCidrs: [`10.244.${site}${host}.0/24`, `fd00:244:${site}${host}::/64`],
})
const pool = (name: string, ...nodes: readonly PoolNode[]): Pool => ({ name, nodes, gateways: [nodes[0]!.name] })
const pools = [
  pool('cloud', { ...node('cloud', 3, 1), podCidrs: ['10.244.31.0/24'] }),
  pool('hanover', node('h1', 1, 1), node('h2', 1, 2)),
]
const links: readonly LocalAddress[] = [
  { device: 1, address: '127.0.0.1', length: 8 },
  { device: 2, address: '192.168.1.12', length: 24 },
  { device: 2, address: 'fd00:168:1::12', length: 64 },
  { device: 2, address: 'fe80::12', length: 64 },
  { device: 3, address: '10.244.12.1', length: 24 },
]
const plan = (node: string, changed: readonly Pool[] = pools, local = links) => {
  const { routes, problems, gateway } = planAgentRoutes({ node, pools: changed, links: local })
  return { routes: routes.map(routeText), problems, gateway }
}

t.test('a node beside the gateway', (t) => {
  t.same(plan('h2'), {
    routes: [
      '10.244.11.0/24 via 192.168.1.11 dev #2 table 7077 metric 200',
      'fd00:244:11::/64 via fd00:168:1::11 dev #2 table 7077 metric 200',
      'unreachable 10.244.31.0/24 table 7077 metric 10001',
      '10.244.31.0/24 via 192.168.1.11 dev #2 src 10.244.12.1 table 7077 metric 200',
    ],
    problems: [],
    gateway: { node: 'h1', address: '192.168.1.11' },
  })
  t.end()
})

t.test(
  'the gateway itself routes its neighbours, and lets nothing leak before the gateway daemon routes the rest',
  (t) => {
    const local = [
      { device: 2, address: '192.168.1.11', length: 24 },
      { device: 2, address: 'fd00:168:1::11', length: 64 },
    ]
    t.same(plan('h1', pools, local), {
      routes: [
        '10.244.12.0/24 via 192.168.1.12 dev #2 table 7077 metric 200',
        'fd00:244:12::/64 via fd00:168:1::12 dev #2 table 7077 metric 200',
        'unreachable 10.244.31.0/24 table 7077 metric 10001',
      ],
      problems: [],
      gateway: undefined,
    })
    t.end()
  },
)

t.test('a LAN without IPv6: the family is named, other pools are unreachable in it', (t) => {
  const cloud = pool('cloud', node('cloud', 3, 1))
  const changed = [cloud, pool('hanover', node('h1', 1, 1, ['192.168.1.11']), node('h2', 1, 2))]
  const { routes, problems } = plan('h2', changed)
  t.match(
    routes.filter((route) => route.includes(':')),
    ['unreachable fd00:244:31::/64 table 7077 metric 10001'],
  )
  const told = (prefix: string) =>
    `node h1: no IPv6 InternalIP of it is on a network of this node (it has 192.168.1.11), so nothing is routed to ${prefix}; ` +
    'give both nodes an address of that family on one LAN'
  t.same(problems, [told('fd00:244:11::/64'), told('fd00:244:31::/64')])
  t.end()
})

t.test('addresses that are no way to a node', (t) => {
  const rows: readonly [string, readonly string[]][] = [
    ['not on-link', ['172.16.0.1']],
    ['our own', ['192.168.1.12']],
    ['link-local', ['fe80::11']],
    ['none', []],
  ]
  for (const [name, addresses] of rows) {
    const result = plan('h2', [pool('hanover', node('h1', 1, 1, addresses), node('h2', 1, 2))])
    t.same(result.routes, [], name)
    t.match(result.problems, [/^node h1: no IPv4 or IPv6 InternalIP of it is on a network of this node/])
    t.equal(result.gateway, undefined)
  }
  t.end()
})

t.test('the narrowest network counts', (t) => {
  const local = [
    { device: 7, address: '192.168.0.1', length: 16 },
    ...links,
    { device: 9, address: '192.168.1.11', length: 32 },
  ]
  t.match(plan('h2', pools, local.slice(0, -1)).routes[0], 'via 192.168.1.11 dev #2')
  t.end()
})

t.test('a node that no object describes', (t) => {
  t.same(plan('stranger').routes, [])
  t.match(plan('stranger').problems, [/^node stranger: no Node object/])
  t.end()
})

t.test('the gateway that was heard of comes before what the objects say, and before a dead gateway’s routes', (t) => {
  const both = [pools[0]!, { ...pools[1]!, gateways: ['h1', 'h2'] }]
  const here = [{ device: 2, address: '192.168.1.11', length: 24 }]
  const remote = (node: string, active: string | undefined, local: readonly LocalAddress[]) =>
    planAgentRoutes({ node, pools: both, links: local, active })
      .routes.map(routeText)
      .filter((text) => text.startsWith('10.244.31.0/24'))
  t.strictSame(remote('h1', undefined, here), [], 'nobody was heard: we come first')
  t.strictSame(remote('h1', 'h2', here), ['10.244.31.0/24 via 192.168.1.12 dev #2 table 7077 metric 50'])
  t.strictSame(remote('h2', 'h2', links), [], 'it is ourselves, whatever the order')
  t.match(remote('h2', 'h1', links), [/via 192.168.1.11 .* metric 50$/])
  t.end()
})
