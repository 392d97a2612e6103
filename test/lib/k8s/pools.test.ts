import t from 'tap'
import type { Node, NodePool, RavenGateway } from '../../../lib/k8s/objects.ts'
import { poolsOf, withoutOutside } from '../../../lib/k8s/pools.ts'

type Sketch = {
  labels?: Record<string, string>
  cidrs?: readonly string[]
  addresses?: readonly string[]
  day?: number
}
const node = (name: string, { labels = {}, cidrs = [], addresses = [], day }: Sketch = {}): Node => ({
  metadata: { name, labels, ...(day !== undefined && { creationTimestamp: `2026-01-0${day}T00:00:00Z` }) },
  spec: { podCIDRs: [...cidrs] },
  status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
})
const inPool = (pool: string) => ({ 'apps.openyurt.io/nodepool': pool })
const inTunnel = (pool: string) => ({ 'raven.openyurt.io/gateway': pool })
const candidate = { 'fulmar.dev/gateway': 'true' }
const nodePool = (name: string, interConnectivity?: boolean): NodePool => ({
  metadata: { name },
  spec: { type: 'Edge', ...(interConnectivity === undefined ? {} : { interConnectivity }) },
})
const gateway = (name: string, ...endpoints: readonly { nodeName: string; type?: string }[]): RavenGateway => ({
  metadata: { name },
  spec: { endpoints },
})

type Row = {
  name: string
  nodes: readonly Node[]
  nodePools?: readonly NodePool[]
  gateways?: readonly RavenGateway[]
  /** `pool: node[cidrs] …; gateways` */
  pools: readonly string[]
  problems?: readonly RegExp[]
}

