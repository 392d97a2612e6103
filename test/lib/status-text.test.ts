import t from 'tap'
import type {
  AgentStatus,
  GatewayStatus,
  MetadataStatus,
  NatBehaviour,
  PathStatus,
  RelayStatus,
} from '../../lib/status.ts'
import { renderStatus } from '../../lib/status-text.ts'

const NOW = Date.UTC(2026, 4, 1, 3, 0, 0)
const SECOND = 1000
const MINUTE = 60 * SECOND

const fresh: MetadataStatus = {
  source: 'cloud',
  server: 'https://203.0.113.10:443',
  updatedAt: NOW - 2 * SECOND,
  objects: { nodes: 6, services: 12 },
}
const portRestricted: NatBehaviour = {
  mapping: 'endpoint-independent',
  filtering: 'address-and-port-dependent',
  udp: 'open',
  mapped: '198.18.1.2:51820',
}
const path = (pool: string, more: Partial<PathStatus> = {}): PathStatus => ({
  pool,
  node: `${pool}1`,
  rung: 'direct',
  since: NOW - 3 * MINUTE - 12 * SECOND,
  rttMs: 12.44,
  reason: '',
  ...(more.rung === undefined ? { endpoint: '198.18.2.2:40112' } : {}),
  candidates: [],
  ...more,
})
const gateway = (pool: string, paths: readonly PathStatus[], more: Partial<GatewayStatus> = {}): GatewayStatus => ({
  kind: 'gateway',
  version: '0.1.0',
  node: `${pool}1`,
  pool,
  startedAt: NOW - 5 * MINUTE,
  relay: { url: 'https://203.0.113.10:443', state: 'connected', since: NOW - 4 * MINUTE },
  wireguard: { implementation: 'wireguard-go', publicKey: 'k', port: 51820 },
  nat: portRestricted,
  paths,
  problems: [],
  metadata: fresh,
  ...more,
})
const agent = (node: string, pool: string, more: Partial<AgentStatus> = {}): AgentStatus => ({
  kind: 'agent',
  version: '0.1.0',
  node,
  pool,
  startedAt: NOW - 5 * MINUTE,
  dns: { addresses: ['169.254.20.53'], queries: 1, takeover: ['10.96.0.10'] },
  services: { count: 12, endpoints: 31, path: 'nft' },
  gateway: undefined,
  problems: [],
  metadata: fresh,
  ...more,
})
const relay: RelayStatus = {
  kind: 'relay',
  version: '0.1.0',
  startedAt: NOW - 6 * MINUTE,
  stun: { addresses: ['203.0.113.10:3478', '203.0.113.11:3478'], requests: 40 },
  sessions: [
    { node: 'sylt1', kind: 'packets', address: '198.18.2.2:33012', since: NOW - 4 * MINUTE },
    { node: 'sylt1', kind: 'signal', address: '198.18.2.2:33010', since: NOW - 4 * MINUTE },
    { node: 'hamburg1', kind: 'signal', address: '198.18.1.2:41000', since: NOW - MINUTE },
  ],
  packets: { forwarded: 120, bytes: 51_000, overKeepalive: 100, dropped: 1, pairs: [] },
  udpRelay: {
    forwarder: 'kernel',
    addresses: ['203.0.113.10', '2001:db8:1::10'],
    ports: '40000-49999',
    sessions: [{ nodes: ['sylt1', 'hamburg1'], ready: true, bound: [] }],
    forwarded: 7000,
    bytes: 5_000_000,
    unbound: 3,
    lost: 0,
    problems: [],
  },
  manifests: { directory: '/etc/fulmar', objects: 40, problems: ['shop.yaml:12: not YAML'] },
}

