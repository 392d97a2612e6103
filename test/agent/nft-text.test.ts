import t from 'tap'
import { planChanges } from '../../agent/nft-changes.ts'
import { markerOf, renderTable } from '../../agent/nft-text.ts'
import { edge, loadedBy, ruleset, sticky } from './rulesets.ts'

const golden = `add table ip fulmar
delete table ip fulmar
table ip fulmar {
  chain layout-x-1 {
  }
  map services {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
      10.96.0.3 . tcp . 80 : goto class-2,
      203.0.113.1 . tcp . 80 : goto restricted-policy,
      10.96.0.2 . sctp . 7 : goto refuse,
      10.96.0.4 . tcp . 80 : goto affinity-3032d627ad0f8e83,
      10.96.0.1 . tcp . 80 : goto class-2,
      10.96.0.1 . udp . 81 : goto refuse
    }
  }
  map inside {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
      203.0.113.1 . tcp . 80 : goto inside-class-2
    }
  }
  map outside {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
      203.0.113.1 . tcp . 80 : goto class-1
    }
  }
  map restricted {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
      203.0.113.1 . tcp . 80 : goto local-policy
    }
  }
  set source-ranges {
    typeof ip daddr . meta l4proto . th dport . ip saddr; flags interval
    elements = {
      203.0.113.1 . tcp . 80 . 198.51.100.0/24
    }
  }
  set cluster-ips {
    type ipv4_addr
    elements = {
      10.96.0.3,
      10.96.0.2,
      10.96.0.4,
      10.96.0.1
    }
  }
  map node-ports {
    type inet_proto . inet_service : verdict
    elements = {
      tcp . 30080 : goto node-local-policy,
      tcp . 30081 : goto affinity-d32de5cee66d5dad
    }
  }
  map node-inside {
    type inet_proto . inet_service : verdict
    elements = {
      tcp . 30080 : goto node-inside-class-2
    }
  }
  map node-outside {
    type inet_proto . inet_service : verdict
    elements = {
      tcp . 30080 : goto node-class-1
    }
  }
  set node-addresses {
    type ipv4_addr
    elements = {
      192.168.1.1
    }
  }
  set hairpin {
    typeof ip saddr . ip daddr
    elements = {
      10.244.1.4 . 10.244.1.4,
      10.244.1.5 . 10.244.1.5
    }
  }
  set mesh {
    type ipv4_addr; flags interval
    elements = {
      10.244.1.0/24,
      10.244.2.0/24
    }
  }
  set remote {
    type ipv4_addr; flags interval
    elements = {
      10.244.2.0/24
    }
  }
  set own-pods {
    type ipv4_addr; flags interval
    elements = {
      10.244.1.0/24
    }
  }
  map endpoints-2 {
    typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
    elements = {
      10.96.0.3 . tcp . 80 . 0 : 10.244.1.4 . 8080,
      10.96.0.3 . tcp . 80 . 1 : 10.244.1.9 . 8080,
      10.96.0.1 . tcp . 80 . 0 : 10.244.1.4 . 8080,
      10.96.0.1 . tcp . 80 . 1 : 10.244.1.5 . 8080
    }
  }
  chain class-2 {
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2
  }
  chain masq-2 {
    ip saddr != @own-pods meta mark set meta mark | 0x4000
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2
  }
  map endpoints-1 {
    typeof ip daddr . meta l4proto . th dport . numgen random mod 1 : ip daddr . th dport
    elements = {
      203.0.113.1 . tcp . 80 . 0 : 10.244.1.4 . 8080
    }
  }
  chain class-1 {
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints-1
  }
  chain masq-1 {
    ip saddr != @own-pods meta mark set meta mark | 0x4000
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints-1
  }
  map inside-endpoints-2 {
    typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
    elements = {
      203.0.113.1 . tcp . 80 . 0 : 10.244.1.4 . 8080,
      203.0.113.1 . tcp . 80 . 1 : 10.244.1.9 . 8080
    }
  }
  chain inside-class-2 {
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @inside-endpoints-2
  }
  map node-endpoints-1 {
    typeof meta l4proto . th dport . numgen random mod 1 : ip daddr . th dport
    elements = {
      tcp . 30080 . 0 : 10.244.1.4 . 8080
    }
  }
  chain node-class-1 {
    dnat ip addr . port to meta l4proto . th dport . numgen random mod 1 map @node-endpoints-1
  }
  chain node-masq-1 {
    ip saddr != @own-pods meta mark set meta mark | 0x4000
    dnat ip addr . port to meta l4proto . th dport . numgen random mod 1 map @node-endpoints-1
  }
  map node-inside-endpoints-2 {
    typeof meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
    elements = {
      tcp . 30080 . 0 : 10.244.1.4 . 8080,
      tcp . 30080 . 1 : 10.244.1.9 . 8080
    }
  }
  chain node-inside-class-2 {
    dnat ip addr . port to meta l4proto . th dport . numgen random mod 2 map @node-inside-endpoints-2
  }
  set sticky-58e6342573645b2d {
    type ipv4_addr; flags dynamic,timeout; timeout 10800s
  }
  set sticky-5a079322ee9baebe {
    type ipv4_addr; flags dynamic,timeout; timeout 10800s
  }
  chain to-58e6342573645b2d {
    update @sticky-58e6342573645b2d { ip saddr }
    meta l4proto tcp dnat to 10.244.1.4:8080
  }
  chain to-5a079322ee9baebe {
    update @sticky-5a079322ee9baebe { ip saddr }
    meta l4proto tcp dnat to 10.244.1.5:8080
  }
  chain affinity-3032d627ad0f8e83 {
    ip saddr @sticky-58e6342573645b2d goto to-58e6342573645b2d
    ip saddr @sticky-5a079322ee9baebe goto to-5a079322ee9baebe
    numgen random mod 2 vmap { 0 : goto to-58e6342573645b2d, 1 : goto to-5a079322ee9baebe }
  }
  chain affinity-d32de5cee66d5dad {
    ip saddr != @own-pods meta mark set meta mark | 0x4000
    ip saddr @sticky-58e6342573645b2d goto to-58e6342573645b2d
    ip saddr @sticky-5a079322ee9baebe goto to-5a079322ee9baebe
    numgen random mod 2 vmap { 0 : goto to-58e6342573645b2d, 1 : goto to-5a079322ee9baebe }
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain local-policy {
    ip saddr @own-pods ip daddr . meta l4proto . th dport vmap @inside
    fib saddr type local meta mark set meta mark | 0x4000 ip daddr . meta l4proto . th dport vmap @inside
    ip daddr . meta l4proto . th dport vmap @outside
  }
  chain node-local-policy {
    ip saddr @own-pods meta l4proto . th dport vmap @node-inside
    fib saddr type local meta mark set meta mark | 0x4000 meta l4proto . th dport vmap @node-inside
    meta l4proto . th dport vmap @node-outside
  }
  chain restricted-policy {
    ip daddr . meta l4proto . th dport . ip saddr @source-ranges ip daddr . meta l4proto . th dport vmap @restricted
    drop
  }
  chain nat-prerouting {
    type nat hook prerouting priority -101
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr @cluster-ips goto refuse
    ip daddr @node-addresses meta l4proto . th dport vmap @node-ports
  }
  chain nat-output {
    type nat hook output priority -101
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr @cluster-ips goto refuse
    ip daddr @node-addresses meta l4proto . th dport vmap @node-ports
  }
  chain nat-postrouting {
    type nat hook postrouting priority 99
    ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
    meta mark & 0x4000 != 0 goto outside-source
    ct status dnat ct original ip daddr @cluster-ips goto source
  }
  chain source {
    ip saddr @mesh return
    ip daddr @remote snat to 10.244.1.1
    ip saddr @cluster-ips masquerade fully-random
    fib saddr type != local masquerade fully-random
  }
  chain outside-source {
    meta mark set meta mark & 0xffffbfff
    ip daddr @remote snat to 10.244.1.1
    masquerade fully-random
  }
}`

