import t from 'tap'
import { balanceOf, createBalancer } from '../../agent/balance.ts'
import { clusterOf, createClusterReader, type Cluster, type ClusterObjects } from '../../agent/cluster.ts'
import { hereOf, reachable } from '../../agent/topology.ts'
import type { EndpointSlice, Node, Service } from '../../lib/k8s/objects.ts'

type SlicePart = Partial<EndpointSlice> & { readonly of?: string; readonly name?: string }
const slice = ({ of = 'web', name = 'slice', ...rest }: SlicePart): EndpointSlice => ({
  metadata: { namespace: 'shop', name, labels: { 'kubernetes.io/service-name': of } },
  addressType: 'IPv4',
  endpoints: [],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  ...rest,
})
const web = (spec: Service['spec'] = {}, metadata: Service['metadata'] = {}): Service => ({
  metadata: { namespace: 'shop', name: 'web', ...metadata },
  spec: { clusterIP: '10.96.0.1', ports: [{ name: 'http', port: 80, protocol: 'TCP' }], ...spec },
})
const node = (name: string, pool?: string): Node => ({
  metadata: { name, ...(pool === undefined ? {} : { labels: { 'apps.openyurt.io/nodepool': pool } }) },
})
const clusterWith = (objects: Partial<ClusterObjects>): Cluster =>
  clusterOf({ services: [web()], slices: [], nodes: [], nodePools: [], gateways: [], ...objects })
/** What answers at 10.96.0.1 on node `h1`: `protocol/port → targets, or what happens without any`. */
function served(cluster: Cluster): Record<string, string> {
  const services = [...balanceOf({ cluster, here: hereOf(cluster, 'h1') }).services]
  return Object.fromEntries(
    services.flatMap(({ frontends }) =>
      frontends.map(({ protocol, port, targets, whenEmpty }) => [
        `${protocol.toLowerCase()}/${port}`,
        targets.map(({ address, port }) => `${address}:${port}`).join(' ') || whenEmpty,
      ]),
    ),
  )
}

