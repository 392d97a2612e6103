import t from 'tap'
import { covering } from '../../lib/cidr.ts'
import { createEgressTable, routedNode, type EgressRoute } from '../../relay/egress-route.ts'

const node = (name: string, addresses: readonly string[], podCIDRs: readonly string[] = []) =>
  routedNode({
    metadata: { name },
    spec: { podCIDRs },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
  } as never)

const NODES = [
  node('edge-7', ['192.168.1.7', 'edge-7', 'fd00::7'], ['10.244.7.0/24']),
  node('edge-8', ['192.168.1.8'], ['10.244.8.0/24']),
  node('edge-9', ['192.168.1.8']),
  node('cloud-1', ['10.0.0.1', '::ffff:10.0.0.11'], ['10.244.1.0/24']),
  node('cloud-2', ['10.0.0.2']),
  node('thief', ['10.96.0.1', '127.0.0.1', 'api.example']),
]
const SESSIONS = ['edge-7', 'cloud-2', 'unlisted']
const route = createEgressTable(NODES, {
  hasSession: (name) => SESSIONS.includes(name),
  isKnown: (name) => [...SESSIONS, 'gone'].includes(name),
  isCloud: covering(['10.0.0.0/16']),
})

t.test('where kube-apiserver gets to', async (t) => {
  const to = (name: string): EgressRoute => ({ kind: 'node', node: name })
  const rows: readonly [host: string, expected: EgressRoute][] = [
    ['edge-7', to('edge-7')],
    ['EDGE-7', to('edge-7')],
    ['192.168.1.7', to('edge-7')],
    ['FD00:0::7', to('edge-7')],
    ['unlisted', to('unlisted')],
    // It was there once: no name of the cloud that could be asked for.
    ['gone', to('gone')],
    // Offline, and nowhere else: what has this address in the cloud is not that node.
    ['edge-8', to('edge-8')],
    ['192.168.1.8', { kind: 'refused', reason: '192.168.1.8 is claimed by edge-8 and edge-9' }],
    // Of the cloud, without a session and with one.
    ['cloud-1', { kind: 'direct', host: '10.0.0.1' }],
    ['10.0.0.11', { kind: 'direct', host: '10.0.0.11' }],
    ['10.0.0.2', to('cloud-2')],
    // Webhooks, aggregated APIs, pods.
    ['10.99.1.2', { kind: 'direct', host: '10.99.1.2' }],
    ['metrics.kube-system.svc', { kind: 'direct', host: 'metrics.kube-system.svc' }],
    ['10.244.7.3', { kind: 'direct', host: '10.244.7.3', podOf: 'edge-7' }],
    // What a node says of itself takes nobody else's traffic away, but what it names.
    ['10.96.0.1', to('thief')],
    ['169.254.169.254', { kind: 'refused', reason: '169.254.169.254 is never dialled from here' }],
    ['::1', { kind: 'refused', reason: '::1 is never dialled from here' }],
    ['0.0.0.0', { kind: 'refused', reason: '0.0.0.0 is never dialled from here' }],
  ]
  for (const [host, expected] of rows) t.same(route(host), expected, host)
})

t.test('Node objects of any shape', async (t) => {
  for (const object of [
    {},
    { status: null, spec: null },
    { status: { addresses: [null, { address: 5 }] }, spec: { podCIDRs: 'x' } },
  ])
    t.same(routedNode(object as never), { name: '', addresses: [], podCidrs: [] })
  t.same(routedNode({ spec: { podCIDR: '10.244.7.0/24' } } as never).podCidrs, ['10.244.7.0/24'])
})
