import t from 'tap'
import type { Node, Pod } from '../../lib/k8s/objects.ts'
import type { Objects } from './folder.ts'
import { NAT_TYPES, type NatType } from './nat.ts'
import { generatedPools } from './options.ts'
import { SITES_MAX } from './plan.ts'
import { machineBatch } from './script.ts'
import { planTopology, type TopologyOptions } from './topology.ts'

const node = (name: string, pool: string, podCIDRs: readonly string[] = []): Node => ({
  metadata: { name, labels: { 'apps.openyurt.io/nodepool': pool } },
  spec: { podCIDRs: [...podCIDRs] },
})
const pod = (
  name: string,
  nodeName: string,
  rest: { spec?: object; status?: object; namespace?: string } = {},
): Pod => ({
  metadata: { name, namespace: rest.namespace ?? 'default' },
  spec: { nodeName, containers: [{ name: 'c', ports: [{ containerPort: 8080 }] }], ...rest.spec },
  status: { ...rest.status },
})
const objects = (rest: Partial<Objects>): Objects => ({
  nodes: [],
  pods: [],
  services: [],
  endpointSlices: [],
  nodePools: [],
  gateways: [],
  problems: [],
  ...rest,
})
const plan = (rest: Partial<Objects>, options: Partial<TopologyOptions> = {}) =>
  planTopology(objects(rest), {
    id: 't',
    underlay: 'v4',
    overlapLans: false,
    nat: new Map<string, NatType>(),
    ...options,
  })

const SITES = [
  node('cloud', 'cloud', ['10.244.0.0/24']),
  node('n1', 'north', ['10.244.1.0/24', 'fd00:244:1::/64']),
  node('n2', 'north', ['10.244.2.0/24', 'fd00:244:2::/64']),
  node('s1', 'south', ['10.244.3.0/24', 'fd00:244:3::/64']),
]

t.test('addresses of a site by underlay', async (t) => {
  const rows = [
    {
      name: 'v4',
      options: {},
      node: ['192.168.1.11', 'fd00:168:1::11'],
      south: ['192.168.2.11', 'fd00:168:2::11'],
      wan: ['198.18.1.2'],
      relay: ['203.0.113.10'],
    },
    {
      name: 'dual',
      options: { underlay: 'dual' },
      node: ['192.168.1.11', '2001:db8:101::11'],
      south: ['192.168.2.11', '2001:db8:102::11'],
      wan: ['198.18.1.2', '2001:db8:f000:1::2'],
      relay: ['203.0.113.10', '2001:db8:1::10'],
    },
    {
      name: 'v6',
      options: { underlay: 'v6' },
      node: ['192.168.1.11', '2001:db8:101::11'],
      south: ['192.168.2.11', '2001:db8:102::11'],
      wan: ['2001:db8:f000:1::2'],
      relay: ['2001:db8:1::10'],
    },
    {
      name: 'overlapping',
      options: { overlapLans: true },
      node: ['192.168.1.11', 'fd00:168:1::11'],
      south: ['192.168.1.11', 'fd00:168:1::11'],
      wan: ['198.18.1.2'],
      relay: ['203.0.113.10'],
    },
    {
      name: 'public',
      options: { nat: new Map([['north', 'none']]) },
      node: ['198.19.1.11', 'fd00:168:1::11'],
      south: ['192.168.2.11', 'fd00:168:2::11'],
      wan: ['198.18.1.2'],
      relay: ['203.0.113.10'],
    },
  ] as const
  for (const row of rows) {
    const { nodes, pools, relay } = plan({ nodes: SITES }, row.options as Partial<TopologyOptions>)
    t.strictSame(nodes.find(({ name }) => name === 'n1')!.addresses, row.node, `${row.name}: first node`)
    t.strictSame(nodes.find(({ name }) => name === 's1')!.addresses, row.south, `${row.name}: other site`)
    t.strictSame(pools.find(({ name }) => name === 'north')!.wan, row.wan, `${row.name}: WAN`)
    t.strictSame(relay.addresses, row.relay, `${row.name}: relay`)
    t.equal(relay.stun.length, 2 * row.relay.length, `${row.name}: two STUN addresses per family`)
  }
})

