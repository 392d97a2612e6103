import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { answer, type DnsAnswer } from '../../agent/dns.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { hereOf } from '../../agent/topology.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'

const service = (name: string, spec: Service['spec'], annotations = {}): Service => ({
  metadata: { namespace: 'shop', name, annotations },
  spec: spec!,
})
const slice = (
  of: string,
  addressType: 'IPv4' | 'IPv6',
  endpoints: EndpointSlice['endpoints'],
  ports: { name: string; protocol: string; port: number }[],
): EndpointSlice => ({
  metadata: { namespace: 'shop', name: `${of}-${addressType}`, labels: { 'kubernetes.io/service-name': of } },
  addressType,
  endpoints,
  ports,
})
const amqp = [{ name: 'amqp', protocol: 'TCP', port: 5672 }]
const cluster = clusterOf({
  services: [
    service('web', {
      clusterIP: '10.96.0.5',
      clusterIPs: ['10.96.0.5', 'fd00:96::5'],
      ports: [
        { name: 'http', protocol: 'TCP', port: 80 },
        { protocol: 'TCP', port: 81 },
      ],
    }),
    service('v4only', { clusterIP: '10.96.0.6', ports: [] }),
    service('queue', { clusterIP: 'None', ports: amqp }),
    service('idle', { clusterIP: 'None', ports: amqp }),
    service('portless', { clusterIP: 'None' }),
    service('near', { clusterIP: 'None' }, { 'openyurt.io/topologyKeys': 'openyurt.io/nodepool' }),
    service('vendor', { type: 'ExternalName', externalName: 'api.example.com.' }),
    service('alias', { type: 'ExternalName', externalName: 'web.shop.svc.cluster.local' }),
    service('numbers', { type: 'ExternalName', externalName: '192.0.2.7' }),
    service('blanks', { type: 'ExternalName', externalName: 'no name' }),
    service('also', { clusterIP: 'None' }),
    service('snake', { type: 'ExternalName', externalName: 'snake.shop.svc.cluster.local' }),
  ],
  slices: [
    slice('web', 'IPv4', [{ addresses: ['10.244.1.9'] }], [{ name: 'http', protocol: 'TCP', port: 8080 }]),
    slice(
      'queue',
      'IPv4',
      [
        { addresses: ['10.244.1.4'], hostname: 'queue-0' },
        { addresses: ['10.244.1.5'] },
        { addresses: ['10.244.1.6'], conditions: { ready: false, serving: true, terminating: true } },
      ],
      amqp,
    ),
    slice(
      'queue',
      'IPv6',
      [{ addresses: ['fd00:244:1::4'], hostname: 'queue-0' }, { addresses: ['fd00:244:1::'] }],
      amqp,
    ),
    slice('idle', 'IPv4', [{ addresses: ['10.244.1.7'], conditions: { ready: false } }], amqp),
    slice('also', 'IPv4', [{ addresses: ['10.244.1.5'] }], []),
    slice('portless', 'IPv4', [{ addresses: ['10.244.1.8'] }], []),
    slice(
      'near',
      'IPv4',
      [
        { addresses: ['10.244.1.20'], nodeName: 'h1' },
        { addresses: ['10.244.9.20'], nodeName: 's1' },
      ],
      [],
    ),
  ],
  nodes: [
    { metadata: { name: 'h1', labels: { 'apps.openyurt.io/nodepool': 'hangzhou' } } },
    { metadata: { name: 's1', labels: { 'apps.openyurt.io/nodepool': 'shanghai' } } },
  ],
  nodePools: [],
  gateways: [],
})
const servers = ['169.254.20.53', 'fd66:756c:6d61::53']
const zone = zoneOf({ cluster, here: hereOf(cluster, 'h1'), domains: ['cluster.local'], servers })

