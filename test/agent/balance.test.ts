// The chooser: a row per rule of what may answer where, seen from node h1 of pool hangzhou in zone z1.

import t from 'tap'
import { balanceOf, createBalancer, type BalanceInput, type Frontend } from '../../agent/balance.ts'
import { TARGETS_MAX } from '../../agent/choice.ts'
import type { ClusterObjects } from '../../agent/cluster.ts'
import { hereOf } from '../../agent/topology.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import { clusterWith, endpoint, node, service, slice, type Endpoint } from './shop.ts'

const nodes = [
  node('h1', 'hangzhou', 'z1', ['192.168.1.1', 'fd00:1::1']),
  node('h2', 'hangzhou', 'z1'),
  node('h3', 'hangzhou', 'z2'),
  node('s1', 'shanghai', 'z3'),
  node('lone', undefined, 'z1'),
]
type Options = Omit<Partial<BalanceInput>, 'cluster' | 'here'> & { readonly from?: string }
function balance(objects: Partial<ClusterObjects>, { from = 'h1', ...options }: Options = {}) {
  const cluster = clusterWith({ nodes, ...objects })
  const { services, ...rest } = balanceOf({ cluster, here: hereOf(cluster, from), ...options })
  return {
    frontends: services.flatMap(({ frontends }) => frontends),
    clusterProblems: cluster.problems,
    services,
    ...rest,
  }
}
/** `address:port` of its targets' last numbers, or what happens without any; what insiders have after a slash. */
function brief({ targets, insideTargets, whenEmpty }: Frontend): string {
  const text = (list: typeof targets, empty: string) =>
    list.map(({ address, weight }) => `${address.split(/[.:]/).at(-1)}${weight > 1 ? `*${weight}` : ''}`).join(' ') ||
    empty
  return `${text(targets, whenEmpty)}${insideTargets === undefined ? '' : ` / ${text(insideTargets, 'reject')}`}`
}
const summary = (frontends: readonly Frontend[]): Record<string, string> =>
  Object.fromEntries(
    frontends.map((frontend) => [
      `${frontend.kind} ${frontend.address ?? '*'} ${frontend.protocol}/${frontend.port}`,
      brief(frontend),
    ]),
  )
const hints = (zones: readonly string[], nodeNames: readonly string[] = []) => ({
  hints: {
    ...(zones.length > 0 && { forZones: zones.map((name) => ({ name })) }),
    ...(nodeNames.length > 0 && { forNodes: nodeNames.map((name) => ({ name })) }),
  },
})
const annotated = (key: string, value: string): Partial<Service> => ({
  metadata: { namespace: 'shop', name: 'web', annotations: { [key]: value } },
})
const ours = (value: string) => annotated('fulmar.dev/topology', value)
const yurt = (value: string) => annotated('openyurt.io/topologyKeys', value)

