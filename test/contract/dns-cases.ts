// The cluster that the contract of the DNS is about, and its rows: a name, and what must come of it.

import { clusterOf, type Cluster } from '../../agent/cluster.ts'
import { hereOf } from '../../agent/topology.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'

type Spec = NonNullable<Service['spec']>
export const service = (name: string, spec: Spec, annotations = {}): Service => ({
  metadata: { namespace: 'shop', name, annotations },
  spec,
})
type Ports = { name?: string; protocol: string; port: number }[]
export const slice = (
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
export const db: Ports = [
  { name: 'sql', protocol: 'TCP', port: 5432 },
  { name: 'admin', protocol: 'TCP', port: 8080 },
]
export const MANY = Array.from({ length: 120 }, (_, i) => `10.244.3.${i + 1}`)
export const OBJECTS = {
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
}
export const cluster = clusterOf(OBJECTS)
export const here = hereOf(cluster, 'h1')
/** Its headless service `huge` has so many endpoints. */
export const clusterOfMany = (count: number, ports: Ports): Cluster =>
  clusterOf({
    services: [service('huge', { clusterIP: 'None', ports })],
    slices: [
      slice(
        'huge',
        'IPv4',
        Array.from({ length: count }, (_, i) => ({ addresses: [`10.1.${i >> 8}.${i & 255}`] })),
        ports,
      ),
    ],
    nodes: [],
    nodePools: [],
    gateways: [],
  })
export const SERVERS = ['169.254.20.53', 'fd66:756c:6d61::53']

/** What `brief` says of the answer. */
type Row = readonly [name: string, type: string, answer: string]
export const CASES: Readonly<Record<string, readonly Row[]>> = {
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
