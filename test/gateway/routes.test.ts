import t from 'tap'
import { changedRoutes, nexthopIds, planRoutes, type RoutesInput } from '../../gateway/routes.ts'
import { NEXTHOP_BASE, NEXTHOP_RANGE } from '../../lib/owned.ts'
import { routeText } from '../../lib/routes.ts'

const ids = new Map([
  ['b', 1000],
  ['c', 2000],
])
const devices = new Map([['direct', 5] as const, ['relay-udp', 6] as const])
const text = (input: Omit<RoutesInput, 'ids' | 'devices'>) => {
  const { nexthops, routes } = planRoutes({ ids, devices, ...input })
  return [
    ...nexthops.map(({ id, family, device }) => `nexthop ${id} IPv${family} dev #${device}`),
    ...routes.map(routeText),
  ]
}

t.test('what is wanted, as text', (t) => {
  const cidrs = ['10.244.2.0/24', '10.244.3.0/24', 'fd00:244:2::/64']
  const rows: readonly [string, Parameters<typeof text>[0], readonly string[]][] = [
    ['no pools', { wanted: [] }, []],
    [
      'one nexthop per family, all prefixes over it, unreachable below',
      { wanted: [{ pool: 'b', cidrs, rung: 'relay-udp' }], source4: '10.244.1.1', source6: 'fd00:244:1::1' },
      [
        'nexthop 1000 IPv4 dev #6',
        'nexthop 1001 IPv6 dev #6',
        'unreachable 10.244.2.0/24 table 7077 metric 10000',
        '10.244.2.0/24 nhid 1000 src 10.244.1.1 table 7077 metric 100',
        'unreachable 10.244.3.0/24 table 7077 metric 10000',
        '10.244.3.0/24 nhid 1000 src 10.244.1.1 table 7077 metric 100',
        'unreachable fd00:244:2::/64 table 7077 metric 10000',
        'fd00:244:2::/64 nhid 1001 src fd00:244:1::1 table 7077 metric 100',
      ],
    ],
    [
      'no path yet, and a device that is missing; prefixes in canonical text',
      {
        wanted: [
          { pool: 'b', cidrs: ['10.244.2.0/24'], rung: undefined },
          { pool: 'c', cidrs: ['fd00:244:4:0:0::/64'], rung: 'relay-tcp' },
        ],
      },
      ['unreachable 10.244.2.0/24 table 7077 metric 10000', 'unreachable fd00:244:4::/64 table 7077 metric 10000'],
    ],
  ]
  for (const [name, input, expected] of rows) t.same(text(input), expected, name)
  t.end()
})

t.test('nexthop ids', (t) => {
  const names = Array.from({ length: 5_000 }, (_, i) => `site-${i}`)
  const all = nexthopIds(names)
  t.equal(new Set(all.values()).size, names.length, 'differ, also where hashes collide')
  for (const id of all.values())
    if (id < NEXTHOP_BASE || id + 1 >= NEXTHOP_BASE + NEXTHOP_RANGE || id % 2) t.fail(`${id}`)
  t.same(new Map(nexthopIds(names.toReversed())), new Map(all), 'do not depend on the order of names')
  t.same(
    [...nexthopIds(['b', 'b', 'edge'])],
    [
      ['b', 1179111468],
      ['edge', nexthopIds(['edge']).get('edge')],
    ],
  )
  t.end()
})

t.test('what changes', (t) => {
  const [b, c] = [
    { pool: 'b', cidrs: ['10.244.2.0/24'], rung: 'direct' },
    { pool: 'c', cidrs: ['10.244.3.0/24'], rung: undefined },
  ] as const
  const wide = { ...c, mtu: 1280 }
  t.strictSame(changedRoutes([b, c], [c, b]), [[], []], 'order is nothing')
  t.strictSame(changedRoutes([b, c], [b, wide]), [[c], [wide]])
  t.strictSame(changedRoutes([b], [c]), [[b], [c]])
  t.end()
})
