import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { answer, type DnsAnswer } from '../../agent/dns.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { hereOf } from '../../agent/topology.ts'
import { clusterOfMany, OBJECTS, SERVERS as servers, service, slice } from '../contract/dns-cases.ts'

const cluster = clusterOf({
  ...OBJECTS,
  services: [
    ...OBJECTS.services,
    service('dotted', { type: 'ExternalName', externalName: 'api.example.com.' }),
    service('blanks', { type: 'ExternalName', externalName: 'no name' }),
    service('also', { clusterIP: 'None' }),
  ],
  slices: [...OBJECTS.slices, slice('also', 'IPv4', [{ addresses: ['10.244.1.5'] }])],
})
const here = hereOf(cluster, 'h1')
const zone = zoneOf({ cluster, here, domains: ['cluster.local'], servers })

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

/** What the rows of test/contract/dns-cases.ts, asked over sockets, do not say. */
const rows: readonly (readonly [name: string, type: string, answer: string])[] = [
  ['web.shop.cluster.local', 'A', 'NXDOMAIN + soa'],
  // A search list makes such names of every outside name.
  ['example.com.cluster.local', 'A', 'NXDOMAIN + soa'],
  ['_http._tcp.web.shop.svc.cluster.local', 'TXT', 'NOERROR + soa'],
  ['_sql._udp.db.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  // All ports of a service by its own name, as peers of a StatefulSet look for each other.
  [
    'web.shop.svc.cluster.local',
    'SRV',
    'NOERROR SRV 0 50 443 web.shop.svc.cluster.local SRV 0 50 80 web.shop.svc.cluster.local + A 10.96.0.5 AAAA fd00:96::5',
  ],
  ['idle.shop.svc.cluster.local', 'SRV', 'NXDOMAIN + soa'],
  ['dotted.shop.svc.cluster.local', 'A', 'alias CNAME api.example.com → api.example.com'],
  ['dotted.shop.svc.cluster.local', 'ANY', 'NOERROR CNAME api.example.com'],
  ['blanks.shop.svc.cluster.local', 'A', 'NXDOMAIN + soa'],
  [
    '5.1.244.10.in-addr.arpa',
    'PTR',
    'NOERROR PTR 10-244-1-5.also.shop.svc.cluster.local PTR 10-244-1-5.db.shop.svc.cluster.local',
  ],
  ['6.1.244.10.in-addr.arpa', 'PTR', 'forward'],
  ['0.96.10.in-addr.arpa', 'PTR', 'forward'],
  ['x.0.96.10.in-addr.arpa', 'PTR', 'forward'],
  ['8.8.8.8.in-addr.arpa', 'PTR', 'forward'],
  ['ns.dns.cluster.local', 'A', 'NOERROR A 169.254.20.53'],
  ['example.com', 'A', 'forward'],
  ['notcluster.local', 'A', 'forward'],
  ['.', 'NS', 'forward'],
]

t.test('names and their answers', async (t) => {
  for (const [name, type, expected] of rows)
    t.equal(brief(answer(zone, name, type, () => 0)), expected, `${name} ${type}`)
})

t.test('names of others are forwarded before the cluster is known', async (t) => {
  const unknown = zoneOf({
    cluster: undefined,
    here: hereOf({ nodePools: new Map() }, 'h1'),
    domains: ['cluster.local'],
    servers,
  })
  t.equal(brief(answer(unknown, 'example.com', 'A', () => 0)), 'forward')
})

t.test('the order of endpoints is that of the random numbers', async (t) => {
  const orders = [0, 0.99].map((random) => {
    const found = answer(zone, 'db.shop.svc.cluster.local', 'A', () => random)
    return found.kind === 'answer' ? found.answers.map(({ data }) => data) : []
  })
  t.strictSame(orders, [
    ['10.244.1.4', '10.244.1.5'],
    ['10.244.1.5', '10.244.1.4'],
  ])
})

t.test('several domains, one within another, and none of the default', async (t) => {
  const other = zoneOf({ cluster, here, domains: ['edge.example', 'far.edge.example'], servers })
  const rows: readonly (readonly [name: string, type: string, answer: string])[] = [
    ['web.shop.svc.edge.example', 'A', 'NOERROR A 10.96.0.5'],
    ['web.shop.svc.far.edge.example', 'A', 'NOERROR A 10.96.0.5'],
    ['_sql._tcp.nobody.far.edge.example', 'SRV', 'NXDOMAIN + soa'],
    ['far.edge.example', 'NS', 'NOERROR NS ns.dns.far.edge.example + A 169.254.20.53 AAAA fd66:756c:6d61::53'],
    ['5.0.96.10.in-addr.arpa', 'PTR', 'NOERROR PTR web.shop.svc.edge.example'],
    ['web.shop.svc.cluster.local', 'A', 'forward'],
    ['notedge.example', 'A', 'forward'],
  ]
  for (const [name, type, expected] of rows)
    t.equal(brief(answer(other, name, type, () => 0)), expected, `${name} ${type}`)
})

t.test('where names of pods are switched off, what they are under is there', async (t) => {
  const without = zoneOf({ cluster, here, domains: ['cluster.local'], servers, pods: 'disabled' })
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
  const huge = clusterOfMany(count, [{ name: 'amqp', protocol: 'TCP', port: 5672 }])
  const zone = zoneOf({ cluster: huge, here: hereOf(huge, 'h1'), domains: ['cluster.local'], servers })
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