const rows: readonly Row[] = [
  {
    name: 'pools and nodes by name, every node a candidate',
    nodes: [
      node('s1', { labels: inPool('site') }),
      node('h2', { labels: inPool('home') }),
      node('h1', { labels: inPool('home') }),
    ],
    pools: ['home: h1[] h2[]; h1 h2', 'site: s1[]; s1'],
  },
  { name: 'a node without a label is a pool of its own', nodes: [node('lone')], pools: ['lone: lone[]; lone'] },
  {
    name: 'the tunnel label wins over the NodePool',
    nodes: [node('a', { labels: { ...inPool('p'), ...inTunnel('t') } }), node('b', { labels: inPool('p') })],
    pools: ['p: b[]; b', 't: a[]; a'],
  },
  {
    name: 'a NodePool without inter-connectivity splits into nodes, a tunnel label still groups',
    nodes: [
      node('a', { labels: inPool('p') }),
      node('b', { labels: inPool('p') }),
      node('c', { labels: { ...inPool('p'), ...inTunnel('t') } }),
    ],
    nodePools: [nodePool('p', false)],
    pools: ['a: a[]; a', 'b: b[]; b', 't: c[]; c'],
  },
  {
    name: 'inter-connectivity that is true or absent keeps the pool',
    nodes: [node('a', { labels: inPool('p') }), node('b', { labels: inPool('q') })],
    nodePools: [nodePool('p', true), nodePool('q')],
    pools: ['p: a[]; a', 'q: b[]; b'],
  },
  {
    name: 'a lone node named like a pool of others is left out',
    nodes: [node('cloud'), node('c1', { labels: inPool('cloud') })],
    pools: ['cloud: c1[]; c1'],
    problems: [/node cloud is in no pool.*left out/],
  },
  {
    name: 'gateways: the order of the Raven Gateway, tunnel endpoints only',
    nodes: ['a', 'b', 'c'].map((name) => node(name, { labels: { ...inPool('p'), ...candidate } })),
    gateways: [gateway('p', { nodeName: 'c', type: 'tunnel' }, { nodeName: 'b', type: 'proxy' }, { nodeName: 'a' })],
    pools: ['p: a[] b[] c[]; c a'],
  },
  {
    name: 'gateways: an endpoint outside the pool is named and the labels decide',
    nodes: [node('a', { labels: inPool('p') }), node('b', { labels: { ...inPool('p'), ...candidate } })],
    gateways: [gateway('p', { nodeName: 'ghost' })],
    pools: ['p: a[] b[]; b'],
    problems: [/Gateway p: endpoint ghost is no node of pool p/],
  },
  {
    name: 'gateways: the order of the Gateway object stands, whom Raven elected or not',
    nodes: ['a', 'b', 'c'].map((name) => node(name, { labels: inPool('p') })),
    gateways: [
      { ...gateway('p', { nodeName: 'c' }, { nodeName: 'a' }), status: { activeEndpoints: [{ nodeName: 'a' }] } },
    ],
    pools: ['p: a[] b[] c[]; c a'],
  },
  {
    name: 'gateways: among equals Raven’s choice comes first, if it is one of them',
    nodes: ['a', 'b', 'c'].map((name) => node(name, { labels: inPool('p') })),
    gateways: [{ ...gateway('p'), status: { activeEndpoints: [{ nodeName: 'ghost' }, { nodeName: 'b' }] } }],
    pools: ['p: a[] b[] c[]; b a c'],
  },
  {
    name: 'gateways: among equals the oldest Node comes first, so that a new one takes nothing over',
    nodes: [
      node('a', { labels: inPool('p'), day: 2 }),
      node('b', { labels: inPool('p') }),
      node('c', { labels: inPool('p'), day: 1 }),
      node('d', { labels: inPool('p'), day: 1 }),
    ],
    pools: ['p: a[] b[] c[] d[]; c d a b'],
  },
  {
    name: 'gateways: Raven’s choice does not widen the label',
    nodes: [node('a', { labels: inPool('p') }), node('b', { labels: { ...inPool('p'), ...candidate } })],
    gateways: [{ ...gateway('p'), status: { activeEndpoints: [{ nodeName: 'a' }] } }],
    pools: ['p: a[] b[]; b'],
  },
  {
    name: 'gateways: none where the object says that there are no tunnels',
    nodes: [node('a', { labels: inPool('p') }), node('b', { labels: inPool('q') })],
    gateways: [{ metadata: { name: 'p' }, spec: { tunnelConfig: { Replicas: 0 } } }],
    pools: ['p: a[]; ', 'q: b[]; b'],
    problems: [/Gateway p: spec\.tunnelConfig\.Replicas is 0/],
  },
  {
    name: 'prefixes of both families become canonical, repeated ones once',
    nodes: [node('a', { cidrs: ['10.244.1.9/24', 'FD00:244:0001::/64', '10.244.1.0/24'] })],
    pools: ['a: a[10.244.1.0/24 fd00:244:1::/64]; a'],
  },
  {
    name: 'impossible prefixes are left out and named, the others stay',
    nodes: [
      node('a', {
        cidrs: [
          '10.244.1.0/33',
          '10.244.300.0/24',
          'fd00::/129',
          'x',
          '10.1/16',
          '0.0.0.0/0',
          '127.0.0.0/24',
          '10.244.1.0/24',
        ],
      }),
    ],
    pools: ['a: a[10.244.1.0/24]; a'],
    problems: [
      /1\.0\/33.*no CIDR/,
      /300/,
      /129/,
      /"x"/,
      /"10\.1\/16"/,
      /0\.0\.0\.0\/0.*cannot have/,
      /127\.0\.0\.0\/24/,
    ],
  },
  {
    name: 'one prefix in two pools: neither gets it, both are named, the rest works on',
    nodes: [
      node('a', { cidrs: ['10.244.1.0/24', 'fd00:1::/64'] }),
      node('b', { cidrs: ['10.244.1.0/24', 'fd00:2::/64'] }),
    ],
    pools: ['a: a[fd00:1::/64]; a', 'b: b[fd00:2::/64]; b'],
    problems: [/10\.244\.1\.0\/24 is claimed by node a of pool a and node b of pool b/],
  },
  {
    name: 'a prefix within another pool’s: neither gets it, a neighbour beside it is untouched',
    nodes: [
      node('a', { cidrs: ['10.244.0.0/20'] }),
      node('b', { cidrs: ['10.244.3.0/24'] }),
      node('c', { cidrs: ['10.244.16.0/24'] }),
    ],
    pools: ['a: a[]; a', 'b: b[]; b', 'c: c[10.244.16.0/24]; c'],
    problems: [/10\.244\.3\.0\/24 of node b of pool b lies in 10\.244\.0\.0\/20 of node a of pool a/],
  },
  {
    name: 'contained at two depths, the inner pair of one pool',
    nodes: [
      node('a', { cidrs: ['10.0.0.0/8'] }),
      node('b1', { labels: inPool('b'), cidrs: ['10.1.0.0/16'] }),
      node('b2', { labels: inPool('b'), cidrs: ['10.1.1.0/24'] }),
    ],
    pools: ['a: a[]; a', 'b: b1[] b2[]; b1 b2'],
    problems: [
      /10\.1\.0\.0\/16 of node b1 .* lies in 10\.0\.0\.0\/8/,
      /10\.1\.1\.0\/24 of node b2 .* lies in 10\.0\.0\.0\/8/,
    ],
  },
  {
    name: 'who was there first keeps the prefix, and it is said',
    nodes: [node('new', { cidrs: ['10.244.1.0/24'], day: 2 }), node('old', { cidrs: ['10.244.1.0/24'], day: 1 })],
    pools: ['new: new[]; new', 'old: old[10.244.1.0/24]; old'],
    problems: [
      /claimed by node new of pool new and node old of pool old: node old of pool old, created first, keeps it; give/,
    ],
  },
  {
    name: 'of the same second, or of unknown age: none of them is first',
    nodes: [
      node('a', { cidrs: ['10.244.1.0/24', '10.244.2.0/24', '10.244.3.0/24'], day: 1 }),
      node('b', { cidrs: ['10.244.1.0/24'], day: 1 }),
      node('c', { cidrs: ['10.244.2.0/24'] }),
      node('d', { cidrs: ['10.244.2.0/24'], day: 2 }),
    ],
    pools: ['a: a[10.244.3.0/24]; a', 'b: b[]; b', 'c: c[]; c', 'd: d[]; d'],
    problems: [/1\.0\/24 .*none of them gets it/, /2\.0\/24 .*none of them gets it/],
  },
  {
    name: 'a prefix around older ones, and one within: who was there first keeps its own',
    nodes: [
      node('a', { cidrs: ['10.244.1.0/24'], day: 1 }),
      node('b', { cidrs: ['10.244.2.0/24'], day: 2 }),
      node('wide', { cidrs: ['10.244.0.0/16', '10.245.0.0/16'], day: 3 }),
      node('z', { cidrs: ['10.245.7.0/24'], day: 4 }),
    ],
    pools: ['a: a[10.244.1.0/24]; a', 'b: b[10.244.2.0/24]; b', 'wide: wide[10.245.0.0/16]; wide', 'z: z[]; z'],
    problems: [
      /10\.244\.1\.0\/24 of node a .* lies in 10\.244\.0\.0\/16 of node wide of pool wide: node a of pool a, created first, keeps its own/,
      /10\.244\.2\.0\/24 of node b .*: node b of pool b, created first, keeps its own/,
      /10\.245\.7\.0\/24 of node z .* lies in .*: node wide of pool wide, created first, keeps its own/,
    ],
  },
  {
    name: 'of two nodes of one pool only the one that was before the other pool keeps it',
    nodes: [
      node('p1', { labels: inPool('p'), cidrs: ['10.244.1.0/24'], day: 1 }),
      node('q', { cidrs: ['10.244.1.0/24'], day: 2 }),
      node('p2', { labels: inPool('p'), cidrs: ['10.244.1.0/24'], day: 3 }),
    ],
    pools: ['p: p1[10.244.1.0/24] p2[]; p1 p2', 'q: q[]; q'],
    problems: [/node p1 of pool p, created first, keeps it/],
  },
  {
    name: 'two nodes of one pool with one prefix keep it, and are named',
    nodes: [
      node('a', { labels: inPool('p'), cidrs: ['10.244.1.0/24'] }),
      node('b', { labels: inPool('p'), cidrs: ['10.244.1.0/24'] }),
    ],
    pools: ['p: a[10.244.1.0/24] b[10.244.1.0/24]; a b'],
    problems: [/node a of pool p and node b of pool p: its pods may be looked for on the wrong node/],
  },
]

