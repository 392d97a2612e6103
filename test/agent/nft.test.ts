import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { deleteFlows, staleFlow, udpTargets } from '../../agent/conntrack.ts'
import { noticeOf, readTable } from '../../agent/nft-observed.ts'
import { endTakeover, markerOf, renderChanges, renderTable, renewTakeover } from '../../agent/nft-text.ts'
import { applied, planChanges, rulesetOf, type Ruleset } from '../../agent/nft.ts'
import { hereOf } from '../../agent/topology.ts'

const endpoint = (last: number) => ({ addresses: [`10.244.1.${last}`], nodeName: 'h1' })
/** A ruleset of one service with endpoints 10.244.1.x, and one without. */
function ruleset(endpoints: readonly number[], source: string | undefined = '10.244.1.1'): Ruleset {
  const cluster = clusterOf({
    services: [
      {
        metadata: { namespace: 'shop', name: 'web' },
        spec: {
          clusterIP: '10.96.0.1',
          ports: [
            { protocol: 'TCP', port: 80 },
            { name: 'q', protocol: 'UDP', port: 81 },
          ],
        },
      },
      {
        metadata: { namespace: 'shop', name: 'none' },
        spec: { clusterIP: '10.96.0.2', ports: [{ protocol: 'SCTP', port: 7 }] },
      },
    ],
    slices: [
      {
        metadata: { namespace: 'shop', name: 'web', labels: { 'kubernetes.io/service-name': 'web' } },
        addressType: 'IPv4',
        endpoints: endpoints.map(endpoint),
        ports: [{ protocol: 'TCP', port: 8080 }],
      },
    ],
    nodes: [
      { metadata: { name: 'h1' }, spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] } },
      { metadata: { name: 's1' }, spec: { podCIDRs: ['10.244.2.0/24'] } },
    ],
    nodePools: [],
    gateways: [],
  })
  return rulesetOf(cluster, 4, {
    here: hereOf(cluster, 'h1'),
    sources: source === undefined ? [] : [{ family: 4, address: source }],
  })
}

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

const takeover = { family: 4, clusterIp: '10.96.0.10', to: '169.254.20.53' } as const

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

t.test('a takeover is renewed whether it is there or not', async (t) => {
  t.strictSame(renewTakeover(takeover).slice(0, 3), [
    'add element ip fulmar takeover { 10.96.0.10 . udp . 53 timeout 3s : 169.254.20.53 . 53 }',
    'delete element ip fulmar takeover { 10.96.0.10 . udp . 53 }',
    'add element ip fulmar takeover { 10.96.0.10 . udp . 53 timeout 3s : 169.254.20.53 . 53 }',
  ])
  t.match(endTakeover(takeover).at(-1), /^delete element .* tcp . 53 }$/)
})

t.test('a table that a predecessor left', async (t) => {
  const wanted = ruleset([4, 5])
  const marker = markerOf(wanted, 7)
  const key = { concat: ['10.96.0.1', 'tcp', 80] }
  const listing = (rules: number, layout = marker): string =>
    JSON.stringify({
      nftables: [
        { metainfo: {} },
        { table: { family: 'ip', name: 'fulmar' } },
        { chain: { name: layout } },
        { map: { name: 'takeover', elem: [[{ elem: { val: key, timeout: 3 } }, key]] } },
        {
          map: {
            name: 'services',
            elem: [
              [key, { goto: { target: 'class-1' } }],
              [{ concat: ['10.96.0.3', 'udp', 9] }, { drop: null }],
            ],
          },
        },
        {
          map: {
            name: 'endpoints-1',
            elem: [[{ concat: ['10.96.0.1', 'tcp', 80, 0] }, { concat: ['10.244.1.9', 8080] }]],
          },
        },
        { set: { name: 'mesh', elem: [{ prefix: { addr: '10.244.1.0', len: 24 } }, '10.244.7.1'] } },
        { set: { name: 'cluster-ips' } },
        ...Array.from({ length: rules }, () => ({ rule: {} })),
      ],
    })
  const held = readTable(listing(14), wanted)
  t.strictSame(
    Object.fromEntries([...held!.ruleset.objects].map(([name, elements]) => [name, Object.fromEntries(elements)])),
    {
      services: { '10.96.0.1 . tcp . 80': 'goto class-1', '10.96.0.3 . udp . 9': 'drop' },
      'endpoints-1': { '10.96.0.1 . tcp . 80 . 0': '10.244.1.9 . 8080' },
      mesh: { '10.244.1.0/24': '', '10.244.7.1': '' },
      'cluster-ips': {},
    },
  )
  t.equal(held!.marker, marker)
  t.equal(readTable(listing(13), wanted), undefined, 'rules are missing')
  t.equal(readTable(listing(14, markerOf(ruleset([4], '10.244.1.2'), 7)), wanted), undefined, 'other rules')
  t.equal(readTable('', wanted), undefined, 'no table')
})