t.test('which endpoints a ClusterIP has', async (t) => {
  type Row = {
    readonly name: string
    readonly spec?: Service['spec']
    readonly rest?: Partial<Service>
    readonly endpoints: readonly Endpoint[]
    readonly from?: string
    readonly health?: (address: string) => string | undefined
    readonly expected: string
  }
  const dead = (...last: readonly number[]) => ({
    health: (address: string) => (last.includes(Number(address.split('.').at(-1))) ? 'does not answer' : undefined),
  })
  const spread = [endpoint(1, 'h1'), endpoint(2, 'h2'), endpoint(3, 'h3'), endpoint(4, 's1'), endpoint(5, undefined)]
  const rows: readonly Row[] = [
    { name: 'all that are ready', endpoints: spread, expected: '1 2 3 4 5' },
    { name: 'none', endpoints: [], expected: 'reject' },
    { name: 'none that is ready', endpoints: [endpoint(1, 'h1', 'starting')], expected: 'reject' },
    {
      name: 'what drains, where nothing is ready',
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2', 'gone'), endpoint(3, 'h3', 'starting')],
      expected: '1',
    },
    {
      name: 'not what drains, where one is ready',
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2')],
      expected: '2',
    },
    // internalTrafficPolicy
    { name: 'iTP Local', spec: { internalTrafficPolicy: 'Local' }, endpoints: spread, expected: '1' },
    {
      name: 'iTP Local, elsewhere only: dropped',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(2, 'h2')],
      expected: 'drop',
    },
    {
      name: 'iTP Local, nowhere: refused',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [],
      expected: 'reject',
    },
    {
      name: 'iTP Local falls back to what drains here, ready or not elsewhere',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2')],
      expected: '1',
    },
    {
      name: 'iTP Local is not narrowed by hints',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z2'])), endpoint(2, 'h2', 'ready', hints(['z1']))],
      expected: '1',
    },
    // openyurt.io/topologyKeys
    { name: 'topologyKeys hostname', rest: yurt('kubernetes.io/hostname'), endpoints: spread, expected: '1' },
    { name: 'topologyKeys nodepool', rest: yurt('openyurt.io/nodepool'), endpoints: spread, expected: '1 2 3' },
    { name: 'topologyKeys zone is the pool', rest: yurt('kubernetes.io/zone'), endpoints: spread, expected: '1 2 3' },
    {
      name: 'topologyKeys has no fallback',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [endpoint(4, 's1')],
      expected: 'reject',
    },
    {
      name: 'topologyKeys from a node in no pool',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [...spread, endpoint(6, 'lone')],
      from: 'lone',
      expected: '6',
    },
    {
      name: 'topologyKeys come before the fallback to what drains',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '2',
    },
    // hints
    {
      name: 'hints for the zone',
      endpoints: [
        endpoint(1, 'h1', 'ready', hints(['z1'])),
        endpoint(3, 'h3', 'ready', hints(['z2'])),
        endpoint(4, 's1', 'ready', hints(['z1', 'z3'])),
      ],
      expected: '1 4',
    },
    {
      name: 'hints for the zone, one without',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(3, 'h3')],
      expected: '1 3',
    },
    {
      name: 'hints for other zones only',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z3'])), endpoint(3, 'h3', 'ready', hints(['z2']))],
      expected: '1 3',
    },
    {
      name: 'hints where the zone of this node is not known',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(3, 'h3', 'ready', hints(['z2']))],
      from: 'unknown',
      expected: '1 3',
    },
    {
      name: 'hints of what is not ready do not count',
      endpoints: [
        endpoint(1, 'h1', 'ready', hints(['z1'])),
        endpoint(2, 'h2', 'starting'),
        endpoint(3, 'h3', 'ready', hints(['z2'])),
      ],
      expected: '1',
    },
    {
      name: 'hints for the node come before those for the zone',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'], ['h1'])), endpoint(2, 'h2', 'ready', hints(['z1'], ['h2']))],
      expected: '1',
    },
    {
      name: 'hints for other nodes: those for the zone',
      endpoints: [endpoint(2, 'h2', 'ready', hints(['z1'], ['h2'])), endpoint(4, 's1', 'ready', hints(['z3'], ['s1']))],
      expected: '2',
    },
    {
      name: 'hints do not narrow what drains',
      endpoints: [endpoint(1, 'h1', 'draining', hints(['z1'])), endpoint(4, 's1', 'draining', hints(['z3']))],
      expected: '1 4',
    },
    // fulmar.dev/topology
    { name: 'ours: the node', rest: ours('node, pool: prefer'), endpoints: spread, expected: '1' },
    { name: 'ours: the next level', rest: ours('node, pool: prefer'), endpoints: spread.slice(1), expected: '2 3' },
    { name: 'ours, prefer: any', rest: ours('node, pool: prefer'), endpoints: spread.slice(3), expected: '4 5' },
    { name: 'ours, strict: none', rest: ours('node, pool: strict'), endpoints: spread.slice(3), expected: 'reject' },
    { name: 'ours: zones of nodes', rest: ours('zone: strict'), endpoints: spread, expected: '1 2' },
    {
      name: 'ours: zones of endpoints',
      rest: ours('zone: strict'),
      endpoints: [endpoint(5, undefined, 'ready', { zone: 'z1' })],
      expected: '5',
    },
    {
      name: 'ours comes before hints',
      rest: ours('pool: prefer'),
      endpoints: [endpoint(2, 'h2', 'ready', hints(['z3'])), endpoint(4, 's1', 'ready', hints(['z1']))],
      expected: '2',
    },
    {
      name: 'ours, strict: what drains within',
      rest: ours('pool: strict'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '2',
    },
    {
      name: 'ours, prefer: what is ready first',
      rest: ours('pool: prefer'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '4',
    },
    { name: 'ours, misspelt: ignored', rest: ours('pool: strickt'), endpoints: spread, expected: '1 2 3 4 5' },
    // health
    { name: 'what looks dead is left out', endpoints: spread, ...dead(2, 4), expected: '1 3 5' },
    { name: 'the last ones stay', endpoints: spread, ...dead(1, 2, 3, 4, 5), expected: '1 2 3 4 5' },
    {
      name: 'hints give way to what is alive',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(4, 's1', 'ready', hints(['z3']))],
      ...dead(1),
      expected: '4',
    },
    {
      name: 'so does ours, prefer',
      rest: ours('node, pool: prefer'),
      endpoints: spread,
      ...dead(1, 2, 3),
      expected: '4 5',
    },
    {
      name: 'ours, strict, does not',
      rest: ours('node, pool: strict'),
      endpoints: spread,
      ...dead(1, 2, 3),
      expected: '1',
    },
    {
      name: 'ours, strict, within its levels',
      rest: ours('node, pool: strict'),
      endpoints: spread,
      ...dead(1, 2),
      expected: '3',
    },
    {
      name: 'nor does the hard filter',
      rest: yurt('kubernetes.io/hostname'),
      endpoints: spread,
      ...dead(1),
      expected: '1',
    },
    { name: 'nor iTP Local', spec: { internalTrafficPolicy: 'Local' }, endpoints: spread, ...dead(1), expected: '1' },
  ]
  for (const { name, spec, rest, endpoints, from, health, expected } of rows) {
    const { frontends } = balance(
      { services: [service(spec, rest)], slices: [slice({ endpoints: [...endpoints] })] },
      { ...(from !== undefined && { from }), health },
    )
    t.strictSame(frontends.map(brief), [expected], name)
  }
})

