import t from 'tap'
import {
  planRouteSteps,
  routeText,
  type Nexthop,
  type Route,
  type RouteState,
  type RouteStep,
} from '../../lib/routes.ts'

const route = (more: Partial<Route> = {}): Route => ({
  family: 4,
  table: 7077,
  protocol: 178,
  destination: '10.244.2.0/24',
  metric: 100,
  kind: 'unicast',
  ...more,
})
const nexthop = (id: number, device: number): Nexthop => ({ id, family: 4, device, protocol: 178 })
const unreachable = route({ kind: 'unreachable', metric: 10_000 })
const over = route({ nexthop: 1, source: '10.244.1.1', mtu: 1380 })
const none: RouteState = { nexthops: [], routes: [] }
const text = (step: RouteStep) =>
  `${step.kind} ${'route' in step ? routeText(step.route) : `${step.nexthop.id} dev #${step.nexthop.device}`}`

type Row = readonly [string, RouteState, RouteState, readonly string[]]
const rows: readonly Row[] = [
  ['nothing', none, none, []],
  [
    'all, unreachable first, a nexthop before its routes',
    none,
    { nexthops: [nexthop(1, 5)], routes: [over, unreachable] },
    [
      'replace-route unreachable 10.244.2.0/24 table 7077 metric 10000',
      'replace-nexthop 1 dev #5',
      'replace-route 10.244.2.0/24 nhid 1 src 10.244.1.1 table 7077 metric 100',
    ],
  ],
  [
    'the other way round, routes before their nexthop',
    { nexthops: [nexthop(1, 5)], routes: [over] },
    none,
    ['remove-route 10.244.2.0/24 nhid 1 src 10.244.1.1 table 7077 metric 100', 'remove-nexthop 1 dev #5'],
  ],
  [
    'what is right stays, with the device that the kernel adds',
    { nexthops: [nexthop(1, 5)], routes: [{ ...over, device: 5 }, unreachable] },
    { nexthops: [nexthop(1, 5)], routes: [over, unreachable] },
    [],
  ],
  [
    'another device is one message',
    { nexthops: [nexthop(1, 5)], routes: [{ ...over, device: 5 }] },
    { nexthops: [nexthop(1, 6)], routes: [over] },
    ['replace-nexthop 1 dev #6'],
  ],
  ...(
    [
      ['source', { source: '10.244.1.2' }],
      ['mtu', { mtu: 1280 }],
      ['nexthop', { nexthop: 2 }],
      ['protocol', { protocol: 177 }],
    ] as const
  ).map(([name, change]): Row => [
    `another ${name} is set`,
    { nexthops: [], routes: [{ ...over, ...change }] },
    { nexthops: [], routes: [over] },
    ['replace-route 10.244.2.0/24 nhid 1 src 10.244.1.1 table 7077 metric 100'],
  ]),
  [
    'a route of its own device and neighbour',
    { nexthops: [], routes: [route({ via: '192.168.1.1', device: 2 })] },
    { nexthops: [], routes: [route({ via: '192.168.1.1', device: 3 })] },
    ['replace-route 10.244.2.0/24 via 192.168.1.1 dev #3 table 7077 metric 100'],
  ],
]

for (const [name, observed, wanted, steps] of rows)
  t.test(name, (t) => {
    t.same(planRouteSteps(observed, wanted).map(text), steps)
    t.end()
  })
