// Gateway objects as operators and Raven's own controllers write them, and as they should not be.

import t from 'tap'
import type { RavenGateway } from '../../../lib/k8s/objects.ts'
import type { PoolProblem } from '../../../lib/k8s/pod-cidrs.ts'
import { readGateway, type GatewayEndpoint } from '../../../lib/k8s/raven-gateway.ts'

type Row = {
  readonly name: string
  readonly spec?: object
  readonly status?: object
  readonly endpoints: readonly GatewayEndpoint[]
  readonly tunnels?: boolean
  readonly elected?: readonly string[]
  readonly problems?: readonly RegExp[]
}
const tunnel = (nodeName: string, more: object = {}) => ({ nodeName, type: 'tunnel', ...more })
const one = (more: object) => ({ endpoints: [tunnel('a', more)] })

const rows: readonly Row[] = [
  { name: 'no object at all', endpoints: [] },
  { name: 'an object without a spec', spec: {}, endpoints: [] },
  { name: 'a name alone', spec: { endpoints: [{ nodeName: 'a' }] }, endpoints: [{ node: 'a' }] },
  {
    name: 'proxy endpoints are of Raven’s proxy',
    spec: { endpoints: [{ nodeName: 'a', type: 'proxy', port: 10262, publicIP: '203.0.113.1' }, tunnel('b')] },
    endpoints: [{ node: 'b' }],
  },
  {
    name: 'a public node: it listens where its firewall expects it',
    spec: { exposeType: 'PublicIP', ...one({ port: 4500, publicIP: '203.0.113.1' }) },
    endpoints: [{ node: 'a', public: { address: '203.0.113.1', port: 4500 }, listenPort: 4500 }],
  },
  {
    name: 'behind a load balancer: another port outside',
    spec: { exposeType: 'LoadBalancer', ...one({ port: 4500, publicIP: '203.0.113.1', publicPort: 14500 }) },
    endpoints: [{ node: 'a', public: { address: '203.0.113.1', port: 14500 }, listenPort: 4500 }],
  },
  {
    name: 'IPv6 becomes canonical; a port that is not there is none',
    spec: one({ port: 0, publicIP: '2001:DB8:0::1' }),
    endpoints: [{ node: 'a', public: { address: '2001:db8::1' } }],
  },
  {
    name: 'under NAT with Raven’s default port: nothing is forwarded, and it keeps its own',
    spec: one({ port: 4500, underNAT: true }),
    endpoints: [{ node: 'a' }],
  },
  {
    name: 'under NAT with a forwarded port',
    spec: one({ port: 4500, underNAT: true, publicIP: '198.51.100.1', publicPort: 24500 }),
    endpoints: [{ node: 'a', public: { address: '198.51.100.1', port: 24500 }, listenPort: 4500 }],
  },
  {
    name: 'two behind one NAT must not listen on one port',
    spec: {
      endpoints: ['a', 'b'].map((name, i) =>
        tunnel(name, { port: 4500, underNAT: true, publicIP: '198.51.100.1', publicPort: 24500 + i }),
      ),
    },
    endpoints: ['a', 'b'].map((node, i) => ({ node, public: { address: '198.51.100.1', port: 24500 + i } })),
  },
  {
    name: 'the first of two endpoints of a node counts',
    spec: { endpoints: [tunnel('b'), tunnel('a', { port: 1 }), tunnel('a', { port: 2 })] },
    endpoints: [{ node: 'b' }, { node: 'a', listenPort: 1 }],
  },
  {
    name: 'a node of another pool',
    spec: { endpoints: [tunnel('ghost'), tunnel('a')] },
    endpoints: [{ node: 'a' }],
    problems: [/^Gateway p: endpoint ghost is no node of pool p.*correct spec.endpoints/],
  },
  {
    name: 'values that are none, each named with its field',
    spec: one({ port: 70_000, publicPort: '4500', publicIP: 'gw.example.org', underNAT: 'yes' }),
    endpoints: [{ node: 'a' }],
    problems: [
      /endpoints\[0\]\.port 70000 is no port from 1 to 65535/,
      /endpoints\[0\]\.publicPort "4500" is no port/,
      /endpoints\[0\]\.publicIP "gw\.example\.org" is no IP address that others reach/,
      /endpoints\[0\]\.underNAT "yes" is neither true nor false/,
    ],
  },
  ...['127.0.0.1', '0.0.0.0', '::1', 'fe80::1', '224.0.0.1', '10.1', 7].map((publicIP) => ({
    name: `publicIP ${publicIP}`,
    spec: one({ publicIP }),
    endpoints: [{ node: 'a' }],
    problems: [/publicIP .* is no IP address that others reach: it is ignored/],
  })),
  {
    name: 'a type that is none, and an endpoint without a node',
    spec: { endpoints: [{ nodeName: 'a', type: 'vpn' }, { type: 'tunnel' }, tunnel('b')] },
    endpoints: [{ node: 'b' }],
    problems: [
      /endpoints\[0\]\.type "vpn" is neither tunnel nor proxy: endpoint a is left out/,
      /\[1\]\.nodeName is missing/,
    ],
  },
  {
    name: 'endpoints that are no list',
    spec: { endpoints: { nodeName: 'a' } },
    endpoints: [],
    problems: [/spec\.endpoints is no list/],
  },
  {
    name: 'exposed and under NAT',
    spec: { exposeType: 'PublicIP', ...one({ port: 4500, underNAT: true }) },
    endpoints: [{ node: 'a', listenPort: 4500 }],
    problems: [/endpoints\[0\]\.underNAT is true with exposeType PublicIP: taken as false/],
  },
  {
    name: 'a balancer without an address',
    spec: { exposeType: 'LoadBalancer', ...one({ port: 4500 }) },
    endpoints: [{ node: 'a', listenPort: 4500 }],
    problems: [/exposeType is LoadBalancer and spec\.endpoints\[0\]\.publicIP is missing/],
  },
  {
    name: 'an exposeType that is none',
    spec: { exposeType: 'NodePort', ...one({}) },
    endpoints: [{ node: 'a' }],
    problems: [/spec\.exposeType "NodePort" is neither PublicIP nor LoadBalancer/],
  },
  { name: 'one tunnel', spec: { tunnelConfig: { Replicas: 1 }, ...one({}) }, endpoints: [{ node: 'a' }] },
  {
    name: 'no tunnels',
    spec: { tunnelConfig: { Replicas: 0 }, ...one({}) },
    endpoints: [{ node: 'a' }],
    tunnels: false,
    problems: [/Replicas is 0: pool p has no tunnels; set it to 1/],
  },
  ...[3, -1, 'two'].map((Replicas) => ({
    name: `tunnelConfig.Replicas ${Replicas}`,
    spec: { tunnelConfig: { Replicas }, ...one({}) },
    endpoints: [{ node: 'a' }],
    problems: [/Replicas .* is neither 0 nor 1: taken as 1/],
  })),
  {
    name: 'what Raven elected, of tunnels only; anything else in the status is none of ours',
    status: { activeEndpoints: [tunnel('b'), { nodeName: 'a', type: 'proxy' }, { type: 'tunnel' }], nodes: 'x' },
    endpoints: [],
    elected: ['b'],
  },
  { name: 'a status that is none', status: { activeEndpoints: 'b' }, endpoints: [] },
]

for (const { name, spec, status, endpoints, tunnels = true, elected = [], problems = [] } of rows)
  t.test(name, async (t) => {
    const found: PoolProblem[] = []
    const object = { ...(spec && { spec }), ...(status && { status }) } as RavenGateway
    const reading = readGateway('p', ['a', 'b'], spec || status ? object : undefined, found)
    t.strictSame(reading, { endpoints, tunnels, elected })
    t.equal(found.length, problems.length, found.map(({ message }) => message).join('\n'))
    for (const [i, pattern] of problems.entries()) {
      t.match(found[i]?.message, pattern)
      t.match(found[i]?.message, /^Gateway p: .*; (correct|set)/, 'says whose and what to do')
    }
  })