t.test('what a service has besides its ClusterIP', async (t) => {
  const external: Service['spec'] = {
    type: 'LoadBalancer',
    externalIPs: ['198.51.100.7'],
    ports: [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 30080 }],
  }
  const status: Partial<Service> = {
    status: {
      loadBalancer: { ingress: [{ ip: '203.0.113.1' }, { ip: '203.0.113.2', ipMode: 'Proxy' }, { hostname: 'lb' }] },
    },
  }
  const listening = (pools: string) => ({ ...annotated('nodeport.openyurt.io/listen', pools), ...status })
  const here = [endpoint(1, 'h1'), endpoint(4, 's1')]
  const away = [endpoint(4, 's1')]
  const all = (brief: string, inside = brief) => ({
    'cluster-ip 10.96.0.1 TCP/80': inside,
    'load-balancer 203.0.113.1 TCP/80': brief,
    'external-ip 198.51.100.7 TCP/80': brief,
    'node-port * TCP/30080': brief,
  })
  const { 'node-port * TCP/30080': _, ...withoutNodePort } = all('1 4')
  const local: Service['spec'] = { ...external, externalTrafficPolicy: 'Local' }
  const rows: readonly {
    readonly name: string
    readonly spec: Service['spec']
    readonly rest?: Partial<Service>
    readonly endpoints: readonly Endpoint[]
    readonly from?: string
    readonly expected: Record<string, string>
  }[] = [
    {
      name: 'NodePort, externalIP and ingress, but not of ipMode Proxy',
      spec: external,
      rest: status,
      endpoints: here,
      expected: all('1 4'),
    },
    { name: 'none', spec: external, rest: status, endpoints: [], expected: all('reject') },
    {
      name: 'eTP Local: those on this node; all for insiders',
      spec: local,
      rest: status,
      endpoints: here,
      expected: all('1 / 1 4', '1 4'),
    },
    {
      name: 'eTP Local, none here: dropped',
      spec: local,
      rest: status,
      endpoints: away,
      expected: all('drop / 4', '4'),
    },
    {
      name: 'eTP Local, none anywhere: refused',
      spec: local,
      rest: status,
      endpoints: [],
      expected: all('reject / reject', 'reject'),
    },
    {
      name: 'eTP Local: what drains here, decided apart from the cluster',
      spec: local,
      rest: status,
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(4, 's1')],
      expected: all('1 / 4', '4'),
    },
    {
      name: 'iTP Local and eTP Cluster',
      spec: { ...external, internalTrafficPolicy: 'Local' },
      rest: status,
      endpoints: away,
      expected: all('4', 'drop'),
    },
    {
      name: 'allocateLoadBalancerNodePorts: false',
      spec: { ...external, allocateLoadBalancerNodePorts: false, ports: [{ name: 'http', port: 80, protocol: 'TCP' }] },
      rest: status,
      endpoints: here,
      expected: withoutNodePort,
    },
    {
      name: 'listen: this pool',
      spec: external,
      rest: listening('shanghai,hangzhou'),
      endpoints: here,
      expected: all('1 4'),
    },
    {
      name: 'listen: other pools',
      spec: external,
      rest: listening('shanghai'),
      endpoints: here,
      expected: withoutNodePort,
    },
    {
      name: 'listen: not this pool',
      spec: external,
      rest: listening('-hangzhou,*'),
      endpoints: here,
      expected: withoutNodePort,
    },
    {
      name: 'listen: the first word counts',
      spec: external,
      rest: listening('hangzhou,-hangzhou'),
      endpoints: here,
      expected: all('1 4'),
    },
    { name: 'listen: any', spec: external, rest: listening('-shanghai, *'), endpoints: here, expected: all('1 4') },
    {
      name: 'listen: a node in no pool',
      spec: external,
      rest: listening('shanghai'),
      endpoints: here,
      from: 'lone',
      expected: all('1 4'),
    },
    {
      name: 'discard',
      spec: external,
      rest: { ...annotated('svc.openyurt.io/discard', 'true'), ...status },
      endpoints: here,
      expected: {},
    },
    {
      name: 'discard means load balancers only',
      spec: { ...external, type: 'NodePort', externalIPs: [] },
      rest: annotated('svc.openyurt.io/discard', 'true'),
      endpoints: here,
      expected: { 'cluster-ip 10.96.0.1 TCP/80': '1 4', 'node-port * TCP/30080': '1 4' },
    },
  ]
  for (const { name, spec, rest, endpoints, from, expected } of rows) {
    const { frontends } = balance(
      { services: [service(spec, rest)], slices: [slice({ endpoints: [...endpoints] })] },
      from === undefined ? {} : { from },
    )
    t.strictSame(summary(frontends), expected, name)
    for (const { kind, keepsSource } of frontends)
      t.equal(
        keepsSource,
        kind !== 'cluster-ip' && spec?.externalTrafficPolicy === 'Local',
        `${name}: source of ${kind}`,
      )
  }
})

