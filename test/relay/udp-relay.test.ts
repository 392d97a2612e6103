import t from 'tap'
import type { SocketAddress } from '../../lib/address.ts'
import {
  createPortPairs,
  droppingForwardChains,
  renderChange,
  renderTable,
  strayFlows,
  udpPlaces,
} from '../../relay/udp-relay.ts'

const PLACES = { 4: '203.0.113.10', 6: '2001:db8:1::10' }
const PORTS = { first: 40000, last: 40009 }
const A: SocketAddress = { address: '192.0.2.2', port: 5001, family: 4 }
const B: SocketAddress = { address: '198.51.100.2', port: 5002, family: 4 }
const STUN = '@th,64,16 0x0001 @th,96,32 0x2112a442'

const GOLDEN = `add table inet fulmar-relay
delete table inet fulmar-relay
table inet fulmar-relay {
  counter unbound { }
  counter begun { }
  counter passed { }
  set bound4 { type ipv4_addr . inet_service . inet_service; elements = { 192.0.2.2 . 5001 . 40002, 198.51.100.2 . 5002 . 40003 }; }
  map peer4 { type inet_service : ipv4_addr . inet_service; elements = { 40003 : 192.0.2.2 . 5001, 40002 : 198.51.100.2 . 5002 }; }
  map other4 { type inet_service : inet_service; elements = { 40002 : 40003, 40003 : 40002 }; }
  map mark4 { type inet_service : mark; elements = { 40002 : 0x46009c42, 40003 : 0x46009c42 }; }
  chain session-port {
    ${STUN} ct zone set 7077 accept
    @th,72,24 0 counter
  }
  chain first {
    type filter hook prerouting priority -310; policy accept;
    ip daddr 203.0.113.10 udp dport 40000-40009 goto session-port
  }
  chain to-peer {
    type nat hook prerouting priority -110; policy accept;
    ct zone 7077 accept
    ip daddr 203.0.113.10 ip saddr . udp sport . udp dport @bound4 ct mark set udp dport map @mark4 counter name begun dnat ip to udp dport map @peer4
    ip daddr 203.0.113.10 udp dport 40000-40009 counter name unbound drop
  }
  chain from-us {
    type nat hook postrouting priority 90; policy accept;
    meta nfproto ipv4 meta l4proto udp ct mark & 0xffff0000 == 0x46000000 counter name passed snat ip to 203.0.113.10 : ct original proto-dst map @other4
  }
  chain stun-in {
    type filter hook input priority 10; policy accept;
    ip daddr 203.0.113.10 udp dport 40000-40009 ${STUN} udp dport set 40000
  }
  chain stun-out {
    type filter hook output priority -310; policy accept;
    ip saddr 203.0.113.10 udp sport 40000 udp sport set @th,272,16 ct zone set 7077
  }
}
`
const bindings = new Map([
  [40002, A],
  [40003, B],
])
t.equal(renderTable({ 4: PLACES[4] }, PORTS, { 4: bindings, 6: new Map() }), GOLDEN)
t.same(
  renderChange(4, 40002, A, B),
  [
    'delete element inet fulmar-relay bound4 { 192.0.2.2 . 5001 . 40002 }',
    'delete element inet fulmar-relay peer4 { 40003 : 192.0.2.2 . 5001 }',
    'delete element inet fulmar-relay other4 { 40002 : 40003 }',
    'delete element inet fulmar-relay mark4 { 40002 : 0x46009c42 }',
    'add element inet fulmar-relay bound4 { 198.51.100.2 . 5002 . 40002 }',
    'add element inet fulmar-relay peer4 { 40003 : 198.51.100.2 . 5002 }',
    'add element inet fulmar-relay other4 { 40002 : 40003 }',
    'add element inet fulmar-relay mark4 { 40002 : 0x46009c42 }',
  ],
  'a side that moves',
)
t.same(renderChange(4, 40002, undefined, undefined), [])

t.test('pairs of ports', async (t) => {
  for (const [first, last, pairs] of [
    [40000, 40007, [40002, 40004, 40006]],
    [40001, 40008, [40002, 40004, 40006]],
    [40000, 40003, [40002]],
    [40000, 40002, []],
  ] as const) {
    const ports = createPortPairs({ first, last })
    t.equal(ports.total, pairs.length)
    t.same(
      pairs.map(() => ports.take()),
      pairs,
    )
    t.equal(ports.take(), undefined, 'no more')
  }
  const ports = createPortPairs({ first: 40000, last: 40007 })
  ports.free(ports.take()!)
  t.equal(ports.take(), 40004, 'a port that was given back rests')
})

const flow = (from: string, dport: number, more = 'mark=0') =>
  `udp      17 29 src=${from} dst=203.0.113.10 sport=5001 dport=${dport} [UNREPLIED] src=203.0.113.10 dst=${from} sport=${dport} dport=5001 ${more} use=1`
const listing = [
  flow('192.0.2.2', 40002),
  flow('192.0.2.3', 40002, `mark=${0x46009c42}`),
  flow('192.0.2.4', 40002, `mark=${0xc6009c42}`),
  flow('192.0.2.5', 40002, 'mark=0 zone=7077'),
  flow('192.0.2.6', 53),
  flow('192.0.2.7', 40002).replaceAll('203.0.113.10', '203.0.113.11'),
  'udp 17 29 src=203.0.113.10 dst=9.9.9.9 sport=40002 dport=53 src=9.9.9.9 dst=203.0.113.10 sport=53 dport=40002 mark=0 use=1',
  '',
].join('\n')
t.same(
  strayFlows(listing, PLACES, PORTS).map(({ source, port }) => `${source.address} ${port}`),
  ['192.0.2.2 40002', '192.0.2.4 40002'],
  'flows to us that are neither sessions nor STUN nor of this host’s own making',
)

const chains = [
  { family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward', policy: 'drop' },
  { family: 'ip', table: 'filter', name: 'INPUT', hook: 'input', policy: 'drop' },
  { family: 'inet', table: 'own', name: 'f', hook: 'forward', policy: 'accept' },
  { family: 'inet', table: 'own', name: 'called' },
]
t.same(droppingForwardChains(JSON.stringify({ nftables: chains.map((chain) => ({ chain })) })), ['ip filter FORWARD'])

const places: readonly (readonly [string, string[], string[], object])[] = [
  ['the first of STUN', ['203.0.113.10', '203.0.113.11', '2001:db8:1::10'], [], PLACES],
  ['one of the public ones', [], ['relay.example', '198.51.100.1', '203.0.113.11'], { 4: '203.0.113.11' }],
  ['all addresses are none', ['0.0.0.0'], ['203.0.113.10'], { 4: '203.0.113.10' }],
  ['none of ours', ['198.51.100.1'], ['198.51.100.1'], {}],
]
for (const [name, stun, publicHosts, expected] of places)
  t.same(udpPlaces({ stun, public: publicHosts }, ['203.0.113.10', '203.0.113.11', '2001:db8:1::10']), expected, name)