t.test('the whole table', async (t) => {
  const whole = ruleset({ endpoints: [4, 5], source: '10.244.1.1', services: [edge, sticky] })
  t.equal(renderTable(whole, 'layout-x-1').script, golden)
})

t.test('without podCIDRs nobody is taken for an outsider', async (t) => {
  const known = ruleset({ endpoints: [] })
  const unknown = { ...known, masqueradeOutsiders: false }
  t.notMatch(renderTable(unknown, 'x').script, 'fib saddr type != local')
  t.not(markerOf(unknown, 1), markerOf(known, 1))
})

t.test('addresses that no service has are dropped where the prefixes of ClusterIPs are known', async (t) => {
  const unknown = ruleset({ endpoints: [] })
  t.notMatch(renderTable(unknown, 'x').script, 'unallocated')
  const known = { ...unknown, serviceCidrs: ['10.96.0.0/12', '10.112.0.0/16'] }
  const rules = (hook: string, priority: number) => `  chain unallocated-${hook} {
    type filter hook ${hook} priority ${priority}
    ct state new ip daddr { 10.96.0.0/12, 10.112.0.0/16 } drop
  }
`
  t.match(renderTable(known, 'x').script, rules('forward', -110) + rules('output', -90))
  t.not(markerOf(unknown, 1), markerOf(known, 1))
  t.equal(planChanges(loadedBy(unknown), known), undefined, 'other rules are another table')
})