for (const { name, nodes, nodePools = [], gateways = [], pools, problems = [] } of rows) {
  t.test(name, async (t) => {
    const result = poolsOf(nodes, nodePools, gateways)
    t.strictSame(
      result.pools.map(
        (pool) =>
          `${pool.name}: ${pool.nodes.map((each) => `${each.name}[${each.podCidrs.join(' ')}]`).join(' ')}; ${pool.gateways.join(' ')}`,
      ),
      pools,
    )
    t.equal(result.problems.length, problems.length, result.problems.join('\n'))
    for (const [i, problem] of problems.entries()) t.match(result.problems[i], problem)
  })
}

t.test('no newcomer takes what others have', async (t) => {
  let seed = 1
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below
  const cidr = () => `10.${random(2)}.${random(4) * 64}.0/${[8, 16, 17, 18, 20, 24][random(6)]}`
  for (let round = 0; round < 200; round++) {
    const nodes = Array.from({ length: 1 + random(8) }, (_, i) =>
      node(`n${i}`, { labels: inPool(`p${random(4)}`), cidrs: [cidr()], day: 1 + random(8) }),
    )
    const newcomer = node('newcomer', { labels: inPool(`p${random(5)}`), cidrs: [cidr()], day: 9 })
    const held = (all: readonly Node[]) =>
      poolsOf(all, [], [])
        .pools.flatMap((pool) => pool.nodes.map(({ name, podCidrs }) => `${name} ${podCidrs.join()}`))
        .filter((text) => !text.startsWith('newcomer'))
        .toSorted()
    t.strictSame(held([...nodes, newcomer]), held(nodes))
    t.strictSame(held([newcomer, ...nodes.toReversed()]), held(nodes), 'in any order')
  }
})

