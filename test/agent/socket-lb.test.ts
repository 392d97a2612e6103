import t from 'tap'
import type { Frontend } from '../../agent/balance.ts'
import { entriesOf, slotsOf, type EntriesOptions } from '../../agent/socket-lb.ts'
import { FLAG_NODE_ONLY } from '../../agent/socket-lb-records.ts'
import { base, options, serviceOf, target } from './frontends.ts'

t.test('what is served', async (t) => {
  const rows: readonly (readonly [
    name: string,
    frontend: Partial<Frontend>,
    options: Partial<EntriesOptions>,
    served: readonly string[],
  ])[] = [
    ['a ClusterIP', {}, {}, ['10.96.0.1:80 → 1 2']],
    ['UDP', { protocol: 'UDP' }, {}, []],
    ['SCTP', { protocol: 'SCTP' }, {}, []],
    ['an address led elsewhere', {}, { except: new Set(['10.96.0.1']) }, []],
    ['source ranges', { kind: 'load-balancer', sourceRanges: ['192.0.2.0/24'] }, {}, []],
    ['more targets inside', { targets: [], insideTargets: [target(3)] }, {}, ['10.96.0.1:80 → 3']],
    ['no target: refused', { targets: [] }, {}, ['10.96.0.1:80 → ']],
    ['no target, where calls cannot be refused', { targets: [] }, { refuse: false }, []],
    ['no target: dropped', { targets: [], whenEmpty: 'drop' }, {}, []],
    [
      'a NodePort',
      { kind: 'node-port', address: undefined, port: 30080 },
      {},
      ['192.0.2.1:30080 → 1 2', '127.0.0.1:30080 → 1 2 (node)'],
    ],
    [
      'a NodePort of IPv6',
      { kind: 'node-port', address: undefined, family: 6, port: 30080, targets: [] },
      {},
      ['2001:db8::1:30080 → ', '::1:30080 →  (node)'],
    ],
  ]
  for (const [name, frontend, more, served] of rows) {
    const found = entriesOf(serviceOf(frontend), { ...options, ...more }).map(
      ({ place, targets, flags }) =>
        `${place.address}:${place.port} → ${targets.map(({ address }) => address.split('.').at(-1)).join(' ')}` +
        (flags === FLAG_NODE_ONLY ? ' (node)' : ''),
    )
    t.same(found, served, name)
  }
  const ids = [base, { ...base, address: '10.96.0.2' }, { ...base, portName: 'admin' }].map(
    (frontend) => entriesOf(serviceOf({ ...frontend, affinitySeconds: 9 }), options)[0]!.affinity!.service,
  )
  t.equal(ids[0], ids[1], 'all addresses of a service port share affinity')
  t.not(ids[0], ids[2])
})

t.test('weights', async (t) => {
  const rows: readonly (readonly [weights: readonly number[], counts: readonly number[]])[] = [
    [[], []],
    [[1], [1]],
    [
      [7, 7],
      [1, 1],
    ],
    [
      [100, 50, 25],
      [4, 2, 1],
    ],
    [
      [3, 2],
      [3, 2],
    ],
    [
      [100_000, 1],
      [4095, 1],
    ],
    [Array<number>(10_000).fill(5), Array<number>(10_000).fill(1)],
  ]
  for (const [weights, counts] of rows) {
    const targets = weights.map((weight, i) => target(i, weight))
    const slots = slotsOf(targets)
    t.same(
      targets.slice(0, 10).map((one) => slots.filter((slot) => slot === one).length),
      counts.slice(0, 10),
      `${weights.slice(0, 5).join(' ')}`,
    )
    t.ok(slots.length <= Math.max(4096, targets.length))
  }
})