t.test('a change of type is a new service', async (t) => {
  const balancer = createBalancer()
  const types: readonly (readonly [Service['spec'], Record<string, string>])[] = [
    [{ type: 'ExternalName', externalName: 'example.com' }, {}],
    [{ type: 'ClusterIP' }, { 'cluster-ip 10.96.0.1 TCP/80': '1' }],
    [{ type: 'ExternalName', externalName: 'example.com' }, {}],
    [
      { type: 'NodePort', ports: [{ name: 'http', port: 80, nodePort: 30080 }] },
      { 'cluster-ip 10.96.0.1 TCP/80': '1', 'node-port * TCP/30080': '1' },
    ],
    [{ clusterIP: 'None' }, {}],
  ]
  for (const [spec, expected] of types) {
    const cluster = clusterWith({ services: [service(spec)], slices: [slice({ endpoints: [endpoint(1, 'h1')] })] })
    const { services } = balancer({ cluster, here: hereOf(cluster, 'h1') })
    t.strictSame(summary(services.flatMap(({ frontends }) => frontends)), expected, JSON.stringify(spec))
  }
})

t.test('which services are served', async (t) => {
  const labels: readonly (readonly [labels: Record<string, string>, all: boolean, labelled: boolean])[] = [
    [{}, true, false],
    [{ 'service.kubernetes.io/service-proxy-name': 'other' }, false, false],
    [{ 'service.kubernetes.io/service-proxy-name': 'fulmar' }, true, true],
    [{ 'service.kubernetes.io/headless': '' }, false, false],
    [{ 'service.edgemesh.kubeedge.io/service-proxy-name': '' }, false, true],
    [{ 'service.edgemesh.kubeedge.io/service-proxy-name': '', 'service.kubernetes.io/headless': '' }, false, false],
  ]
  for (const [each, all, labelled] of labels)
    for (const [selection, expected] of [
      ['all', all],
      ['labelled', labelled],
    ] as const) {
      const services = [service({}, { metadata: { namespace: 'shop', name: 'web', labels: each } })]
      t.equal(
        balance({ services }, { selection }).frontends.length > 0,
        expected,
        `${selection} ${JSON.stringify(each)}`,
      )
    }
})