t.test('many claims on one prefix cost no more than they are', async (t) => {
  const nodes = Array.from({ length: 10_000 }, (_, i) =>
    node(`n${i}`, { cidrs: ['10.0.0.0/8', `10.${i >> 8}.${i & 0xff}.0/24`] }),
  )
  const { pools, problems } = poolsOf(nodes, [], [])
  t.equal(pools.flatMap(({ nodes }) => nodes.flatMap(({ podCidrs }) => podCidrs)).length, 0)
  t.equal(problems.length, 10_001)
})

t.test('InternalIPs only, canonical, what is no address named', async (t) => {
  const { pools, problems } = poolsOf(
    [
      {
        metadata: { name: 'a' },
        status: {
          addresses: [
            { type: 'Hostname', address: 'a' },
            { type: 'InternalIP', address: '192.168.1.11' },
            { type: 'InternalIP', address: 'FD01::0:1' },
            { type: 'InternalIP', address: '192.168.1' },
          ],
        },
      },
    ],
    [],
    [],
  )
  t.strictSame(pools[0]?.nodes[0]?.addresses, ['192.168.1.11', 'fd01::1'])
  t.match(problems, [/node a: InternalIP "192\.168\.1" is no IP address/])
})

t.test('prefixes that would swallow the relay or this node’s own LAN are left out and named', async (t) => {
  const node = (name: string, ...podCidrs: readonly string[]) => ({ name, addresses: [], podCidrs })
  const pools = [
    { name: 'cliff', nodes: [node('c1', '10.244.1.0/24', '203.0.113.0/24')], gateways: ['c1'] },
    { name: 'shore', nodes: [node('s1', '192.168.0.0/16')], gateways: ['s1'] },
  ]
  const outside = [
    { address: '203.0.113.10', what: 'the relay' },
    { address: '192.168.7.3', what: 'an address of this node on eth0' },
  ]
  const { pools: routable, problems } = withoutOutside(pools, outside)
  t.strictSame(
    routable.map(({ nodes }) => nodes.map(({ podCidrs }) => podCidrs)),
    [[['10.244.1.0/24']], [[]]],
  )
  t.match(problems, [
    /pool cliff, node c1: podCIDR 203\.0\.113\.0\/24 holds 203\.0\.113\.10, the relay/,
    /shore.*192\.168\.7\.3/,
  ])
})
