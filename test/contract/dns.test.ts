// The contract of the DNS: the Kubernetes DNS specification 1.1, with CoreDNS's behaviour where it leaves room, asked over
// UDP and TCP on IPv4 and IPv6. A row is what a client sends and what it must get.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import packet from 'dns-packet'
import t, { type Test } from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { runDnsServer } from '../../agent/dns-server.ts'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { zoneOf, type ZoneInput } from '../../agent/dns-zone.ts'
import { hereOf } from '../../agent/topology.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'
import { createLog } from '../../lib/log.ts'
import { find } from '../../lib/net/preflight.ts'
import { encode, framed, tcp, udp, upstreamServer, type Message, type Question } from '../agent/dns-asking.ts'
import { until } from '../lib/netns.ts'

const run = promisify(execFile)

// === the cluster ===

type Spec = NonNullable<Service['spec']>
const service = (name: string, spec: Spec, annotations = {}): Service => ({
  metadata: { namespace: 'shop', name, annotations },
  spec,
})
type Ports = { name?: string; protocol: string; port: number }[]
const slice = (
  of: string,
  addressType: 'IPv4' | 'IPv6',
  endpoints: EndpointSlice['endpoints'],
  ports: Ports = [],
): EndpointSlice => ({
  metadata: { namespace: 'shop', name: `${of}-${addressType}`, labels: { 'kubernetes.io/service-name': of } },
  addressType,
  endpoints,
  ports: ports.map(({ name = '', ...port }) => ({ name, ...port })),
})
const NOT_READY = { ready: false, serving: true, terminating: true }
const db: Ports = [
  { name: 'sql', protocol: 'TCP', port: 5432 },
  { name: 'admin', protocol: 'TCP', port: 8080 },
]
const MANY = Array.from({ length: 120 }, (_, i) => `10.244.3.${i + 1}`)
const cluster = clusterOf({
  services: [
    service('web', {
      clusterIP: '10.96.0.5',
      clusterIPs: ['10.96.0.5', 'fd00:96::5'],
      ports: [
        { name: 'http', protocol: 'TCP', port: 80 },
        { name: 'http', protocol: 'UDP', port: 443 },
      ],
    }),
    service('v4only', { clusterIP: '10.96.0.6', ports: [{ protocol: 'TCP', port: 80 }] }),
    service('v6only', { clusterIP: 'fd00:96::7', clusterIPs: ['fd00:96::7'] }),
    service('db', { clusterIP: 'None', ports: db }),
    service('idle', { clusterIP: 'None', ports: db }),
    service('early', { clusterIP: 'None', publishNotReadyAddresses: true }),
    service('portless', { clusterIP: 'None' }),
    service('many', { clusterIP: 'None' }),
    service('near', { clusterIP: 'None' }, { 'openyurt.io/topologyKeys': 'openyurt.io/nodepool' }),
    service('vendor', { type: 'ExternalName', externalName: 'api.example.com' }),
    service('lost', { type: 'ExternalName', externalName: 'none.example.com' }),
    service('inside', { type: 'ExternalName', externalName: 'web.shop.svc.cluster.local' }),
    service('circle', { type: 'ExternalName', externalName: 'circle.shop.svc.cluster.local' }),
    service('number', { type: 'ExternalName', externalName: '192.0.2.9' }),
  ],
  slices: [
    slice('web', 'IPv4', [{ addresses: ['10.244.1.9'] }], [{ name: 'http', protocol: 'TCP', port: 8080 }]),
    slice(
      'db',
      'IPv4',
      [
        { addresses: ['10.244.1.4'], hostname: 'db-0' },
        { addresses: ['10.244.1.5'] },
        { addresses: ['10.244.1.6'], conditions: NOT_READY },
      ],
      db,
    ),
    slice('db', 'IPv6', [{ addresses: ['fd00:244:1::4'], hostname: 'db-0' }, { addresses: ['fd00:244:1::'] }], db),
    slice('idle', 'IPv4', [{ addresses: ['10.244.1.7'], conditions: NOT_READY }], db),
    slice('early', 'IPv4', [{ addresses: ['10.244.1.10'], conditions: { ready: false } }]),
    slice('portless', 'IPv4', [{ addresses: ['10.244.1.8'] }]),
    slice(
      'many',
      'IPv4',
      MANY.map((address) => ({ addresses: [address] })),
    ),
    slice('near', 'IPv4', [
      { addresses: ['10.244.1.20'], nodeName: 'h1' },
      { addresses: ['10.244.9.20'], nodeName: 's1' },
    ]),
  ],
  nodes: [
    { metadata: { name: 'h1', labels: { 'apps.openyurt.io/nodepool': 'hangzhou' } } },
    { metadata: { name: 's1', labels: { 'apps.openyurt.io/nodepool': 'shanghai' } } },
  ],
  nodePools: [],
  gateways: [],
})
const here = hereOf(cluster, 'h1')
const servers = ['169.254.20.53', 'fd66:756c:6d61::53']