t.test('source ranges', async (t) => {
  const rows: readonly (readonly [ranges: readonly string[], v4: readonly string[] | undefined])[] = [
    [[], undefined],
    [
      ['203.0.113.0/24 ', '10.1.2.3/8'],
      ['203.0.113.0/24', '10.0.0.0/8'],
    ],
    [['192.168.1.0/24'], ['192.168.1.0/24', '198.51.100.9/32']],
    [['0.0.0.0/0'], ['0.0.0.0/0']],
    [['fd00::/8'], []],
    [['10.0.0.0'], []],
  ]
  for (const [ranges, expected] of rows) {
    const services = [
      service(
        { type: 'LoadBalancer', loadBalancerSourceRanges: [...ranges] },
        { status: { loadBalancer: { ingress: [{ ip: '198.51.100.9' }] } } },
      ),
    ]
    const { frontends, clusterProblems } = balance({ services })
    t.strictSame(frontends.find(({ kind }) => kind === 'load-balancer')?.sourceRanges, expected, ranges.join())
    t.equal(clusterProblems.length, ranges.includes('10.0.0.0') ? 1 : 0)
    t.equal(frontends[0]!.sourceRanges, undefined, 'only for the load balancer')
  }
})

t.test('affinity', async (t) => {
  const rows: readonly (readonly [Service['spec'], number | undefined])[] = [
    [{}, undefined],
    [{ sessionAffinity: 'None' }, undefined],
    [{ sessionAffinity: 'ClientIP' }, 10_800],
    [{ sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 7 } } }, 7],
    [{ sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 1e9 } } }, 86_400],
  ]
  for (const [spec, expected] of rows)
    t.equal(balance({ services: [service(spec)] }).frontends[0]!.affinitySeconds, expected, JSON.stringify(spec))
})

t.test('dual stack: families are apart', async (t) => {
  const { frontends } = balance({
    services: [
      service({
        clusterIPs: ['10.96.0.1', 'fd00:96::1'],
        ports: [{ name: 'http', port: 80, nodePort: 30080 }],
        type: 'NodePort',
        externalIPs: ['2001:db8::1'],
      }),
    ],
    slices: [
      slice({ endpoints: [endpoint(1, 'h1', 'starting'), endpoint(2, 'h1', 'draining')] }),
      slice({ name: 'v6', addressType: 'IPv6', endpoints: [{ addresses: ['fd00::9'], nodeName: 'h1' }] }),
      slice({ name: 'names', addressType: 'FQDN', endpoints: [{ addresses: ['example.com'] }] }),
    ],
  })
  t.strictSame(
    frontends.map((frontend) => `${frontend.family} ${frontend.kind} ${frontend.address} ${brief(frontend)}`),
    [
      '4 cluster-ip 10.96.0.1 2',
      '4 node-port undefined 2',
      '6 cluster-ip fd00:96::1 9',
      '6 external-ip 2001:db8::1 9',
      '6 node-port undefined 9',
    ],
  )
})

t.test('weights', async (t) => {
  const endpoints = [endpoint(1, 'h1'), endpoint(2, 'h2'), endpoint(3, 's1'), endpoint(4, 'far')]
  const paths = (name: string) => (name === 's1' ? 'direct' : name === 'far' ? 'relayed' : undefined)
  const rows: readonly (readonly [name: string, readonly Endpoint[], Options['paths'], expected: string])[] = [
    ['nothing is known', endpoints, undefined, '1 2 3 4'],
    ['all is known', endpoints, paths, '1*8 2*4 3*2 4'],
    ['in lowest terms', endpoints.slice(0, 2), paths, '1*2 2'],
    ['one path is not known', [...endpoints, endpoint(5, 'lost')], paths, '1 2 3 4 5'],
    ['one has no node', [...endpoints, endpoint(5, undefined)], paths, '1 2 3 4 5'],
  ]
  for (const [name, list, paths, expected] of rows)
    t.equal(brief(balance({ slices: [slice({ endpoints: [...list] })] }, { paths }).frontends[0]!), expected, name)
})

