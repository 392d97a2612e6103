// Where a service is answered, and how: a row per field of the Service.

import t from 'tap'
import type { Service } from '../../lib/k8s/objects.ts'
import { annotated, balance, brief, summary } from './chooser.ts'
import { endpoint, service, slice, type Endpoint } from './shop.ts'

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
