import t from 'tap'
import { overlaysOf } from '../../agent/overlay.ts'
import { dropProblem, fateOf, isComplete, readDroppers, routeRulesOf, routeTable } from '../../agent/route-rules.ts'
import type { Pool } from '../../lib/k8s/pools.ts'

const node = (name: string, host: number) => ({
  name,
  addresses: [`192.168.1.1${host}`],
  podCidrs: [`10.244.${host}.0/24`, `fd00:244:${host}::/64`],
})
const pools: readonly Pool[] = [
  { name: 'cloud', nodes: [node('cloud', 0)], gateways: ['cloud'] },
  { name: 'hanover', nodes: [node('h1', 1), node('h2', 2)], gateways: ['h1'] },
]
const overlays = overlaysOf(
  pools[1]!.nodes[0]!,
  [pools[1]!.nodes[1]!],
  [{ device: 2, address: '192.168.1.11', length: 24 }],
  () => 1500,
)
const rules = routeRulesOf('h1', pools, overlays, 7080)

t.test('the table', (t) => {
  t.equal(
    routeTable(rules),
    `add table inet fulmar-routes
delete table inet fulmar-routes
table inet fulmar-routes {
  set own4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.1.0/24, 10.244.2.0/24 }; }
  set others4 { type ipv4_addr; flags interval; auto-merge; elements = { 10.244.0.0/24 }; }
  set peers4 { type ipv4_addr; flags interval; auto-merge; elements = { 192.168.1.12/32 }; }
  set own6 { type ipv6_addr; flags interval; auto-merge; elements = { fd00:244:1::/64, fd00:244:2::/64 }; }
  set others6 { type ipv6_addr; flags interval; auto-merge; elements = { fd00:244:0::/64 }; }
  set peers6 { type ipv6_addr; flags interval; auto-merge; }
  counter entered { }
  counter left { }
  chain keep-source {
    type nat hook postrouting priority srcnat - 1; policy accept;
    ip daddr @others4 ip saddr @own4 snat ip to ip saddr
    ip saddr @others4 ip daddr @own4 snat ip to ip saddr
    ip6 daddr @others6 ip6 saddr @own6 snat ip6 to ip6 saddr
    ip6 saddr @others6 ip6 daddr @own6 snat ip6 to ip6 saddr
  }
  chain clamp {
    type filter hook forward priority mangle; policy accept;
    tcp flags syn / syn,rst oifname { "fm-vxlan", "fm-vxlan6" } tcp option maxseg size set rt mtu
  }
  chain overlay-in {
    type filter hook input priority filter - 10; policy accept;
    udp dport 7080 ip saddr != @peers4 drop
    udp dport 7080 ip6 saddr != @peers6 drop
  }
  chain forward-first {
    type filter hook forward priority -400; policy accept;
    ct state new ip daddr @others4 ip saddr @own4 counter name entered
    ct state new ip saddr @others4 ip daddr @own4 counter name entered
    ct state new ip6 daddr @others6 ip6 saddr @own6 counter name entered
    ct state new ip6 saddr @others6 ip6 daddr @own6 counter name entered
  }
  chain forward-last {
    type filter hook forward priority 400; policy accept;
    ct state new ip daddr @others4 ip saddr @own4 counter name left
    ct state new ip saddr @others4 ip daddr @own4 counter name left
    ct state new ip6 daddr @others6 ip6 saddr @own6 counter name left
    ct state new ip6 saddr @others6 ip6 daddr @own6 counter name left
  }
}
`,
  )
  const alone = routeRulesOf('cloud', pools, [], 7080)
  t.notMatch(routeTable(alone), 'udp dport', 'no overlay, no port of ours')
  t.same(routeRulesOf('stranger', pools, [], 7080).own, [])
  t.notOk(isComplete('', rules))
  t.end()
})

t.test('whether others let pass what is between pools', (t) => {
  const at = (entered: number, left: number) => ({ entered, left })
  t.equal(fateOf(at(3, 3), at(3, 3)), undefined, 'nothing began')
  t.equal(fateOf(at(3, 3), at(9, 4)), 'passed', 'a NetworkPolicy may drop some')
  t.equal(fateOf(at(3, 3), at(9, 3)), 'dropped')

  const chain = (family: string, table: string, name: string, more = {}) => ({
    chain: { family, table, name, ...more },
  })
  const forward = { hook: 'forward', type: 'filter', prio: 0 }
  const droppers = readDroppers(
    JSON.stringify({
      nftables: [
        { metainfo: {} },
        chain('ip', 'filter', 'FORWARD', { ...forward, policy: 'drop' }),
        chain('ip', 'filter', 'DOCKER-USER'),
        chain('ip', 'filter', 'INPUT', { hook: 'input', policy: 'drop' }),
        chain('ip6', 'filter', 'FORWARD', { ...forward, policy: 'accept' }),
        chain('inet', 'firewall', 'forward', { ...forward, policy: 'drop' }),
      ],
    }),
  )
  t.equal(
    dropProblem(droppers, ['10.244.1.0/24', 'fd00:244:1::/64']),
    'forward rules of somebody else drop what pods of this pool and of others say to each other: ' +
      'chain FORWARD of ip filter (policy drop), chain forward of inet firewall (policy drop); accept it there: ' +
      [
        'nft insert rule ip filter DOCKER-USER ip saddr 10.244.1.0/24 accept',
        'nft insert rule ip filter DOCKER-USER ip daddr 10.244.1.0/24 accept',
        'nft insert rule inet firewall forward ip saddr 10.244.1.0/24 accept',
        'nft insert rule inet firewall forward ip daddr 10.244.1.0/24 accept',
        'nft insert rule inet firewall forward ip6 saddr fd00:244:1::/64 accept',
        'nft insert rule inet firewall forward ip6 daddr fd00:244:1::/64 accept',
      ].join('; '),
  )
  t.match(dropProblem([], ['10.244.1.0/24']), /; look for what does with nft list ruleset and iptables -S FORWARD/)
  t.end()
})
