import t from 'tap'
import { remediesOf, type OwnSide } from '../../gateway/path-remedies.ts'
import type { CandidateStatus, NatBehaviour, PathStatus } from '../../lib/status.ts'

const NOW = 1_700_000_000_000

const PORT_RESTRICTED = { mapping: 'endpoint-independent', filtering: 'address-and-port-dependent' } as const
const FULL_CONE = { mapping: 'endpoint-independent', filtering: 'endpoint-independent' } as const
const SYMMETRIC = { mapping: 'address-and-port-dependent', filtering: 'address-and-port-dependent' } as const
const FIREWALL = { mapping: 'none', filtering: 'address-and-port-dependent' } as const
const BLOCKED: NatBehaviour = { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }

const nat = (behaviour: Pick<NatBehaviour, 'mapping' | 'filtering'>, mapped: string): NatBehaviour => ({
  ...behaviour,
  udp: 'open',
  mapped,
})
const HERE = '198.18.1.2:61001'
const THERE = '198.18.2.2:40112'

const own = (behaviour: NatBehaviour, ...ipv6: readonly string[]): OwnSide => ({
  node: 'north1',
  pool: 'north',
  nat: behaviour,
  relay: { url: 'https://203.0.113.10', state: 'connected', since: NOW },
  candidates: ['192.168.1.11:51820', ...ipv6].map((address) => ({ kind: 'host', address })),
  wireguardPort: 51820,
})
const path = (peerNat: NatBehaviour, more: Partial<PathStatus> = {}): PathStatus => ({
  pool: 'south',
  node: 'south1',
  rung: 'relay-udp',
  since: NOW - 60_000,
  reason: '',
  candidates: [host('silent')],
  peerNat,
  ...more,
})
const host = (outcome: NonNullable<CandidateStatus['outcome']>, address = '192.168.2.11:40112'): CandidateStatus => ({
  kind: 'host',
  address,
  result: '',
  outcome,
})

const HERE_FORWARDS = 'on the router of north, forward UDP port 61001 of 198.18.1.2 to 192.168.1.11 port 51820'
const THERE_FORWARDS = 'on the router of south, forward UDP port 40112 of 198.18.2.2 to 192.168.2.11 port 40112'
const HERE_BY_OBJECT =
  'on the router of north, forward a UDP port to 192.168.1.11 port 51820, and write it into Gateway north as publicIP and publicPort of north1'
const pcp = (routers: string): string =>
  `turn on PCP or NAT-PMP on the router of ${routers}: the gateway there has it forward a port by itself`
const IPV6 = 'give north1 at north and south1 at south public IPv6'
const FOR_RELAY_UDP =
  'for relay-udp, let UDP through between both sites and the ports that `fulmar status` names on the relay'