t.test('a site whose nodes are on two LANs', async (t) => {
  const { nodes, hosts, links } = plan({ nodes: SITES }, { splitLans: ['north'], underlay: 'dual' })
  const on = (name: string) => nodes.find((node) => node.name === name)!
  t.match(on('n1'), { lan: 0, addresses: ['192.168.1.11', '2001:db8:101::11'] })
  t.match(on('n2'), { lan: 1, addresses: ['172.16.1.12', '2001:db8:401::12'] })
  t.match(on('s1'), { lan: 0 })
  const host = (name: string) => hosts.find((candidate) => candidate.name === name)!
  t.match(host('n2').ip.join('\n'), /route add default via 172\.16\.1\.1\n/)
  const port = (name: string) => links.find((ends) => ends.some((end) => end.host === name))![0].device
  const router = host('north-nat')
  t.match(router.ip.join('\n'), `link set ${port('n1')} master lan\n`)
  t.match(router.ip.join('\n'), `link set ${port('n2')} master lan2\n`)
  t.match(router.nft, 'iifname { "lan", "lan2" } oifname { "lan", "lan2" } accept')
  t.match(host('south-nat').nft, 'iifname "lan" accept')
  t.match(host('core').ip.join('\n'), 'route add 2001:db8:401::/64 via 2001:db8:f000:1::2')
})

t.test('sites and the NAT in front of them', async (t) => {
  const { pools } = plan({ nodes: SITES }, { order: ['south', 'north'], nat: new Map([['north', 'symmetric']]) })
  t.strictSame(
    pools.map(({ name, nat, router, gateway, nodes }) => ({ name, nat, router, gateway, nodes })),
    [
      { name: 'cloud', nat: 'none', router: undefined, gateway: 'cloud', nodes: ['cloud'] },
      { name: 'south', nat: 'port-restricted', router: 'south-nat', gateway: 's1', nodes: ['s1'] },
      { name: 'north', nat: 'symmetric', router: 'north-nat', gateway: 'n1', nodes: ['n1', 'n2'] },
    ],
  )
})

t.test('the cloud is there without a Node object, and with more nodes than one', async (t) => {
  const without = plan({ nodes: SITES.slice(1) })
  t.ok(
    without.hosts.some(({ name }) => name === 'cloud'),
    'the relay has a host',
  )
  t.notOk(
    without.nodes.some(({ name }) => name === 'cloud'),
    'which is no node',
  )
  const control = plan({ nodes: [...SITES.slice(1), node('control1', 'cloud')] })
  t.strictSame(control.nodes.find(({ name }) => name === 'control1')?.addresses, ['203.0.113.20', 'fd00:168::20'])
  const other = plan({ nodes: [node('cloud', 'hq'), node('hq2', 'hq')] })
  t.strictSame(
    other.pools.map(({ name, router }) => ({ name, router })),
    [{ name: 'hq', router: undefined }],
    'by its node, whatever the pool is called',
  )
})

t.test('pods', async (t) => {
  const rows: {
    name: string
    pods: Pod[]
    slices?: Objects['endpointSlices']
    addresses: Record<string, readonly string[]>
    problem?: RegExp
  }[] = [
    {
      name: 'the address of its status',
      pods: [pod('a', 'n1', { status: { podIPs: [{ ip: '10.244.1.7' }, { ip: 'fd00:244:1:0::7' }] } })],
      addresses: { 'n1-a': ['10.244.1.7', 'fd00:244:1::7'] },
    },
    {
      name: 'the address of the endpoint that targets it',
      pods: [pod('a', 'n1')],
      slices: [
        {
          metadata: { namespace: 'default' },
          addressType: 'IPv4',
          endpoints: [{ addresses: ['10.244.1.9'], targetRef: { kind: 'Pod', name: 'a' } }],
        },
      ],
      addresses: { 'n1-a': ['10.244.1.9', 'fd00:244:1::64'] },
    },
    {
      name: 'the next free',
      pods: [pod('a', 'n1'), pod('b', 'n1'), pod('c', 'n2')],
      addresses: {
        'n1-a': ['10.244.1.100', 'fd00:244:1::64'],
        'n1-b': ['10.244.1.101', 'fd00:244:1::65'],
        'n2-c': ['10.244.2.100', 'fd00:244:2::64'],
      },
    },
    {
      name: 'an address of another node',
      pods: [pod('a', 'n1', { status: { podIP: '10.244.2.7' } })],
      addresses: { 'n1-a': ['10.244.1.100', 'fd00:244:1::64'] },
    },
    {
      name: 'an address that two want',
      pods: [pod('a', 'n1', { status: { podIP: '10.244.1.7' } }), pod('b', 'n1', { status: { podIP: '10.244.1.7' } })],
      addresses: { 'n1-a': ['10.244.1.7', 'fd00:244:1::64'], 'n1-b': ['10.244.1.100', 'fd00:244:1::65'] },
      problem: /n1-b: address 10\.244\.1\.7 is taken/,
    },
    { name: 'the host network', pods: [pod('a', 'n1', { spec: { hostNetwork: true } })], addresses: { 'n1-a': [] } },
    {
      name: 'a node that is not there',
      pods: [pod('a', 'x1')],
      addresses: {},
      problem: /pod default\/a is on node "x1"/,
    },
    {
      name: 'two of one name',
      pods: [pod('a', 'n1'), pod('a', 'n1', { namespace: 'other' })],
      addresses: { 'n1-a': ['10.244.1.100', 'fd00:244:1::64'] },
      problem: /pod other\/a would be host n1-a/,
    },
    { name: 'a name of a router', pods: [pod('nat', 'north')], addresses: {}, problem: /pod default\/nat/ },
  ]
  for (const row of rows) {
    const { pods, problems, hosts } = plan({
      nodes: [...SITES, node('north', 'far')],
      pods: row.pods,
      endpointSlices: row.slices ?? [],
    })
    t.strictSame(Object.fromEntries(pods.map(({ host, addresses }) => [host, addresses])), row.addresses, row.name)
    if (row.problem === undefined) t.strictSame(problems, [], `${row.name}: nothing to complain of`)
    else t.match(problems.join('\n'), row.problem, `${row.name}: said`)
    t.equal(
      hosts.filter(({ kind }) => kind === 'pod').length,
      pods.filter(({ hostNetwork }) => !hostNetwork).length,
      `${row.name}: hosts`,
    )
  }
})