// === the server, and ways to ask it ===

let lastPort = 31_000 + (process.pid % 1_000)
async function serve(t: Test, more: Partial<ZoneInput> = {}, upstreams: readonly string[] = []): Promise<number> {
  const controller = new AbortController()
  const port = ++lastPort
  const zone = zoneOf({ cluster, here, domains: ['cluster.local'], servers, ...more })
  const dns = runDnsServer(
    {
      addresses: ['127.0.0.1', '::1'],
      port,
      ensureAddress: async () => undefined,
      zone: () => zone,
      upstream: openUpstream({ servers: upstreams, resolvConf: '/nonexistent', except: () => [] }, controller.signal),
      log: createLog('test', 'silent'),
    },
    controller.signal,
  )
  await until('it listens', 5_000, async () => dns.listening().length === 2)
  t.teardown(async () => {
    controller.abort()
    await dns.done
  })
  return port
}

type Way = { readonly name: string; readonly ask: (port: number, question: Question) => Promise<Message | undefined> }
const WAYS: readonly Way[] = ['127.0.0.1', '::1'].flatMap((address) => [
  { name: `UDP ${address}`, ask: (port, question) => udp(port, encode(question), address) },
  {
    name: `TCP ${address}`,
    ask: async (port, question) => (await tcp(port, [framed(encode(question))], 1, address))[0],
  },
])

/** `NOERROR A 10.96.0.5 | soa`: what is answered, then what comes with it, each sorted. */
function brief(message: Message | undefined): string {
  if (message === undefined) return 'nothing'
  const text = ({ type, data }: { type: string; data: unknown }): readonly string[] => {
    if (type === 'OPT') return []
    if (type === 'SOA') return ['soa']
    if (type === 'TXT') return [`TXT ${String(data)}`]
    if (type === 'HINFO') return [`HINFO ${(data as { cpu: string }).cpu}`]
    if (type !== 'SRV') return [`${type} ${data}`]
    const { priority, weight, port, target } = data as Record<string, unknown>
    return [`SRV ${priority} ${weight} ${port} ${target}`]
  }
  const answers = message.answers.flatMap(text)
  // An alias comes before what it leads to (glibc), all others in any order.
  const sorted = answers[0]?.startsWith('CNAME') ? answers : answers.sort()
  const more = [...message.authorities, ...message.additionals].flatMap(text).sort()
  return [message.rcode, ...sorted, ...(more.length > 0 ? ['|', ...more] : [])].join(' ')
}

// === the contract ===