t.test('health checks of load balancers', async (t) => {
  const spec: Service['spec'] = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: 31000 }
  const rows: readonly (readonly [name: string, Service['spec'], readonly Endpoint[], expected: number | undefined])[] =
    [
      ['two here', spec, [endpoint(1, 'h1'), endpoint(2, 'h1'), endpoint(3, 'h2')], 2],
      ['what drains is none', spec, [endpoint(1, 'h1', 'draining')], 0],
      ['eTP Cluster has none', { ...spec, externalTrafficPolicy: 'Cluster' }, [endpoint(1, 'h1')], undefined],
      ['another type', { ...spec, type: 'NodePort' }, [endpoint(1, 'h1')], undefined],
    ]
  for (const [name, spec, endpoints, expected] of rows) {
    const { healthChecks } = balance({ services: [service(spec)], slices: [slice({ endpoints: [...endpoints] })] })
    t.strictSame(
      healthChecks,
      expected === undefined ? [] : [{ namespace: 'shop', name: 'web', port: 31000, localEndpoints: expected }],
      name,
    )
  }
})

t.test('what looks dead is told, with what became of it', async (t) => {
  const { suspects } = balance(
    { slices: [slice({ endpoints: [endpoint(1, 'h1'), endpoint(2, 'h2'), endpoint(3, 'h2', 'starting')] })] },
    { health: (_address, _port, name) => (name === 'h2' ? 'node h2 is silent' : undefined) },
  )
  t.strictSame(suspects, [
    {
      service: 'shop/web',
      portName: 'http',
      address: '10.244.0.2',
      port: 8080,
      node: 'h2',
      reason: 'node h2 is silent',
      used: false,
    },
  ])
  const last = balance({ slices: [slice({ endpoints: [endpoint(1, 'h1')] })] }, { health: () => 'refused' })
  t.match(last.suspects, [{ address: '10.244.0.1', used: true }])
})

t.test('ten thousand endpoints: a part on each node, told', async (t) => {
  const endpoints = Array.from({ length: 10_000 }, (_, i) => ({
    addresses: [`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`],
  }))
  const slices = Array.from({ length: 100 }, (_, i) =>
    slice({ name: `s${i}`, endpoints: endpoints.slice(i * 100, (i + 1) * 100) }),
  )
  const addresses = (from: string) => {
    const { frontends, problems } = balance({ slices }, { from })
    t.match(problems, [/service shop\/web: 10000 endpoints serve port 80: 1000 of them/])
    return frontends[0]!.targets.map(({ address }) => address)
  }
  const [here, there] = [addresses('h1'), addresses('h2')]
  t.equal(here.length, TARGETS_MAX)
  t.ok(here.filter((address) => there.includes(address)).length < 300, 'another part on each node')
})