/** `RCODE answer answer + additional`, sorted; an SOA in the authority section is `soa`. */
function brief(found: DnsAnswer): string {
  if (found.kind === 'forward') return 'forward'
  const text = ({ type, data }: { type: string; data: unknown }): string => {
    const { priority, weight, port, target } = (data ?? {}) as Record<string, unknown>
    return type === 'SOA' ? 'soa' : type === 'SRV' ? `SRV ${priority} ${weight} ${port} ${target}` : `${type} ${data}`
  }
  const answers = found.answers.map(text).sort()
  if (found.kind === 'alias') return ['alias', ...answers, `→ ${found.target}`].join(' ')
  const more = [...found.authorities, ...found.additionals].map(text).sort()
  return [found.rcode, ...answers, ...(more.length > 0 ? ['+', ...more] : [])].join(' ')
}

const rows: readonly (readonly [name: string, type: string, answer: string])[] = [
  ['web.shop.svc.cluster.local', 'A', 'NOERROR A 10.96.0.5'],
  ['web.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:96::5'],
  ['web.shop.svc.cluster.local', 'MX', 'NOERROR + soa'],
  ['web.shop.svc.cluster.local', 'UNKNOWN_65', 'NOERROR + soa'],
  ['v4only.shop.svc.cluster.local', 'AAAA', 'NOERROR + soa'],
  ['nobody.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['web.nowhere.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['web.shop.cluster.local', 'A', 'NXDOMAIN + soa'],
  // A search list makes such names of every outside name.
  ['example.com.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['example.com.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['queue.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.4 A 10.244.1.5'],
  ['queue.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1:: AAAA fd00:244:1::4'],
  ['idle.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['portless.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.8'],
  ['portless.shop.svc.cluster.local', 'AAAA', 'NOERROR + soa'],
  ['near.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.20'],
  ['queue-0.queue.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.4'],
  ['queue-0.queue.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1::4'],
  ['10-244-1-5.queue.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.5'],
  ['10-244-1-4.queue.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['fd00-244-1--0.queue.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1::'],
  ['10-244-1-9.web.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.9'],
  [
    '_http._tcp.web.shop.svc.cluster.local',
    'SRV',
    'NOERROR SRV 0 100 80 web.shop.svc.cluster.local + A 10.96.0.5 AAAA fd00:96::5',
  ],
  ['_http._tcp.web.shop.svc.cluster.local', 'A', 'NOERROR A 10.96.0.5'],
  ['_http._tcp.web.shop.svc.cluster.local', 'TXT', 'NOERROR + soa'],
  ['_http._udp.web.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  ['_tcp.web.shop.svc.cluster.local', 'A', 'NOERROR + soa'],
  ['_._tcp.web.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  [
    '_amqp._tcp.queue.shop.svc.cluster.local',
    'SRV',
    'NOERROR SRV 0 33 5672 10-244-1-5.queue.shop.svc.cluster.local SRV 0 33 5672 fd00-244-1--0.queue.shop.svc.cluster.local ' +
      'SRV 0 33 5672 queue-0.queue.shop.svc.cluster.local + A 10.244.1.4 A 10.244.1.5 AAAA fd00:244:1:: AAAA fd00:244:1::4',
  ],
  // All ports of a service by its own name, as peers of a StatefulSet look for each other.
  [
    'web.shop.svc.cluster.local',
    'SRV',
    'NOERROR SRV 0 50 80 web.shop.svc.cluster.local SRV 0 50 81 web.shop.svc.cluster.local + A 10.96.0.5 AAAA fd00:96::5',
  ],
  [
    'queue-0.queue.shop.svc.cluster.local',
    'SRV',
    'NOERROR SRV 0 100 5672 queue-0.queue.shop.svc.cluster.local + A 10.244.1.4 AAAA fd00:244:1::4',
  ],
  ['portless.shop.svc.cluster.local', 'SRV', 'NOERROR + soa'],
  ['idle.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  ['_amqp._tcp.idle.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  ['vendor.shop.svc.cluster.local', 'A', 'alias CNAME api.example.com → api.example.com'],
  ['vendor.shop.svc.cluster.local', 'CNAME', 'NOERROR CNAME api.example.com'],
  ['_http._tcp.vendor.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  ['alias.shop.svc.cluster.local', 'A', 'NOERROR A 10.96.0.5 CNAME web.shop.svc.cluster.local'],
  ['snake.shop.svc.cluster.local', 'A', 'SERVFAIL'],
  ['numbers.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['blanks.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['web.shop.svc.cluster.local', 'ANY', 'NOERROR HINFO RFC8482'],
  ['vendor.shop.svc.cluster.local', 'ANY', 'NOERROR CNAME api.example.com'],
  ['nobody.shop.svc.cluster.local', 'ANY', 'NXDOMAIN + soa'],
  ['10-244-1-4.shop.pod.cluster.local', 'A', 'NOERROR A 10.244.1.4'],
  ['fd00--5.shop.pod.cluster.local', 'AAAA', 'NOERROR AAAA fd00::5'],
  ['banana.shop.pod.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['10-244-1-4.nowhere.pod.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['5.0.96.10.in-addr.arpa', 'PTR', 'NOERROR PTR web.shop.svc.cluster.local'],
  ['4.1.244.10.in-addr.arpa', 'PTR', 'NOERROR PTR queue-0.queue.shop.svc.cluster.local'],
  [
    '5.1.244.10.in-addr.arpa',
    'PTR',
    'NOERROR PTR 10-244-1-5.also.shop.svc.cluster.local PTR 10-244-1-5.queue.shop.svc.cluster.local',
  ],
  ['5.0.96.10.in-addr.arpa', 'A', 'NOERROR + soa'],
  ['6.1.244.10.in-addr.arpa', 'PTR', 'forward'],
  ['0.96.10.in-addr.arpa', 'PTR', 'forward'],
  ['x.0.96.10.in-addr.arpa', 'PTR', 'forward'],
  ['8.8.8.8.in-addr.arpa', 'PTR', 'forward'],
  [
    '5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa',
    'PTR',
    'NOERROR PTR web.shop.svc.cluster.local',
  ],
  ['cluster.local', 'SOA', 'NOERROR soa'],
  ['cluster.local', 'NS', 'NOERROR NS ns.dns.cluster.local + A 169.254.20.53 AAAA fd66:756c:6d61::53'],
  ['ns.dns.cluster.local', 'A', 'NOERROR A 169.254.20.53'],
  ['cluster.local', 'A', 'NOERROR + soa'],
  ['svc.cluster.local', 'A', 'NOERROR + soa'],
  ['shop.svc.cluster.local', 'A', 'NOERROR + soa'],
  ['nowhere.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['pod.cluster.local', 'A', 'NOERROR + soa'],
  ['dns-version.cluster.local', 'TXT', 'NOERROR TXT 1.1.0'],
  ['example.com', 'A', 'forward'],
  ['notcluster.local', 'A', 'forward'],
  ['.', 'NS', 'forward'],
]

t.test('names and their answers', async (t) => {
  for (const [name, type, expected] of rows)
    t.equal(brief(answer(zone, name, type, () => 0)), expected, `${name} ${type}`)
})

t.test('names are found in any case and answered as they were asked', async (t) => {
  const found = answer(zone, 'WeB.Shop.SVC.cluster.LOCAL', 'A', () => 0)
  t.match(found, { answers: [{ name: 'WeB.Shop.SVC.cluster.LOCAL', data: '10.96.0.5', ttl: 5 }] })
})

t.test('nothing is denied before the cluster is known', async (t) => {
  const unknown = zoneOf({
    cluster: undefined,
    here: hereOf({ nodePools: new Map() }, 'h1'),
    domains: ['cluster.local'],
    servers,
  })
  t.equal(brief(answer(unknown, 'web.shop.svc.cluster.local', 'A', () => 0)), 'SERVFAIL')
  t.equal(brief(answer(unknown, '5.0.96.10.in-addr.arpa', 'PTR', () => 0)), 'SERVFAIL')
  t.equal(brief(answer(unknown, 'example.com', 'A', () => 0)), 'forward')
})

t.test('the order of endpoints is that of the random numbers', async (t) => {
  const orders = [0, 0.99].map((random) => {
    const found = answer(zone, 'queue.shop.svc.cluster.local', 'A', () => random)
    return found.kind === 'answer' ? found.answers.map(({ data }) => data) : []
  })
  t.strictSame(orders, [
    ['10.244.1.4', '10.244.1.5'],
    ['10.244.1.5', '10.244.1.4'],
  ])
})

t.test('several domains, one within another, and none of the default', async (t) => {
  const domains = ['edge.example', 'far.edge.example']
  const other = zoneOf({ cluster, here: hereOf(cluster, 'h1'), domains, servers })
  const rows: readonly (readonly [name: string, type: string, answer: string])[] = [
    ['web.shop.svc.edge.example', 'A', 'NOERROR A 10.96.0.5'],
    ['web.shop.svc.far.edge.example', 'A', 'NOERROR A 10.96.0.5'],
    ['_amqp._tcp.nobody.far.edge.example', 'SRV', 'NXDOMAIN + soa'],
    ['far.edge.example', 'NS', 'NOERROR NS ns.dns.far.edge.example + A 169.254.20.53 AAAA fd66:756c:6d61::53'],
    ['5.0.96.10.in-addr.arpa', 'PTR', 'NOERROR PTR web.shop.svc.edge.example'],
    ['web.shop.svc.cluster.local', 'A', 'forward'],
    ['notedge.example', 'A', 'forward'],
  ]
  for (const [name, type, expected] of rows)
    t.equal(brief(answer(other, name, type, () => 0)), expected, `${name} ${type}`)
})

t.test('names of pods may be switched off', async (t) => {
  const without = zoneOf({
    cluster,
    here: hereOf(cluster, 'h1'),
    domains: ['cluster.local'],
    servers,
    pods: 'disabled',
  })
  t.equal(brief(answer(without, '10-244-1-4.shop.pod.cluster.local', 'A', () => 0)), 'NXDOMAIN + soa')
  t.equal(brief(answer(without, 'pod.cluster.local', 'A', () => 0)), 'NOERROR + soa')
})

t.test('an SOA belongs to the zone of its name', async (t) => {
  const owner = (name: string) => {
    const found = answer(zone, name, 'TXT', () => 0)
    return found.kind === 'answer' ? found.authorities[0]?.name : undefined
  }
  t.equal(owner('web.shop.svc.cluster.local'), 'cluster.local')
  t.equal(owner('5.0.96.10.in-addr.arpa'), 'in-addr.arpa')
})

t.test('of ten thousand endpoints no more are taken than overflow the message', async (t) => {
  const count = 10_000
  const endpoints = Array.from({ length: count }, (_, i) => ({ addresses: [`10.1.${i >> 8}.${i & 255}`] }))
  const huge = clusterOf({
    services: [service('huge', { clusterIP: 'None', ports: amqp })],
    slices: [slice('huge', 'IPv4', endpoints, amqp)],
    nodes: [],
    nodePools: [],
    gateways: [],
  })
  const here = hereOf(huge, 'h1')
  const zone = zoneOf({ cluster: huge, here, domains: ['cluster.local'], servers })
  const rows: readonly (readonly [name: string, type: string, room: number, taken: number])[] = [
    ['huge.shop.svc.cluster.local', 'A', 512, 32],
    ['huge.shop.svc.cluster.local', 'A', 65_535, 4_096],
    ['huge.shop.svc.cluster.local', 'A', Infinity, count],
    ['_amqp._tcp.huge.shop.svc.cluster.local', 'SRV', 512, 11],
    ['_amqp._tcp.huge.shop.svc.cluster.local', 'A', 512, 32],
  ]
  for (const [name, type, room, taken] of rows) {
    const found = answer(zone, name, type, Math.random, room)
    t.equal(found.kind === 'answer' && found.answers.length, taken, `${name} ${type} in ${room}`)
  }
  const found = answer(zone, '_amqp._tcp.huge.shop.svc.cluster.local', 'SRV', () => 0, 512)
  t.match(found, { truncated: true, answers: [{ data: { weight: 1, port: 5672 } }] })
})
