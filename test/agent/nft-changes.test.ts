import t from 'tap'
import { planChanges, type Changes } from '../../agent/nft-changes.ts'
import { renderDropped, renderElementChanges, renderMade } from '../../agent/nft-text.ts'
import { edge, loadedBy, ruleset, sticky, type RulesetParts } from './rulesets.ts'

/** In order. */
const transactionsOf = (changes: Changes): readonly (readonly string[])[] =>
  [
    renderMade(4, changes),
    renderElementChanges(4, changes.changed),
    renderElementChanges(4, changes.left),
    renderDropped(4, changes),
  ].filter((commands) => commands.length > 0)

t.test('changes', async (t) => {
  const web = (...endpoints: number[]): RulesetParts => ({ endpoints })
  const rows: readonly {
    name: string
    from: RulesetParts
    to: RulesetParts
    transactions: readonly (readonly string[])[]
  }[] = [
    { name: 'nothing', from: web(4, 5), to: web(4, 5), transactions: [] },
    {
      name: 'another endpoint: its class is there before, the old one until after',
      from: web(4),
      to: web(4, 5),
      transactions: [
        [
          'add map ip fulmar endpoints-2 { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; }',
          'add chain ip fulmar class-2',
          'add rule ip fulmar class-2 dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2',
          'add chain ip fulmar masq-2',
          'add rule ip fulmar masq-2 ip saddr != @own-pods meta mark set meta mark | 0x4000',
          'add rule ip fulmar masq-2 dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints-2',
        ],
        [
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
      from: web(4, 5),
      to: web(4, 6),
      transactions: [
        [
          'delete element ip fulmar endpoints-2 { 10.96.0.1 . tcp . 80 . 1 }',
          'delete element ip fulmar hairpin { 10.244.1.5 . 10.244.1.5 }',
          'add element ip fulmar endpoints-2 { 10.96.0.1 . tcp . 80 . 1 : 10.244.1.6 . 8080 }',
          'add element ip fulmar hairpin { 10.244.1.6 . 10.244.1.6 }',
        ],
      ],
    },
    {
      name: 'the last endpoint goes',
      from: web(4),
      to: web(),
      transactions: [
        [
          'delete element ip fulmar services { 10.96.0.1 . tcp . 80 }',
          'delete element ip fulmar hairpin { 10.244.1.4 . 10.244.1.4 }',
          'add element ip fulmar services { 10.96.0.1 . tcp . 80 : goto refuse }',
        ],
        ['delete element ip fulmar endpoints-1 { 10.96.0.1 . tcp . 80 . 0 }'],
      ],
    },
    {
      name: 'a service comes',
      from: web(),
      to: { endpoints: [], services: [{ ...sticky, spec: { ...sticky.spec, type: 'ClusterIP' } }] },
      transactions: [
        [
          'add element ip fulmar cluster-ips { 10.96.0.4 }',
          'add element ip fulmar services { 10.96.0.4 . tcp . 80 : goto refuse }',
          'add element ip fulmar node-ports { tcp . 30081 : goto refuse }',
        ],
      ],
    },
    {
      name: 'a service goes',
      from: { endpoints: [], services: [edge] },
      to: web(),
      transactions: [
        [
          'delete element ip fulmar cluster-ips { 10.96.0.3 }',
          'delete element ip fulmar services { 10.96.0.3 . tcp . 80, 203.0.113.1 . tcp . 80 }',
          'delete element ip fulmar outside { 203.0.113.1 . tcp . 80 }',
          'delete element ip fulmar inside { 203.0.113.1 . tcp . 80 }',
          'delete element ip fulmar source-ranges { 203.0.113.1 . tcp . 80 . 198.51.100.0/24 }',
          'delete element ip fulmar restricted { 203.0.113.1 . tcp . 80 }',
          'delete element ip fulmar node-outside { tcp . 30080 }',
          'delete element ip fulmar node-inside { tcp . 30080 }',
          'delete element ip fulmar node-ports { tcp . 30080 }',
          'delete element ip fulmar hairpin { 10.244.1.4 . 10.244.1.4 }',
        ],
        [
          'delete element ip fulmar endpoints-2 { 10.96.0.3 . tcp . 80 . 0, 10.96.0.3 . tcp . 80 . 1 }',
          'delete element ip fulmar endpoints-1 { 203.0.113.1 . tcp . 80 . 0 }',
          'delete element ip fulmar inside-endpoints-2 { 203.0.113.1 . tcp . 80 . 0, 203.0.113.1 . tcp . 80 . 1 }',
          'delete element ip fulmar node-endpoints-1 { tcp . 30080 . 0 }',
          'delete element ip fulmar node-inside-endpoints-2 { tcp . 30080 . 0, tcp . 30080 . 1 }',
        ],
      ],
    },
  ]
  for (const { name, from, to, transactions } of rows)
    t.strictSame(transactionsOf(planChanges(loadedBy(ruleset(from)), ruleset(to))!), transactions, name)

  const one = loadedBy(ruleset(web(4)))
  t.equal(
    planChanges(one, ruleset({ endpoints: [4], source: '10.244.1.254' })),
    undefined,
    'rules differ: written anew',
  )
  const none = planChanges(one, ruleset(web()))!
  t.strictSame(planChanges(none.loaded, ruleset(web(4)))!.created, [], 'a class that was used before is still there')
})

t.test('affinity: chains are made, and removed by the change after', async (t) => {
  const parts = (...endpoints: number[]) => ruleset({ endpoints, services: [sticky] })
  const whole = loadedBy(parts(4, 5))
  const affinity = (names: Iterable<string>) => [...names].filter((name) => !/endpoints/.test(name)).sort()
  const changes = planChanges(whole, parts(5))!
  t.strictSame([changes.sets.size, changes.chains.size], [0, 2], 'the endpoint has its set and chain already')
  t.strictSame(changes.dropped, [])
  t.strictSame(
    affinity(changes.loaded.unused).length,
    4,
    'two choices, and the set and chain of the endpoint that went',
  )

  const back = planChanges(changes.loaded, parts(4, 5))!
  t.strictSame([back.sets.size, back.chains.size, back.dropped.length], [0, 0, 0], 'what is unused is used again')
  t.match(
    renderMade(4, back).filter((command) => command.startsWith('flush')),
    [/^flush set ip fulmar sticky-/],
  )

  const later = planChanges(changes.loaded, parts(5, 6))!
  const commands = renderDropped(4, later)
  t.strictSame(affinity(later.dropped), affinity(changes.loaded.unused))
  for (const name of later.dropped) {
    const kind = name.startsWith('sticky-') ? 'set' : 'chain'
    t.ok(commands.includes(`delete ${kind} ip fulmar ${name}`), name)
    t.notOk(later.loaded.made.has(name))
  }
})