t.test('notices', async (t) => {
  const held = { ruleset: ruleset([4, 5]), marker: 'layout-a-2' }
  const rows: readonly (readonly [line: string, kind: string | undefined])[] = [
    ['delete chain ip fulmar layout-a-2', 'lost'],
    ['delete chain ip fulmar layout-a-1', 'replaced'],
    ['delete chain ip6 fulmar layout-a-2', undefined],
    ['delete rule ip fulmar nat-output handle 12', 'rules-gone'],
    ['delete rule ip other nat-output handle 12', undefined],
    ['delete element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-2 }', 'doubtful'],
    ['delete element ip fulmar services { 10.96.0.1 . tcp . 80 : goto class-1 }', undefined],
    ['delete element ip fulmar mesh { 10.244.2.0/24 }', 'doubtful'],
    ['delete element ip fulmar takeover { 10.96.0.10 . udp . 53 : 169.254.20.53 . 53 }', undefined],
    ['delete table ip fulmar', undefined],
    ['', undefined],
  ]
  for (const [line, kind] of rows) t.equal(noticeOf(line, [held])?.kind, kind, line)
  t.match(noticeOf(rows[5]![0], [held]), { command: 'get element ip fulmar services { 10.96.0.1 . tcp . 80 }' })
})

t.test('stale UDP flows', async (t) => {
  const objects = new Map([
    [
      'services',
      new Map([
        ['10.96.0.1 . udp . 81', 'goto class-1'],
        ['10.96.0.2 . udp . 7', 'goto refuse'],
        ['10.96.0.3 . tcp . 80', 'goto class-1'],
      ]),
    ],
    [
      'endpoints-1',
      new Map([
        ['10.96.0.1 . udp . 81 . 0', '10.244.1.4 . 8081'],
        ['10.96.0.3 . tcp . 80 . 0', '10.244.1.4 . 80'],
      ]),
    ],
  ])
  const targets = udpTargets([{ family: 4, source: undefined, masqueradeOutsiders: true, objects }], [takeover])
  const line = (to: string, port: number, from: string, answering: number): string =>
    `udp      17 29 src=10.244.1.9 dst=${to} sport=5000 dport=${port} [UNREPLIED] src=${from} dst=10.244.1.9 sport=${answering} dport=5000 mark=0 use=1`
  const rows: readonly (readonly [name: string, line: string, stale: boolean])[] = [
    ['to an endpoint', line('10.96.0.1', 81, '10.244.1.4', 8081), false],
    ['to one that is gone', line('10.96.0.1', 81, '10.244.1.5', 8081), true],
    ['to a port that it has no more', line('10.96.0.1', 81, '10.244.1.4', 8082), true],
    ['from before the rules: not translated at all', line('10.96.0.1', 81, '10.96.0.1', 81), true],
    ['a service without endpoints', line('10.96.0.2', 7, '10.244.1.4', 7), true],
    ['the takeover', line('10.96.0.10', 53, '169.254.20.53', 53), false],
    ['from before the takeover', line('10.96.0.10', 53, '10.96.0.10', 53), true],
    ['no service of ours', line('192.0.2.1', 53, '192.0.2.1', 53), false],
    ['nonsense', 'conntrack v1.4.7: 3 flow entries have been shown.', false],
  ]
  for (const [name, text, stale] of rows) t.equal(staleFlow(text, targets) !== undefined, stale, name)
  t.equal(
    deleteFlows(staleFlow(rows[1]![1], targets)!).join(' '),
    '-D -f ipv4 -p udp --orig-dst 10.96.0.1 --orig-port-dst 81 --reply-src 10.244.1.5 --reply-port-src 8081',
  )
})