t.test('which endpoints serve a port', async (t) => {
  const rows: readonly { name: string; objects: Partial<ClusterObjects>; served: Record<string, string> }[] = [
    { name: 'no slice', objects: {}, served: { 'tcp/80': 'reject' } },
    {
      name: 'slices are merged, equal endpoints are one',
      objects: {
        slices: [
          slice({ endpoints: [{ addresses: ['10.244.1.5'] }, { addresses: ['10.244.1.4'] }] }),
          slice({ name: 'second', endpoints: [{ addresses: ['10.244.1.5'] }] }),
        ],
      },
      served: { 'tcp/80': '10.244.1.4:8080 10.244.1.5:8080' },
    },
    {
      name: 'ports meet by name and protocol, whatever their numbers',
      objects: {
        services: [
          web({
            ports: [
              { name: 'dns', port: 53, protocol: 'UDP' },
              { name: 'dns-tcp', port: 53, protocol: 'TCP' },
            ],
          }),
        ],
        slices: [
          slice({
            endpoints: [{ addresses: ['10.244.1.4'] }],
            ports: [
              { name: 'dns', port: 1053, protocol: 'UDP' },
              { name: 'dns-tcp', port: 2053, protocol: 'TCP' },
              { name: 'dns', port: 9, protocol: 'TCP' },
            ],
          }),
          slice({
            name: 'second',
            endpoints: [{ addresses: ['10.244.1.9'] }],
            ports: [{ name: 'dns', port: 1054, protocol: 'UDP' }],
          }),
        ],
      },
      served: { 'udp/53': '10.244.1.4:1053 10.244.1.9:1054', 'tcp/53': '10.244.1.4:2053' },
    },
    {
      name: 'without names and protocols, as in a hand-written manifest',
      objects: {
        services: [web({ ports: [{ port: 80 }] })],
        slices: [slice({ endpoints: [{ addresses: ['10.244.1.4'] }], ports: [{ port: 8080 }] })],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    {
      name: 'a port without a number is no port',
      objects: {
        slices: [slice({ endpoints: [{ addresses: ['10.244.1.4'] }], ports: [{ name: 'http', protocol: 'TCP' }] })],
      },
      served: { 'tcp/80': 'reject' },
    },
    {
      name: 'not ready is left out, unknown is ready',
      objects: {
        slices: [
          slice({
            endpoints: [
              { addresses: ['10.244.1.4'], conditions: { ready: false } },
              { addresses: ['10.244.1.5'], conditions: {} },
            ],
          }),
        ],
      },
      served: { 'tcp/80': '10.244.1.5:8080' },
    },
    {
      name: 'what drains serves where nothing is ready',
      objects: {
        slices: [
          slice({
            endpoints: [
              { addresses: ['10.244.1.4'], conditions: { ready: false, serving: true, terminating: true } },
              { addresses: ['10.244.1.5'], conditions: { ready: false, serving: false, terminating: true } },
              { addresses: ['10.244.1.6'], conditions: { ready: false, serving: true, terminating: false } },
            ],
          }),
        ],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    {
      name: 'an endpoint that moves between slices is ready if either says so',
      objects: {
        slices: [
          slice({ endpoints: [{ addresses: ['10.244.1.4'], conditions: { ready: false } }] }),
          slice({ name: 'second', endpoints: [{ addresses: ['10.244.1.4'], conditions: { ready: true } }] }),
        ],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    {
      name: 'publishNotReadyAddresses',
      objects: {
        services: [web({ publishNotReadyAddresses: true })],
        slices: [slice({ endpoints: [{ addresses: ['10.244.1.4'], conditions: { ready: false } }] })],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    {
      name: 'only the first address; names and other families are none',
      objects: {
        slices: [
          slice({
            endpoints: [
              { addresses: ['10.244.1.4', '10.244.1.5'] },
              { addresses: ['fd00::1'] },
              { addresses: ['nowhere'] },
            ],
          }),
          slice({ name: 'second', addressType: 'FQDN', endpoints: [{ addresses: ['10.244.1.9'] }] }),
        ],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    { name: 'headless', objects: { services: [web({ clusterIP: 'None' })] }, served: {} },
    {
      name: 'ExternalName',
      objects: { services: [web({ type: 'ExternalName', externalName: 'example.com' })] },
      served: {},
    },
    {
      name: 'another proxy was asked for',
      objects: { services: [web({}, { labels: { 'service.kubernetes.io/service-proxy-name': 'other' } })] },
      served: {},
    },
    {
      name: 'the label headless',
      objects: { services: [web({}, { labels: { 'service.kubernetes.io/headless': '' } })] },
      served: {},
    },
    {
      name: 'internalTrafficPolicy Local',
      objects: {
        services: [web({ internalTrafficPolicy: 'Local' })],
        slices: [
          slice({
            endpoints: [
              { addresses: ['10.244.1.4'], nodeName: 'h1' },
              { addresses: ['10.244.2.4'], nodeName: 'h2' },
            ],
          }),
        ],
      },
      served: { 'tcp/80': '10.244.1.4:8080' },
    },
    {
      name: 'internalTrafficPolicy Local without a local endpoint is dropped, not refused',
      objects: {
        services: [web({ internalTrafficPolicy: 'Local' })],
        slices: [slice({ endpoints: [{ addresses: ['10.244.2.4'], nodeName: 'h2' }] })],
      },
      served: { 'tcp/80': 'drop' },
    },
  ]
  for (const row of rows) t.strictSame(served(clusterWith(row.objects)), row.served, row.name)
})

t.test('topology', async (t) => {
  const nodes = [node('h1', 'hangzhou'), node('h2', 'hangzhou'), node('s1', 'shanghai'), node('lone')]
  const endpoints = ['h1', 'h2', 's1', 'lone', undefined].map((nodeName, i) => ({
    addresses: [`10.244.0.${i}`],
    ...(nodeName === undefined ? {} : { nodeName }),
  }))
  const rows: readonly { keys: string | undefined; from: string; nodes: readonly (string | undefined)[] }[] = [
    { keys: undefined, from: 'h1', nodes: ['h1', 'h2', 's1', 'lone', undefined] },
    { keys: 'kubernetes.io/hostname', from: 'h1', nodes: ['h1'] },
    { keys: 'openyurt.io/nodepool', from: 'h1', nodes: ['h1', 'h2'] },
    { keys: 'kubernetes.io/zone', from: 's1', nodes: ['s1'] },
    { keys: 'openyurt.io/nodepool', from: 'lone', nodes: ['lone'] },
    { keys: 'openyurt.io/nodepool', from: 'unknown', nodes: [] },
    { keys: 'kubernetes.io/hostname,openyurt.io/nodepool', from: 'h1', nodes: ['h1', 'h2', 's1', 'lone', undefined] },
    { keys: '*', from: 'h1', nodes: ['h1', 'h2', 's1', 'lone', undefined] },
  ]
  for (const { keys, from, nodes: expected } of rows) {
    const cluster = clusterWith({
      nodes,
      services: [web({}, keys === undefined ? {} : { annotations: { 'openyurt.io/topologyKeys': keys } })],
      slices: [slice({ endpoints })],
    })
    t.strictSame(
      reachable([...cluster.services][0]!, hereOf(cluster, from)).map((endpoint) => endpoint.node),
      expected,
      `${keys} from ${from}`,
    )
  }
})

t.test('a node is in the pool of its label, else in the one that lists it', async (t) => {
  const { nodePools } = clusterWith({
    nodes: [node('h1', 'hangzhou'), node('h2'), node('h3')],
    nodePools: [{ metadata: { name: 'shanghai' }, status: { nodes: ['h1', 'h2'] } }],
  })
  t.strictSame(Object.fromEntries(nodePools), { h1: 'hangzhou', h2: 'shanghai' })
})

t.test('what is left out is named', async (t) => {
  const named = (name: string, spec: Service['spec'], annotations = {}): Service => ({
    ...web(spec),
    metadata: { namespace: 'shop', name, annotations },
  })
  const rows: readonly (readonly [what: string, objects: Partial<ClusterObjects>, problems: readonly RegExp[]])[] = [
    [
      'a ClusterIP that is none',
      { services: [named('typo', { clusterIP: '10.96.0.999' })] },
      [/service shop\/typo: "10.96.0.999" is no IP address: it is left out; correct spec.clusterIPs/],
    ],
    ['no ClusterIP', { services: [named('unset', { clusterIP: '' })] }, [/service shop\/unset has no ClusterIP/]],
    [
      'an external address that is none',
      { services: [named('web', { externalIPs: ['example.com', '192.0.2.1'] })] },
      [/service shop\/web: "example.com" is no IP address: it is left out; correct spec.externalIPs/],
    ],
    [
      'our annotation',
      { services: [named('web', {}, { 'fulmar.dev/topology': 'node' })] },
      [
        /service shop\/web: annotation fulmar.dev\/topology "node": does not say .* write for example "node, pool: prefer"/,
      ],
    ],
    [
      'bad addresses of a slice: the first',
      { slices: [slice({ endpoints: [{ addresses: ['x'] }, { addresses: ['y'] }, { addresses: ['10.244.1.4'] }] })] },
      [/endpointslice shop\/slice: "x" is no IPv4 address: it is left out/],
    ],
    [
      'a port of a slice without a number',
      { slices: [slice({ ports: [{ name: 'http' }] })] },
      [/endpointslice shop\/slice: a port without a number or with an unknown protocol is left out/],
    ],
    [
      'a port of a slice without a name',
      { slices: [slice({ endpoints: [{ addresses: ['10.244.1.4'] }], ports: [{ port: 8080 }] })] },
      [/service shop\/web: endpoint 10.244.1.4 has a port without a name/],
    ],
    ['nothing', { slices: [slice({ endpoints: [{ addresses: ['10.244.1.4'] }] })] }, []],
  ]
  for (const [what, objects, problems] of rows) {
    const found = clusterWith(objects).problems
    t.equal(found.length, problems.length, what)
    t.match(found, problems, what)
  }
})

t.test('the order of the input does not matter', async (t) => {
  const services = [web(), { ...web({ clusterIP: '10.96.0.2' }), metadata: { namespace: 'a', name: 'z' } }]
  const slices = [
    slice({ endpoints: [{ addresses: ['10.244.1.4'] }] }),
    slice({ name: 'second', endpoints: [{ addresses: ['10.244.1.3'] }] }),
  ]
  t.strictSame(
    clusterWith({ services, slices }),
    clusterWith({ services: services.toReversed(), slices: slices.toReversed() }),
  )
})

t.test('one state after another reads like each by itself', async (t) => {
  // A linear congruential generator: the same steps each time.
  let seed = 7
  const random = (below: number) => (seed = (seed * 1103515245 + 12345) % 2 ** 31) % below
  const byName = (a: EndpointSlice | Service, b: EndpointSlice | Service) =>
    a.metadata!.name! < b.metadata!.name! ? -1 : 1
  const named = (i: number): Service => ({
    ...web({ clusterIP: `10.96.0.${random(20)}` }),
    metadata: { namespace: 'shop', name: `web-${i}` },
  })
  const sliceOf = (i: number): EndpointSlice => ({
    ...slice({ of: `web-${random(12)}`, endpoints: [{ addresses: [`10.244.1.${random(200)}`], nodeName: 'h1' }] }),
    metadata: { namespace: 'shop', name: `slice-${i}`, labels: { 'kubernetes.io/service-name': `web-${random(12)}` } },
  })
  const here = hereOf({}, 'h1')
  for (const sorted of [true, false]) {
    const read = createClusterReader()
    const balancer = createBalancer()
    const services = new Map<number, Service>()
    const slices = new Map<number, EndpointSlice>()
    for (let step = 0; step < 300; step++) {
      for (let n = random(3); n >= 0; n--) {
        const i = random(12)
        if (random(3) === 0) services.delete(i)
        else services.set(i, named(i))
        const j = random(30)
        if (random(3) === 0) slices.delete(j)
        else slices.set(j, sliceOf(j))
      }
      const listed = { services: [...services.values()], slices: [...slices.values()], ...NO_NODES }
      const objects = sorted
        ? { ...listed, services: listed.services.sort(byName), slices: listed.slices.sort(byName) }
        : listed
      const cluster = read(objects)
      const anew = clusterOf(objects)
      if (JSON.stringify(cluster) !== JSON.stringify(anew)) return t.strictSame(cluster, anew, `step ${step}`)
      const [balance, balanceAnew] = [balancer({ cluster, here }), balanceOf({ cluster, here })]
      if (JSON.stringify(balance) !== JSON.stringify(balanceAnew))
        return t.strictSame(balance, balanceAnew, `balance at step ${step}`)
    }
    t.pass(sorted ? 'sorted' : 'in any order')
  }
})

const NO_NODES = { nodes: [], nodePools: [], gateways: [] }