const GOLDEN_ONE_NODE = `3 problems
  hamburg1 gateway: no session to the relay https://203.0.113.10:443 for 1m30s: connect ETIMEDOUT
  hamburg1 gateway: no path to pool kiel for 30s: its gateway has no session to the relay
  hamburg1 gateway, hamburg1 agent: works from what is on disk, since nothing comes from
    https://203.0.113.10:443: connect ETIMEDOUT

Agents
  NODE      POOL     UP     GATEWAY  SERVICES          DNS                      QUERIES  METADATA
  hamburg1  hamburg  5m00s  itself   12, 31 endpoints  169.254.20.53, cluster         1  disk, 2h00m
                                                       DNS

Gateways
  NODE      POOL     UP     WIREGUARD     RELAY             NAT          SEEN AT  METADATA
  hamburg1  hamburg  5m00s  wireguard-go  connecting 1m30s  UDP blocked  -        disk, 2h00m

Paths
  POOLS           PATH       GATEWAYS          SINCE      RTT  LOSS  PEER AT
  hamburg → kiel  none       hamburg1 → kiel1  30s          -     -  -
      why         its gateway has no session to the relay
  hamburg → sylt  relay-tcp  hamburg1 → sylt1  3m12s  48.1 ms   2 %  -
      why         no probe came back from any of 2 candidates
      tried at sylt
        192.168.2.11:40112  host       no answer to 40 probes
        198.18.2.2:40112    reflexive  no answer to 40 probes
      last moves of hamburg → sylt
        3m12s ago  relay-tcp  direct answered no echo for 812 ms
      for a better path
        - in the firewall of hamburg, let UDP out from 192.168.1.11 port 51820
`
const GOLDEN_MESH = `3 problems
  sylt2 agent: does not answer: it was killed and left its socket
  sylt1 gateway, kiel1 gateway: pools sylt and kiel both claim 10.244.3.0/24; neither gets it
    (nodes sylt2, kiel1)
  cloud relay: shop.yaml:12: not YAML

Agents
  NODE      POOL     UP     GATEWAY   SERVICES          DNS                     QUERIES  METADATA
  hamburg2  hamburg  5m00s  hamburg1  12, 31 endpoints  169.254.20.53, cluster        1  cloud, 2.0s
                                                        DNS

Gateways
  NODE      POOL     UP     WIREGUARD     RELAY  NAT              SEEN AT           METADATA
  hamburg1  hamburg  5m00s  wireguard-go  4m00s  port restricted  198.18.1.2:51820  cloud, 2.0s
  kiel1     kiel     5m00s  wireguard-go  4m00s  port restricted  198.18.1.2:51820  cloud, 2.0s
  sylt1     sylt     5m00s  wireguard-go  4m00s  port restricted  198.18.1.2:51820  cloud, 2.0s

Paths
  POOLS           PATH       GATEWAYS          SINCE      RTT  LOSS  PEER AT
  hamburg → kiel  direct     hamburg1 → kiel1  3m12s  12.4 ms     -  198.18.2.2:40112
  kiel → hamburg  relay-tcp  kiel1 → hamburg1  3m12s  30.0 ms     -  -
      validating the direct path
  hamburg ↔ sylt  direct     hamburg1 ↔ sylt1  3m00s  12.4 ms     -  198.18.2.2:40112
  fulmar paths POOL, on the node of a gateway, tells the whole story of a pair

Relay on cloud
  up 6m00s
  STUN on 203.0.113.10:3478 203.0.113.11:3478, 40 requests
  120 packets relayed (51.0 kB), 100 of them more than keepalives, 1 dropped
  UDP sessions by the kernel on 203.0.113.10 2001:db8:1::10 ports 40000-49999; 1 open, 1 of them
    bound at both ends; 7000 packets (5.0 MB), 3 dropped from where nobody is bound
  40 objects from /etc/fulmar
  SESSION OF  KIND     ADDRESS           SINCE
  hamburg1    signal   198.18.1.2:41000  1m00s
  sylt1       signal   198.18.2.2:33010  4m00s
  sylt1       packets  198.18.2.2:33012  4m00s
`