t.test('ports of a pod are those of its containers and of slices that target it', async (t) => {
  const endpoints = [{ addresses: ['10.244.1.9'], targetRef: { kind: 'Pod', name: 'a', namespace: 'shop' } }]
  const slice = {
    metadata: { namespace: 'shop' },
    addressType: 'IPv4',
    endpoints,
    ports: [{ port: 9000 }, { port: 53, protocol: 'UDP' }],
  }
  const { pods } = plan({ nodes: SITES, pods: [pod('a', 'n1', { namespace: 'shop' })], endpointSlices: [slice] })
  t.match(pods[0], { tcpPorts: [8080, 9000], udpPorts: [53] })
})

t.test('names that collide are left out and named', async (t) => {
  const rows = [
    {
      name: 'a node called core',
      nodes: [node('core', 'north'), node('n1', 'north')],
      problem: /pool north: host core/,
      left: ['n1'],
    },
    {
      name: 'a node called like a router',
      nodes: [node('north-nat', 'a'), node('n1', 'north')],
      problem: /pool north: host north-nat/,
      left: ['north-nat'],
    },
    {
      name: 'a name that a shell would read',
      nodes: [node('a; reboot', 'north'), node('n1', 'north')],
      problem: /pool north: host a; reboot/,
      left: ['n1'],
    },
    {
      name: 'a name too long for a namespace',
      nodes: [node('n'.repeat(220), 'north'), node('n1', 'north')],
      problem: /pool north: host nnn/,
      left: ['n1'],
    },
  ]
  for (const { name, nodes, problem, left } of rows) {
    const topology = plan({ nodes })
    t.strictSame(
      topology.nodes.map((each) => each.name),
      left,
      name,
    )
    t.match(topology.problems.join('\n'), problem, `${name}: said`)
  }
  t.throws(
    () => generatedPools(['a', 'a1'], 11),
    /two hosts would be called a11/,
    'and refused where we make the names',
  )
})

t.test('many pools: every link, address and namespace is there once', async (t) => {
  const nodes = Array.from({ length: SITES_MAX + 5 }, (_, index) =>
    node(`p${index}n`, `p${index}`, [`10.${index}.0.0/24`]),
  )
  const topology = plan(
    { nodes },
    { nat: new Map(nodes.map((_, index) => [`p${index}`, NAT_TYPES[index % NAT_TYPES.length]!])) },
  )
  t.equal(topology.pools.length, 1 + SITES_MAX)
  t.equal(topology.problems.length, 5, 'those without room are named')
  const lines = machineBatch(topology).trim().split('\n')
  t.equal(new Set(lines).size, lines.length)
  t.equal(new Set(topology.pools.flatMap(({ wan }) => wan)).size, SITES_MAX)
})