const rows: readonly [name: string, own: OwnSide, path: PathStatus, steps: readonly string[], need?: 'all'][] = [
  ['direct', own(nat(FULL_CONE, HERE)), path(nat(FULL_CONE, THERE), { rung: 'direct' }), []],
  ['cold', own(nat(SYMMETRIC, HERE)), path(nat(SYMMETRIC, THERE), { rung: 'cold' }), []],
  ['not tried yet', own(nat(FULL_CONE, HERE)), path(nat(FULL_CONE, THERE), { candidates: [host('untried')] }), []],
  [
    'symmetric here',
    own(nat(SYMMETRIC, HERE)),
    path(nat(PORT_RESTRICTED, THERE)),
    [THERE_FORWARDS, HERE_BY_OBJECT, pcp('south or north'), IPV6],
  ],
  [
    'over TCP for long',
    own(nat(SYMMETRIC, HERE)),
    path(nat(PORT_RESTRICTED, THERE), { rung: 'relay-tcp' }),
    [THERE_FORWARDS, HERE_BY_OBJECT, pcp('south or north'), IPV6, FOR_RELAY_UDP],
  ],
  [
    'over TCP just now',
    own(nat(SYMMETRIC, HERE)),
    path(nat(PORT_RESTRICTED, THERE), { rung: 'relay-tcp', since: NOW - 1000 }),
    [THERE_FORWARDS, HERE_BY_OBJECT, pcp('south or north'), IPV6],
  ],
  [
    'symmetric there, a firewall here, IPv6 here only',
    own(nat(FIREWALL, '203.0.113.7:51820'), '[2001:db8::7]:51820'),
    path(nat(SYMMETRIC, THERE)),
    [
      'in the firewall of north, let UDP in to 203.0.113.7:51820',
      'on the router of south, forward a UDP port to 192.168.2.11 port 40112, and write it into Gateway south as publicIP and publicPort of south1',
      pcp('south'),
      'give south1 at south public IPv6, which north has',
    ],
  ],
  ['no answer yet', own(nat(PORT_RESTRICTED, HERE)), path(nat(PORT_RESTRICTED, THERE), { since: NOW - 5_000 }), []],
  [
    'nothing known, no answer',
    own(nat(PORT_RESTRICTED, HERE)),
    path(nat(PORT_RESTRICTED, THERE)),
    [
      'let UDP through between 198.18.1.2:61001 and 198.18.2.2:40112 in the firewalls of north and south',
      HERE_FORWARDS,
      THERE_FORWARDS,
      pcp('north or south'),
      IPV6,
    ],
  ],
  [
    'probes pass, WireGuard does not',
    own(nat(FULL_CONE, HERE)),
    path(nat(FULL_CONE, THERE), { candidates: [host('silent', '10.0.0.1:5'), host('refused')] }),
    [
      'let UDP through between 192.168.1.11 port 51820 and 192.168.2.11:40112 whatever is in it, and up to 1500 bytes: probes pass, WireGuard does not',
    ],
  ],
  [
    'one NAT',
    own({ ...nat(PORT_RESTRICTED, HERE), hairpin: false }),
    path(nat(PORT_RESTRICTED, '198.18.1.2:9')),
    [
      'let 192.168.1.11 port 51820 and 192.168.2.11 port 40112 reach each other behind their common NAT',
      'turn on hairpinning (NAT loopback) on that NAT, 198.18.1.2',
      IPV6,
    ],
  ],
  [
    'its router forwards a port, and nothing comes through',
    own(nat(SYMMETRIC, HERE)),
    path(nat(SYMMETRIC, THERE), {
      candidates: [host('silent'), { ...host('silent'), kind: 'mapped', address: '100.64.0.9:40112' }],
    }),
    [
      HERE_BY_OBJECT,
      'have 100.64.0.9:40112, which the router of south forwards, let through by what stands before that router, too',
      pcp('north'),
      IPV6,
    ],
  ],
  [
    'UDP is blocked here',
    own(BLOCKED),
    path(nat(PORT_RESTRICTED, THERE), { rung: 'relay-tcp' }),
    [
      'in the firewall of north, let UDP out from 192.168.1.11 port 51820: to the relay for relay-udp, to 198.18.2.2:40112 for a direct path',
    ],
    'all',
  ],
  [
    'UDP is blocked at both',
    own(BLOCKED),
    path(BLOCKED, { rung: 'relay-tcp' }),
    [
      'in the firewall of north, let UDP out from 192.168.1.11 port 51820: to the relay for relay-udp, to its peers for a direct path',
      'in the firewall of south, let UDP out from 192.168.2.11 port 40112: to the relay for relay-udp, to its peers for a direct path',
    ],
    'all',
  ],
  [
    'never announced',
    own(nat(FULL_CONE, HERE)),
    path(BLOCKED, { rung: 'none' }),
    ['see that fulmar gateway runs on south1, and let it reach the relay: TCP to 203.0.113.10:443'],
  ],
  [
    'no relay here',
    { ...own(nat(FULL_CONE, HERE)), relay: { url: 'https://[2001:db8::1]:8443', state: 'connecting', since: NOW } },
    path(BLOCKED, { rung: 'none' }),
    ['let north1 reach the relay: TCP to [2001:db8::1]:8443'],
  ],
]
for (const [name, side, status, steps, need = 'one'] of rows)
  t.strictSame(remediesOf(side, status, NOW), steps.length === 0 ? undefined : { need, steps }, name)