type Row = readonly [name: string, type: string, answer: string]
const TABLE: Readonly<Record<string, readonly Row[]>> = {
  'svc.ns.svc.Z: the ClusterIPs of the family, the other family has none': [
    ['web.shop.svc.cluster.local', 'A', 'NOERROR A 10.96.0.5'],
    ['web.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:96::5'],
    ['v4only.shop.svc.cluster.local', 'AAAA', 'NOERROR | soa'],
    ['v6only.shop.svc.cluster.local', 'A', 'NOERROR | soa'],
    ['web.shop.svc.cluster.local', 'MX', 'NOERROR | soa'],
    ['web.shop.svc.cluster.local', 'UNKNOWN_65', 'NOERROR | soa'],
    ['nobody.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['web.nowhere.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['example.com.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
  ],
  'headless: all endpoints that are ready, none is NXDOMAIN': [
    ['db.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.4 A 10.244.1.5'],
    ['db.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1:: AAAA fd00:244:1::4'],
    ['idle.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['early.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.10'],
    ['portless.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.8'],
    ['portless.shop.svc.cluster.local', 'AAAA', 'NOERROR | soa'],
    ['near.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.20'],
  ],
  'host.svc.ns.svc.Z: by hostname, else by the address with dashes, of any service': [
    ['db-0.db.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.4'],
    ['db-0.db.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1::4'],
    ['10-244-1-5.db.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.5'],
    ['10-244-1-4.db.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['10-244-1-6.db.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['fd00-244-1--0.db.shop.svc.cluster.local', 'AAAA', 'NOERROR AAAA fd00:244:1::'],
    ['10-244-1-9.web.shop.svc.cluster.local', 'A', 'NOERROR A 10.244.1.9'],
  ],
  '_port._proto SRV: a ClusterIP has one, headless has all with glue, unnamed ports none': [
    [
      '_http._tcp.web.shop.svc.cluster.local',
      'SRV',
      'NOERROR SRV 0 100 80 web.shop.svc.cluster.local | A 10.96.0.5 AAAA fd00:96::5',
    ],
    [
      '_http._udp.web.shop.svc.cluster.local',
      'SRV',
      'NOERROR SRV 0 100 443 web.shop.svc.cluster.local | A 10.96.0.5 AAAA fd00:96::5',
    ],
    [
      '_sql._tcp.db.shop.svc.cluster.local',
      'SRV',
      'NOERROR SRV 0 33 5432 10-244-1-5.db.shop.svc.cluster.local SRV 0 33 5432 db-0.db.shop.svc.cluster.local ' +
        'SRV 0 33 5432 fd00-244-1--0.db.shop.svc.cluster.local | A 10.244.1.4 A 10.244.1.5 AAAA fd00:244:1:: AAAA fd00:244:1::4',
    ],
    ['_http._tcp.web.shop.svc.cluster.local', 'A', 'NOERROR A 10.96.0.5'],
    ['_tcp.web.shop.svc.cluster.local', 'A', 'NOERROR | soa'],
    ['_x._tcp.web.shop.svc.cluster.local', 'SRV', 'NXDOMAIN | soa'],
    ['_._tcp.v4only.shop.svc.cluster.local', 'SRV', 'NXDOMAIN | soa'],
    ['_sql._tcp.idle.shop.svc.cluster.local', 'SRV', 'NXDOMAIN | soa'],
  ],
  'SRV of the plain name: all ports, named or not': [
    ['v4only.shop.svc.cluster.local', 'SRV', 'NOERROR SRV 0 100 80 v4only.shop.svc.cluster.local | A 10.96.0.6'],
    [
      'db-0.db.shop.svc.cluster.local',
      'SRV',
      'NOERROR SRV 0 50 5432 db-0.db.shop.svc.cluster.local SRV 0 50 8080 db-0.db.shop.svc.cluster.local ' +
        '| A 10.244.1.4 AAAA fd00:244:1::4',
    ],
    ['portless.shop.svc.cluster.local', 'SRV', 'NOERROR | soa'],
  ],
  'ExternalName: the alias, then what it leads to; no SRV': [
    ['vendor.shop.svc.cluster.local', 'A', 'NOERROR CNAME api.example.com A 192.0.2.1'],
    ['vendor.shop.svc.cluster.local', 'CNAME', 'NOERROR CNAME api.example.com'],
    ['lost.shop.svc.cluster.local', 'A', 'NXDOMAIN CNAME none.example.com'],
    ['inside.shop.svc.cluster.local', 'A', 'NOERROR CNAME web.shop.svc.cluster.local A 10.96.0.5'],
    ['circle.shop.svc.cluster.local', 'A', 'SERVFAIL'],
    ['number.shop.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['_http._tcp.vendor.shop.svc.cluster.local', 'SRV', 'NXDOMAIN | soa'],
  ],
  'PTR: a ClusterIP leads to its service, others to each endpoint that is ready': [
    ['5.0.96.10.in-addr.arpa', 'PTR', 'NOERROR PTR web.shop.svc.cluster.local'],
    [
      '5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa',
      'PTR',
      'NOERROR PTR web.shop.svc.cluster.local',
    ],
    ['4.1.244.10.in-addr.arpa', 'PTR', 'NOERROR PTR db-0.db.shop.svc.cluster.local'],
    ['5.1.244.10.in-addr.arpa', 'PTR', 'NOERROR PTR 10-244-1-5.db.shop.svc.cluster.local'],
    ['9.1.244.10.in-addr.arpa', 'PTR', 'NOERROR PTR 10-244-1-9.web.shop.svc.cluster.local'],
    ['5.0.96.10.in-addr.arpa', 'TXT', 'NOERROR | soa'],
    // Nobody of ours: as the resolver says.
    ['1.2.0.192.in-addr.arpa', 'PTR', 'NOERROR PTR host.example.com'],
    ['6.1.244.10.in-addr.arpa', 'PTR', 'NXDOMAIN'],
  ],
  'a-b-c-d.ns.pod.Z, insecure': [
    ['10-244-1-4.shop.pod.cluster.local', 'A', 'NOERROR A 10.244.1.4'],
    ['10-99-99-99.shop.pod.cluster.local', 'A', 'NOERROR A 10.99.99.99'],
    ['fd00--5.shop.pod.cluster.local', 'AAAA', 'NOERROR AAAA fd00::5'],
    ['10-244-1-4.shop.pod.cluster.local', 'AAAA', 'NOERROR | soa'],
    ['10-244-1-4.nowhere.pod.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['banana.shop.pod.cluster.local', 'A', 'NXDOMAIN | soa'],
  ],
  'dns-version.Z': [
    ['dns-version.cluster.local', 'TXT', 'NOERROR TXT 1.1.0'],
    ['dns-version.cluster.local', 'A', 'NOERROR | soa'],
  ],
  'the apex, svc.Z, pod.Z and ns.svc.Z are there': [
    ['cluster.local', 'SOA', 'NOERROR soa'],
    ['cluster.local', 'NS', 'NOERROR NS ns.dns.cluster.local | A 169.254.20.53 AAAA fd66:756c:6d61::53'],
    ['ns.dns.cluster.local', 'AAAA', 'NOERROR AAAA fd66:756c:6d61::53'],
    ['cluster.local', 'A', 'NOERROR | soa'],
    ['svc.cluster.local', 'A', 'NOERROR | soa'],
    ['pod.cluster.local', 'A', 'NOERROR | soa'],
    ['shop.svc.cluster.local', 'A', 'NOERROR | soa'],
    ['shop.pod.cluster.local', 'A', 'NOERROR | soa'],
    ['nowhere.svc.cluster.local', 'A', 'NXDOMAIN | soa'],
    ['other.cluster.local', 'A', 'NXDOMAIN | soa'],
  ],
  'transfers are refused, ANY is one record': [
    ['cluster.local', 'AXFR', 'REFUSED'],
    ['cluster.local', 'IXFR', 'REFUSED'],
    ['web.shop.svc.cluster.local', 'ANY', 'NOERROR HINFO RFC8482'],
    ['nobody.shop.svc.cluster.local', 'ANY', 'NXDOMAIN | soa'],
  ],
  'names of others': [
    ['example.com', 'A', 'NOERROR A 192.0.2.1'],
    ['none.example.com', 'A', 'NXDOMAIN'],
  ],
}

t.test('names and their answers', async (t) => {
  const upstream = await upstreamServer(t, ({ questions: [question] }) => {
    const { name, type } = question!
    if (name.startsWith('none') || name.startsWith('6.1.244')) return { flags: 0x183, answers: [] }
    return { answers: [{ name, type, ttl: 60, data: type === 'PTR' ? 'host.example.com' : '192.0.2.1' }] }
  })
  const port = await serve(t, {}, [upstream.address])
  for (const [row, cases] of Object.entries(TABLE))
    await t.test(row, async (t) => {
      for (const [name, type, expected] of cases)
        for (const way of WAYS) {
          const question = { name, type, edns: 1232 }
          // Once as it is made, once as it is kept.
          for (let i = 0; i < 2; i++)
            t.equal(brief(await way.ask(port, question)), expected, `${name} ${type} by ${way.name}`)
        }
    })
})

t.test('names of pods switched off', async (t) => {
  const port = await serve(t, { pods: 'disabled' })
  for (const { name, ask } of WAYS)
    t.equal(brief(await ask(port, { name: '10-244-1-4.shop.pod.cluster.local' })), 'NXDOMAIN | soa', name)
})

t.test('two domains', async (t) => {
  const port = await serve(t, { domains: ['edge.example', 'cluster.local'] })
  for (const { ask } of WAYS) {
    for (const name of ['web.shop.svc.edge.example', 'web.shop.svc.cluster.local'])
      t.equal(brief(await ask(port, { name })), 'NOERROR A 10.96.0.5', name)
    const ptr = await ask(port, { name: '5.0.96.10.in-addr.arpa', type: 'PTR' })
    t.equal(brief(ptr), 'NOERROR PTR web.shop.svc.edge.example')
  }
})

t.test('before anything is known nothing is denied', async (t) => {
  const port = await serve(t, { cluster: undefined })
  for (const { ask } of WAYS)
    for (const name of ['web.shop.svc.cluster.local', 'x.cluster.local', '5.0.96.10.in-addr.arpa'])
      t.equal(brief(await ask(port, { name })), 'SERVFAIL', name)
})

t.test('the message', async (t) => {
  const port = await serve(t)
  for (const { name: way, ask } of WAYS) {
    const found = await ask(port, { name: 'wEb.sHoP.svc.CLUSTER.local', id: 4711, edns: 4096 })
    t.match(
      found,
      {
        id: 4711,
        flag_aa: true,
        flag_tc: false,
        questions: [{ name: 'wEb.sHoP.svc.CLUSTER.local' }],
        answers: [{ name: 'wEb.sHoP.svc.CLUSTER.local', ttl: 5 }],
        additionals: [{ type: 'OPT', udpPayloadSize: 1232 }],
      },
      `case, AA, TTL and EDNS by ${way}`,
    )
    const denied = await ask(port, { name: 'nobody.shop.svc.cluster.local' })
    t.match(
      denied!.authorities,
      [{ name: 'cluster.local', ttl: 5, data: { minimum: 5 } }],
      'the SOA’s minimum is the TTL',
    )
    t.equal((await ask(port, { name: 'dns-version.cluster.local', type: 'TXT' }))!.answers[0]!.ttl, 28_800)
    t.equal(brief(await ask(port, { name: 'version.bind', type: 'TXT', class: 'CH' })), 'REFUSED', 'another class')
    t.equal(brief(await ask(port, { name: 'web.shop.svc.cluster.local', flags: 5 << 11 })), 'NOTIMP', 'another opcode')
  }
})

t.test('EDNS: unknown options and the DO bit are no harm, other versions are told', async (t) => {
  const port = await serve(t)
  const query = (opt: object): Buffer =>
    packet.encode({
      type: 'query',
      id: 7,
      flags: 0x100,
      questions: [{ name: 'web.shop.svc.cluster.local', type: 'A', class: 'IN' }],
      additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0, options: [], ...opt }],
    })
  const options = [{ code: 65_001, data: Buffer.from('what is it') }]
  for (const address of ['127.0.0.1', '::1']) {
    t.equal(brief(await udp(port, query({ options }), address)), 'NOERROR A 10.96.0.5')
    t.match(await udp(port, query({ flags: 0x8000 }), address), { additionals: [{ flag_do: true, options: [] }] })
    const later = await udp(port, query({ ednsVersion: 1 }), address)
    t.match(later, { answers: [], additionals: [{ extendedRcode: 1, ednsVersion: 0 }] }, 'BADVERS')
  }
})

t.test('what does not fit is cut, marked and whole over TCP; its order is by chance', async (t) => {
  const port = await serve(t)
  const name = 'many.shop.svc.cluster.local'
  for (const { name: way, ask } of WAYS) {
    const sizes: readonly (readonly [edns: number | undefined, least: number])[] = [
      [undefined, 28],
      [1232, 70],
      [4096, 70],
    ]
    for (const [edns, least] of sizes) {
      const found = await ask(port, { name, ...(edns !== undefined && { edns }) })
      const data = found!.answers.map((record) => String(record.data))
      if (way.startsWith('TCP')) t.strictSame([found!.flag_tc, data.toSorted()], [false, [...MANY].sort()])
      else t.ok(found!.flag_tc && data.length >= least && data.length < MANY.length, `${edns}: ${data.length}`)
    }
    const orders = new Set<string>()
    for (let i = 0; i < 12; i++) {
      const found = await ask(port, { name: 'db.shop.svc.cluster.local' })
      orders.add(found!.answers.map((record) => record.data).join())
    }
    t.equal(orders.size, 2, `both orders of two by ${way}`)
  }
})

t.test('ten thousand endpoints: as many as fit, marked as cut', async (t) => {
  const endpoints = Array.from({ length: 10_000 }, (_, i) => ({ addresses: [`10.1.${i >> 8}.${i & 255}`] }))
  const huge = clusterOf({
    services: [service('huge', { clusterIP: 'None', ports: db })],
    slices: [slice('huge', 'IPv4', endpoints, db)],
    nodes: [],
    nodePools: [],
    gateways: [],
  })
  const port = await serve(t, { cluster: huge })
  const rows: readonly (readonly [name: string, type: string, udp: number, tcp: number])[] = [
    ['huge.shop.svc.cluster.local', 'A', 70, 4_000],
    ['_sql._tcp.huge.shop.svc.cluster.local', 'SRV', 15, 900],
    ['huge.shop.svc.cluster.local', 'SRV', 15, 900],
  ]
  for (const [name, type, overUdp, overTcp] of rows)
    for (const { name: way, ask } of WAYS) {
      const found = await ask(port, { name, type, edns: 1232 })
      t.match(found, { rcode: 'NOERROR', flag_tc: true }, `${name} ${type} by ${way}`)
      const least = way.startsWith('UDP') ? overUdp : overTcp
      t.ok(found!.answers.length >= least, `${name} ${type} by ${way}: ${found!.answers.length} answers`)
    }
  t.equal(brief(await WAYS[0]!.ask(port, { name: '10-1-39-15.huge.shop.svc.cluster.local' })), 'NOERROR A 10.1.39.15')
})

const hasDig = find('dig') !== undefined
t.test('dig, as somebody else’s client', { skip: hasDig ? false : 'dig is not here (bind9-dnsutils)' }, async (t) => {
  const port = await serve(t)
  const rows: readonly (readonly [words: string, status: string, answer: RegExp])[] = [
    ['web.shop.svc.cluster.local A', 'NOERROR', /^web\.shop\.svc\.cluster\.local\.\s+5\s+IN\s+A\s+10\.96\.0\.5$/m],
    ['web.shop.svc.cluster.local AAAA +dnssec +nsid', 'NOERROR', /\sAAAA\s+fd00:96::5$/m],
    ['web.shop.svc.cluster.local A +edns=1', 'BADVERS|NOERROR', /./],
    ['_http._tcp.web.shop.svc.cluster.local SRV', 'NOERROR', /\sSRV\s+0 100 80 web\.shop\.svc\.cluster\.local\.$/m],
    ['inside.shop.svc.cluster.local A', 'NOERROR', /CNAME\s+web\.shop.*\n.*\sA\s+10\.96\.0\.5$/m],
    ['-x 10.244.1.4', 'NOERROR', /\sPTR\s+db-0\.db\.shop\.svc\.cluster\.local\.$/m],
    ['-x fd00:96::5', 'NOERROR', /\sPTR\s+web\.shop\.svc\.cluster\.local\.$/m],
    ['dns-version.cluster.local TXT', 'NOERROR', /\s28800\s+IN\s+TXT\s+"1\.1\.0"$/m],
    [
      'cluster.local SOA',
      'NOERROR',
      /\sSOA\s+ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. 1 7200 1800 86400 5$/m,
    ],
    ['web.shop.svc.cluster.local ANY +notcp', 'NOERROR', /\sHINFO\s+"RFC8482" ""$/m],
    ['nobody.shop.svc.cluster.local A', 'NXDOMAIN', /^(?!.*\sA\s)/s],
    ['many.shop.svc.cluster.local A', 'NOERROR', /ANSWER: 120,/],
  ]
  for (const [words, status, expected] of rows)
    for (const way of ['@127.0.0.1', '@::1', '@127.0.0.1 +tcp', '@::1 +tcp']) {
      const all = `-p ${port} +time=2 +tries=1 +noall +comments +answer ${way} ${words}`.split(' ')
      const { stdout } = await run('dig', way.endsWith('+tcp') ? all.filter((word) => word !== '+notcp') : all)
      t.match(stdout, new RegExp(`status: (${status}),`), `${way} ${words}`)
      t.match(stdout, expected, `${way} ${words}`)
      // It warns of the domain .local as such.
      t.notMatch(stdout, /malformed|WARNING: (?!\.local)|extra bytes/i, `${way} ${words}`)
      if (status !== 'BADVERS|NOERROR') t.match(stdout, /flags: qr aa rd/, `${way} ${words}`)
    }
})