t.test('one node at 3 a.m., the cloud is gone and UDP is blocked', async (t) => {
  const blocked = path('sylt', {
    rung: 'relay-tcp',
    rttMs: 48.1,
    loss: 0.02,
    history: [{ at: NOW - 3 * MINUTE - 12 * SECOND, rung: 'relay-tcp', why: 'direct answered no echo for 812 ms' }],
    remedies: { need: 'all', steps: ['in the firewall of hamburg, let UDP out from 192.168.1.11 port 51820'] },
    reason: 'no probe came back from any of 2 candidates',
    candidates: [
      { address: '192.168.2.11:40112', kind: 'host', result: 'no answer to 40 probes' },
      { address: '198.18.2.2:40112', kind: 'reflexive', result: 'no answer to 40 probes' },
    ],
  })
  const none = path('kiel', {
    rung: 'none',
    since: NOW - 30 * SECOND,
    reason: 'its gateway has no session to the relay',
  })
  delete (none as { rttMs?: number }).rttMs
  const offline: MetadataStatus = {
    ...fresh,
    source: 'disk',
    updatedAt: NOW - 2 * 60 * MINUTE,
    error: 'connect ETIMEDOUT',
  }
  const statuses = [
    {
      host: 'hamburg1',
      status: gateway('hamburg', [blocked, none], {
        nat: { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' },
        relay: {
          url: 'https://203.0.113.10:443',
          state: 'connecting',
          since: NOW - 90 * SECOND,
          error: 'connect ETIMEDOUT',
        },
        metadata: offline,
      }),
    },
    { host: 'hamburg1', status: agent('hamburg1', 'hamburg', { metadata: offline }) },
  ]
  t.equal(renderStatus(statuses, NOW), GOLDEN_ONE_NODE)
})

t.test('all hosts of a mesh: a pair whose ways are alike is one row, one that differs is two', async (t) => {
  const hamburg = gateway('hamburg', [path('sylt'), path('kiel')])
  const sylt = gateway('sylt', [path('hamburg', { since: NOW - 3 * MINUTE, endpoint: '198.18.1.2:51820' })])
  const kiel = gateway('kiel', [
    path('hamburg', { rung: 'relay-tcp', rttMs: 30, reason: 'validating the direct path' }),
  ])
  const conflict = 'pools sylt and kiel both claim 10.244.3.0/24; neither gets it (nodes sylt2, kiel1)'
  const statuses = [
    { host: 'sylt1', status: { ...sylt, problems: [conflict] } },
    { host: 'kiel1', status: { ...kiel, problems: [conflict] } },
    { host: 'hamburg1', status: hamburg },
    {
      host: 'hamburg2',
      status: agent('hamburg2', 'hamburg', { gateway: { node: 'hamburg1', address: '192.168.1.11' } }),
    },
    { host: 'cloud', status: relay },
  ]
  const silent = [{ host: 'sylt2', daemon: 'agent', reason: 'it was killed and left its socket' }]
  t.equal(renderStatus(statuses, NOW, silent), GOLDEN_MESH)
})

t.test('many relayed pairs: the reason only, and where there is more', async (t) => {
  const paths = ['b', 'c', 'd', 'e', 'f'].map((pool) =>
    path(pool, { rung: 'relay-tcp', reason: `UDP is blocked at ${pool}`, candidates: [] }),
  )
  const text = renderStatus([{ host: 'a1', status: gateway('a', paths) }], NOW)
  t.match(text, /\n {6}UDP is blocked at f\n  fulmar paths POOL, on the node/)
})

t.test('a cold pair is not explained', async (t) => {
  const cold = path('b', { rung: 'cold', reason: 'no traffic', candidates: [] })
  t.match(renderStatus([{ host: 'a1', status: gateway('a', [cold]) }], NOW), /\n  a → b  cold .*\n$/)
})

t.test('why nft serves and not BPF', async (t) => {
  const services = {
    count: 12,
    endpoints: 31,
    path: 'nft',
    pathReason: 'no cgroup2 file system is mounted here',
  } as const
  const statuses = ['hamburg1', 'hamburg2'].map((node) => ({
    host: node,
    status: agent(node, 'hamburg', { services }),
  }))
  t.match(renderStatus(statuses, NOW), /hamburg1, hamburg2: services by nft, not by BPF: no cgroup2 file system/)
  t.notMatch(renderStatus([{ host: 'sylt1', status: agent('sylt1', 'sylt') }], NOW), /BPF/)
})

t.test('other service proxies', async (t) => {
  const services = { count: 12, endpoints: 31 }
  const why = 'Cilium replaces kube-proxy on this node (it runs cil_sock4_conne)'
  const statuses = [
    { node: 'hamburg1', services: { ...services, path: 'bpf', beside: ['kube-proxy (ipvs)', 'EdgeMesh'] } },
    { node: 'hamburg2', services: { ...services, path: 'none', pathReason: why, beside: ['Cilium'] } },
  ] as const
  const text = renderStatus(
    statuses.map(({ node, services }) => ({ host: node, status: agent(node, 'hamburg', { services }) })),
    NOW,
    [],
    200,
  )
  t.match(text, /\n {2}hamburg1: services by Fulmar first, beside kube-proxy \(ipvs\) and EdgeMesh\n/)
  t.match(
    text,
    /\n {2}hamburg2: services not by Fulmar: Cilium replaces kube-proxy on this node \(it runs cil_sock4_conne\)\n/,
  )
  t.notMatch(text, /beside Cilium/)
})

t.test('endpoints that are left out, and why', async (t) => {
  const suspect = {
    service: 'shop/web',
    portName: 'http',
    address: 'fd00:244:2::10',
    port: 8080,
    node: 'sylt2',
    reason: 'its node is silent',
    used: false,
  }
  const other = { ...suspect, address: '10.244.3.10', reason: 'it refuses connections', used: true }
  const statuses = ['sylt1', 'sylt3'].map((node) => ({
    host: node,
    status: agent(node, 'sylt', { suspects: node === 'sylt1' ? [suspect, other] : [suspect] }),
  }))
  const text = renderStatus(statuses, NOW, [], 200)
  t.match(
    text,
    /\n {2}sylt1, sylt3: shop\/web: endpoint \[fd00:244:2::10\]:8080 on sylt2 is left out: its node is silent\n/,
  )
  t.match(
    text,
    /\n {2}sylt1: shop\/web: endpoint 10\.244\.3\.10:8080 on sylt2 is used for want of a better one: it refuses/,
  )
})

t.test('several relays, of which one is gone', async (t) => {
  const [first, second] = ['https://203.0.113.10:443', 'https://203.0.113.12:443']
  const session = { url: first, state: 'connected', since: NOW - 5 * MINUTE, streams: 2 } as const
  const gone = { url: second, state: 'connecting', since: NOW - 3 * MINUTE, error: 'ECONNREFUSED' } as const
  const ops = { ...session, sessions: [session, { ...gone, streams: 0 }] }
  const statuses = [
    { host: 'cloud', status: { ...relay, replicas: [{ ...gone, nodes: 0 }] } },
    { host: 'hamburg1', status: agent('hamburg1', 'hamburg', { ops }) },
  ]
  const text = renderStatus(statuses, NOW, [], 200)
  t.match(text, /cloud relay: no session with the relay https:\/\/203.0.113.12:443 for 3m00s: ECONNREFUSED\n/)
  t.match(
    text,
    /hamburg1 agent: reached by kubectl over other relays only, without a session to https:.*12:443 for 3m00s/,
  )
  const back = { url: second, state: 'connected', since: NOW, nodes: 7 } as const
  const well = renderStatus([{ host: 'cloud', status: { ...relay, replicas: [back] } }], NOW, [], 200)
  t.match(well, /\n {2}https:\/\/203.0.113.12:443 reaches 7 nodes\n/)
})

t.test('nothing to tell', async (t) => {
  t.equal(renderStatus([], NOW), 'No problems\n')
  t.match(renderStatus([{ host: 'a1', status: gateway('a', []) }], NOW), /Paths\n  none: no other pool is known\n/)
})

t.test('roles are told while another gateway is heard, and after one was', (t) => {
  const role = { state: 'active', term: 1, since: NOW - MINUTE, standbys: [] } as const
  const text = (more: object): string =>
    renderStatus([{ host: 'h1', status: { ...gateway('hamburg', []), role: { ...role, ...more } } }], NOW)
  t.notMatch(text({}), /ROLE/)
  t.match(text({ standbys: ['h2'] }), /active, term 1, 1m00s/)
  t.match(text({ term: 2 }), /active, term 2, 1m00s/, 'the other one is dead')
  t.end()
})