t.test('two services on one address', async (t) => {
  const port = [{ name: 'http', port: 80, protocol: 'TCP', nodePort: 30080 }]
  const rows: readonly {
    readonly name: string
    readonly a: Service['spec']
    readonly b: Service['spec']
    readonly frontends: readonly string[]
    readonly problems: readonly RegExp[]
  }[] = [
    {
      name: 'one ClusterIP: the first gets it, with all ports',
      a: {},
      b: { ports: [{ name: 'http', port: 81 }] },
      frontends: ['shop/a cluster-ip 10.96.0.1 80'],
      problems: [/ClusterIP 10.96.0.1 is claimed by services shop\/a and shop\/b: the first gets it/],
    },
    {
      name: 'one NodePort',
      a: { ports: port },
      b: { clusterIP: '10.96.0.2', ports: port },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a node-port undefined 30080',
        'shop/b cluster-ip 10.96.0.2 80',
      ],
      problems: [/TCP NodePort 30080 is claimed by services shop\/a and shop\/b/],
    },
    {
      name: 'one external address and port',
      a: { externalIPs: ['192.0.2.1'] },
      b: { clusterIP: '10.96.0.2', externalIPs: ['192.0.2.1'] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a external-ip 192.0.2.1 80',
        'shop/b cluster-ip 10.96.0.2 80',
      ],
      problems: [/TCP port 80 of 192.0.2.1 is claimed by services shop\/a and shop\/b/],
    },
    {
      name: 'one external address, two ports',
      a: { externalIPs: ['192.0.2.1'] },
      b: { clusterIP: '10.96.0.2', externalIPs: ['192.0.2.1'], ports: [{ name: 'http', port: 81 }] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a external-ip 192.0.2.1 80',
        'shop/b cluster-ip 10.96.0.2 81',
        'shop/b external-ip 192.0.2.1 81',
      ],
      problems: [],
    },
    {
      name: 'an external address that is a ClusterIP',
      a: { externalIPs: ['10.96.0.2'], ports: [{ name: 'http', port: 443 }] },
      b: { clusterIP: '10.96.0.2' },
      frontends: ['shop/a cluster-ip 10.96.0.1 443', 'shop/b cluster-ip 10.96.0.2 80'],
      problems: [/service shop\/a: external address 10.96.0.2 is a ClusterIP of service shop\/b/],
    },
    {
      name: 'one NodePort, two protocols',
      a: { ports: port },
      b: { clusterIP: '10.96.0.2', ports: [{ ...port[0]!, protocol: 'UDP' }] },
      frontends: [
        'shop/a cluster-ip 10.96.0.1 80',
        'shop/a node-port undefined 30080',
        'shop/b cluster-ip 10.96.0.2 80',
        'shop/b node-port undefined 30080',
      ],
      problems: [],
    },
  ]
  for (const { name, a, b, frontends, problems } of rows) {
    const [first, second] = [service(a, { name: 'a' }), service(b, { name: 'b' })]
    const text = (list: readonly Frontend[]) =>
      list.map((frontend) => `${frontend.service} ${frontend.kind} ${frontend.address} ${frontend.port}`)
    const whole = balance({ services: [second, first] })
    t.strictSame(text(whole.frontends), frontends, name)
    t.equal(whole.problems.length, problems.length, name)
    t.match(whole.problems, problems, name)

    // In any order of coming and going the outcome is that of all at once.
    const balancer = createBalancer()
    for (const services of [[second], [second, first], [first], [first, second], [second], [first, second]]) {
      const cluster = clusterWith({ nodes, services })
      const here = hereOf(cluster, 'h1')
      const { services: stepwise, problems } = balancer({ cluster, here })
      const { services: anew, problems: problemsAnew } = balanceOf({ cluster, here })
      t.strictSame({ stepwise, problems }, { stepwise: anew, problems: problemsAnew }, `${name}, step by step`)
    }
  }
})

t.test('what did not change is the very same', async (t) => {
  const services = [service(), service({ clusterIP: '10.96.0.2' }, { name: 'other' })]
  const slices = [slice({ endpoints: [endpoint(1, 'h1')] }), slice({ of: 'other', endpoints: [endpoint(2, 's1')] })]
  const cluster = clusterWith({ nodes, services, slices })
  const here = hereOf(cluster, 'h1')
  const balancer = createBalancer()
  const before = balancer({ cluster, here }).services
  const moved = clusterWith({ nodes, services, slices: [slice({ endpoints: [endpoint(3, 'h1')] }), slices[1]!] })
  const after = balancer({ cluster: moved, here }).services
  const [other, web] = [
    after.findIndex(({ service }) => service === 'shop/other'),
    after.findIndex(({ service }) => service === 'shop/web'),
  ]
  t.equal(after[other], before[other])
  t.not(after[web], before[web])

  const quiet = balancer({ cluster: moved, here, health: () => undefined }).services
  t.equal(quiet[web], after[web], 'nothing to say of its endpoints')
  const dead = balancer({
    cluster: moved,
    here,
    health: (address) => (address === '10.244.0.3' ? 'dead' : undefined),
  }).services
  t.equal(dead[other], before[other], 'something to say of others')
  t.not(dead[web], after[web])
})
