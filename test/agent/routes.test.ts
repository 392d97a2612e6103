import t from 'tap'
import { innerOf } from '../../agent/overlay.ts'
import { planAgentRoutes, type AgentRoutesInput } from '../../agent/routes.ts'
import type { LocalAddress, Surroundings } from '../../agent/transport.ts'
import { contains, parseCidr } from '../../lib/cidr.ts'
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
const VXLAN = 9
/** What a kernel with these addresses says: everything else is behind a router, if there is one. */
function around(local: readonly LocalAddress[], changes: Partial<Surroundings> = {}, router = false): Surroundings {
  const nodes = pools.flatMap((pool) => pool.nodes).concat(changed.flatMap((pool) => pool.nodes))
  const reach = nodes
    .flatMap(({ addresses }) => addresses)
    .flatMap((address) => {
      if (local.some((own) => own.address === address)) return []
      const [on] = local
        .filter((own) => own.length < 128 && !own.address.startsWith('fe80:'))
        .filter((own) => contains(parseCidr(`${own.address}/${own.length}`)!, address))
        .toSorted((a, b) => b.length - a.length)
      if (on === undefined && !router) return []
      return [[address, { device: on?.device ?? 2, onLink: on !== undefined }] as const]
    })
  return { links: local, reach: new Map(reach), carried: new Map(), overlay: {}, ...changes }
}
let changed: readonly Pool[] = []
const plan = (
  node: string,
  all: readonly Pool[] = pools,
  local = links,
  changes: Partial<Surroundings> & { readonly router?: boolean; readonly input?: Partial<AgentRoutesInput> } = {},
) => {
  changed = all
  const { router = false, input = {}, ...surroundings } = changes
  const planned = planAgentRoutes({ node, pools: all, ...input }, around(local, surroundings, router))
  return { routes: planned.routes.map(routeText), problems: planned.problems, gateway: planned.gateway }
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
    gateway: { node: 'h1', address: '192.168.1.11', transport: 'on-link' },
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
        '10.244.12.0/24 via 192.168.1.12 dev #2 table 7078 metric 200',
        'fd00:244:12::/64 via fd00:168:1::12 dev #2 table 7078 metric 200',
        'unreachable 10.244.31.0/24 table 7077 metric 10001',
      ],
      problems: [],
      gateway: undefined,
    })
    t.end()
  },
)

t.test('a LAN without IPv6 and a kernel without VXLAN: other pools are unreachable in it', (t) => {
  const cloud = pool('cloud', node('cloud', 3, 1))
  const changed = [cloud, pool('hanover', node('h1', 1, 1, ['192.168.1.11']), node('h2', 1, 2))]
  const { routes, problems } = plan('h2', changed)
  t.match(
    routes.filter((route) => route.includes(':')),
    ['unreachable fd00:244:31::/64 table 7077 metric 10001'],
  )
  const told = (prefix: string) =>
    `node h1: this node has no way to any InternalIP of it (it has 192.168.1.11), so nothing is routed to ${prefix}; ` +
    'see that the link to it is up (ip route get ADDRESS), or give both nodes an InternalIP of one family'
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
    t.match(result.problems, [/^node h1: this node has no way to any InternalIP of it/])
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
    plan(node, both, local, { input: { active } }).routes.filter((text) => text.startsWith('10.244.31.0/24'))
  t.strictSame(remote('h1', undefined, here), [], 'nobody was heard: we come first')
  t.strictSame(remote('h1', 'h2', here), ['10.244.31.0/24 via 192.168.1.12 dev #2 table 7077 metric 50'])
  t.strictSame(remote('h2', 'h2', links), [], 'it is ourselves, whatever the order')
  t.match(remote('h2', 'h1', links), [/via 192.168.1.11 .* metric 50$/])
  t.end()
})

const apart = [
  pool('cloud', { ...node('cloud', 3, 1), podCidrs: ['10.244.31.0/24'] }),
  pool('hanover', node('h1', 1, 1), node('h2', 1, 2, ['172.16.1.12', 'fd00:169:1::12']), node('h3', 1, 3)),
]
const on = (host: number): readonly LocalAddress[] =>
  host === 2
    ? [{ device: 2, address: '172.16.1.12', length: 24 }]
    : [{ device: 2, address: `192.168.1.1${host}`, length: 24 }]
const routed = { router: true, overlay: { 4: { device: VXLAN, mtu: 1350 } } }
const HOP = { h1: innerOf('h1').hop, h2: innerOf('h2').hop }

t.test('a node on another link reaches other pools through the overlay, and pods of its pool only if asked', (t) => {
  const { routes, problems, gateway } = plan('h2', apart, on(2), routed)
  t.same(routes, [
    'unreachable 10.244.31.0/24 table 7077 metric 10001',
    `10.244.31.0/24 via ${HOP.h1} dev #${VXLAN} table 7077 metric 200`,
  ])
  t.match(problems, [
    /^node h1: it shares no link with this node and nobody routes to 10.244.11.0\/24, fd00:244:11::\/64/,
    /^node h3/,
  ])
  t.same(gateway, { node: 'h1', address: '192.168.1.11', transport: 'vxlan' })
  const asked = plan('h2', apart, on(2), { ...routed, input: { podsInPool: true } })
  t.same(asked.problems, [])
  t.same(
    asked.routes.filter((route) => route.includes('244:11')),
    [`fd00:244:11::/64 via ${HOP.h1} dev #${VXLAN} table 7077 metric 200`],
  )
  const { routes: all } = planAgentRoutes({ node: 'h2', pools: apart }, around(on(2), routed, true))
  t.match(
    all.filter(({ kind }) => kind === 'unicast'),
    [{ mtu: 1350 }],
    'what the overlay carries',
  )
  t.end()
})

t.test('the gateway has ways back to all nodes of its pool', (t) => {
  const { routes, problems } = plan('h1', apart, on(1), routed)
  t.same(
    routes.filter((route) => route.includes('7078') && !route.includes('fd00')),
    [
      `10.244.12.0/24 via ${HOP.h2} dev #${VXLAN} table 7078 metric 200`,
      '10.244.13.0/24 via 192.168.1.13 dev #2 table 7078 metric 200',
    ],
  )
  t.same(problems, [])
  t.end()
})

t.test('what a CNI carries is left to it, and packets of the mesh go where it does not', (t) => {
  const carried = (device: number) => new Map([['10.244.12.0/24', [device]]])
  const to = (device: number) =>
    plan('h1', pools, on(1), { ...routed, carried: carried(device) }).routes.filter((route) =>
      route.startsWith('10.244.12.0/24'),
    )
  t.same(to(2), ['10.244.12.0/24 via 192.168.1.12 dev #2 table 7078 metric 200'], 'over the same link')
  t.same(to(7), [`10.244.12.0/24 via ${HOP.h2} dev #${VXLAN} table 7078 metric 200`], 'over a tunnel of its own')
  t.end()
})

t.test('a link counts where both have their InternalIP', (t) => {
  const local = [...on(2), { device: 3, address: '192.168.1.99', length: 24 }]
  t.match(plan('h2', apart, local, { ...routed, input: { podsInPool: true } }).routes[0], `dev #${VXLAN}`)
  t.end()
})
