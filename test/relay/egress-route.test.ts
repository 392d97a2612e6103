import t from 'tap'
import { covering } from '../../lib/cidr.ts'
import { createEgressTable, isForbidden, routedNode, type EgressRoute } from '../../relay/egress-route.ts'

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
  node('thief', ['10.96.0.1', '127.0.0.1', 'api.example', '10.244.7.4']),
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
    // What a node says of itself counts for kubelets: other calls to what it names are not its own.
    ['10.96.0.1', to('thief')],
    ['10.96.0.1:443', { kind: 'direct', host: '10.96.0.1', claimedBy: 'thief' }],
    ['api.example:443', { kind: 'direct', host: 'api.example', claimedBy: 'thief' }],
    ['127.0.0.1:6443', { kind: 'refused', reason: '127.0.0.1 is never dialled from here' }],
    ['192.168.1.8:443', { kind: 'direct', host: '192.168.1.8' }],
    ['192.168.1.7:10350', to('edge-7')],
    ['edge-7:443', to('edge-7')],
    // Nor is the address of a pod, whoever names it.
    ['10.244.7.4', { kind: 'direct', host: '10.244.7.4', podOf: 'edge-7' }],
    ['169.254.169.254', { kind: 'refused', reason: '169.254.169.254 is never dialled from here' }],
    ['::1', { kind: 'refused', reason: '::1 is never dialled from here' }],
    ['0.0.0.0', { kind: 'refused', reason: '0.0.0.0 is never dialled from here' }],
  ]
  for (const [asked, expected] of rows) {
    const [, host = asked, port = '10250'] = /^([^:]+):(\d+)$/.exec(asked) ?? []
    t.same(route(host, Number(port)), expected, asked)
  }
})

t.test('what is never dialled, in every way to write it', async (t) => {
  const rows: readonly [address: string, forbidden: boolean][] = [
    ['169.254.169.254', true],
    ['::ffff:169.254.169.254', true],
    ['::ffff:a9fe:a9fe', true],
    ['64:ff9b::169.254.169.254', true],
    ['127.0.0.1', true],
    ['127.8.8.8', true],
    ['::ffff:127.0.0.1', true],
    ['64:ff9b::7f00:1', true],
    ['::1', true],
    ['::', true],
    ['::ffff:0.0.0.0', true],
    ['fe80::1', true],
    ['::ffff:224.0.0.1', true],
    ['100.100.100.200', true],
    ['::ffff:100.100.100.200', true],
    ['fd00:ec2::254', true],
    ['2002:a9fe:a9fe::1', true],
    ['10.96.0.1', false],
    ['::ffff:10.96.0.1', false],
    ['64:ff9b::5db8:d822', false],
    ['fd12::1', false],
  ]
  for (const [address, forbidden] of rows) t.equal(isForbidden(address), forbidden, address)
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
