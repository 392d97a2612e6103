import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { applied, planChanges } from '../../agent/nft-changes.ts'
import { markerOf, renderChanges, renderTable } from '../../agent/nft-text.ts'
import { rulesetOf } from '../../agent/nft.ts'
import { hereOf } from '../../agent/topology.ts'
import { ruleset, takeover } from './rulesets.ts'

const golden = `add table ip fulmar
delete table ip fulmar
table ip fulmar {
  chain layout-x-1 {
  }
  map takeover {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; flags timeout
    elements = {
      10.96.0.10 . udp . 53 timeout 3s : 169.254.20.53 . 53,
      10.96.0.10 . tcp . 53 timeout 3s : 169.254.20.53 . 53
    }
  }
  map services {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {
      10.96.0.2 . sctp . 7 : goto refuse,
      10.96.0.1 . tcp . 80 : goto class-2,
      10.96.0.1 . udp . 81 : goto refuse
    }
  }
  set cluster-ips {
    type ipv4_addr
    elements = {
      10.96.0.2,
      10.96.0.1
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
  map endpoints-2 {
    typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport
    elements = {
      10.96.0.1 . tcp . 80 . 0 : 10.244.1.4 . 8080,
      10.96.0.1 . tcp . 80 . 1 : 10.244.1.5 . 8080
    }
  }
  chain class-2 {
    dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain nat-prerouting {
    type nat hook prerouting priority -101
    dnat ip addr . port to ip daddr . meta l4proto . th dport map @takeover
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr @cluster-ips goto refuse
  }
  chain nat-output {
    type nat hook output priority -101
    dnat ip addr . port to ip daddr . meta l4proto . th dport map @takeover
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr @cluster-ips goto refuse
  }
  chain nat-postrouting {
    type nat hook postrouting priority 99
    ct status dnat ct original ip daddr @cluster-ips goto source
  }
  chain source {
    ip saddr . ip daddr @hairpin masquerade fully-random
    ip saddr @mesh return
    ip daddr @remote snat to 10.244.1.1
    fib saddr type != local masquerade fully-random
  }
}`

t.test('the whole table', async (t) => {
  t.equal(renderTable(ruleset([4, 5]), 'layout-x-1', [takeover, { ...takeover, family: 6 }]), golden)
})

t.test('without podCIDRs nobody is taken for an outsider', async (t) => {
  const cluster = clusterOf({
    services: [],
    slices: [],
    nodes: [{ metadata: { name: 'h1' } }],
    nodePools: [],
    gateways: [],
  })
  const unknown = rulesetOf(cluster, 4, { here: hereOf(cluster, 'h1'), sources: [] })
  t.notMatch(renderTable(unknown, 'x', []), 'fib saddr')
  t.not(markerOf(unknown, 1), markerOf(ruleset([], undefined), 1))
})

t.test('changes', async (t) => {
  const rows: readonly { name: string; from: number[]; to: number[]; transactions: readonly (readonly string[])[] }[] =
    [
      { name: 'nothing', from: [4, 5], to: [4, 5], transactions: [] },
      {
        name: 'another endpoint: its class is there before, the old one until after',
        from: [4],
        to: [4, 5],
        transactions: [
          [
            'add map ip fulmar endpoints-2 { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; }',
            'add chain ip fulmar class-2',
            'add rule ip fulmar class-2 dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2',
            'delete element ip fulmar services { 10.96.0.1 . tcp . 80 }',
            'add element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-2 }',
            'add element ip fulmar hairpin { 10.244.1.5 . 10.244.1.5 }',
            'add element ip fulmar endpoints-2 { 10.96.0.1 . tcp . 80 . 0 : 10.244.1.4 . 8080, 10.96.0.1 . tcp . 80 . 1 : 10.244.1.5 . 8080 }',
          ],
          ['delete element ip fulmar endpoints-1 { 10.96.0.1 . tcp . 80 . 0 }'],
        ],
      },
      {
        name: 'an endpoint is replaced',
        from: [4, 5],
        to: [4, 6],
        transactions: [
          [
            'delete element ip fulmar hairpin { 10.244.1.5 . 10.244.1.5 }',
            'delete element ip fulmar endpoints-2 { 10.96.0.1 . tcp . 80 . 1 }',
            'add element ip fulmar hairpin { 10.244.1.6 . 10.244.1.6 }',
            'add element ip fulmar endpoints-2 { 10.96.0.1 . tcp . 80 . 1 : 10.244.1.6 . 8080 }',
          ],
        ],
      },
      {
        name: 'the last endpoint goes',
        from: [4],
        to: [],
        transactions: [
          [
            'delete element ip fulmar services { 10.96.0.1 . tcp . 80 }',
            'delete element ip fulmar hairpin { 10.244.1.4 . 10.244.1.4 }',
            'add element ip fulmar services { 10.96.0.1 . tcp . 80 : goto refuse }',
          ],
          ['delete element ip fulmar endpoints-1 { 10.96.0.1 . tcp . 80 . 0 }'],
        ],
      },
    ]
  for (const { name, from, to, transactions } of rows)
    t.strictSame(renderChanges(4, planChanges(ruleset(from), ruleset(to))!), transactions, name)

  t.equal(planChanges(ruleset([4]), ruleset([4], '10.244.1.254')), undefined, 'rules that differ are written anew')
  const kept = applied(ruleset([4]), ruleset([]))
  t.strictSame(planChanges(kept, ruleset([4]))!.created, [], 'a class that was used before is still there')
})
