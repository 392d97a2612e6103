// Which endpoints may answer: a row per rule.

import t from 'tap'
import { TARGETS_MAX } from '../../agent/choice.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import { annotated, balance, brief, type Options } from './chooser.ts'
import { endpoint, service, slice, type Endpoint } from './shop.ts'

const hints = (zones: readonly string[], nodeNames: readonly string[] = []) => ({
  hints: {
    ...(zones.length > 0 && { forZones: zones.map((name) => ({ name })) }),
    ...(nodeNames.length > 0 && { forNodes: nodeNames.map((name) => ({ name })) }),
  },
})
const ours = (value: string) => annotated('fulmar.dev/topology', value)
const yurt = (value: string) => annotated('openyurt.io/topologyKeys', value)

t.test('which endpoints a ClusterIP has', async (t) => {
  type Row = {
    readonly name: string
    readonly spec?: Service['spec']
    readonly rest?: Partial<Service>
    readonly endpoints: readonly Endpoint[]
    readonly from?: string
    readonly health?: (address: string) => string | undefined
    readonly expected: string
  }
  const dead = (...last: readonly number[]) => ({
    health: (address: string) => (last.includes(Number(address.split('.').at(-1))) ? 'does not answer' : undefined),
  })
  const spread = [endpoint(1, 'h1'), endpoint(2, 'h2'), endpoint(3, 'h3'), endpoint(4, 's1'), endpoint(5, undefined)]
  const rows: readonly Row[] = [
    { name: 'all that are ready', endpoints: spread, expected: '1 2 3 4 5' },
    { name: 'none', endpoints: [], expected: 'reject' },
    { name: 'none that is ready', endpoints: [endpoint(1, 'h1', 'starting')], expected: 'reject' },
    {
      name: 'what drains, where nothing is ready',
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2', 'gone'), endpoint(3, 'h3', 'starting')],
      expected: '1',
    },
    {
      name: 'not what drains, where one is ready',
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2')],
      expected: '2',
    },
    // internalTrafficPolicy
    { name: 'iTP Local', spec: { internalTrafficPolicy: 'Local' }, endpoints: spread, expected: '1' },
    {
      name: 'iTP Local, elsewhere only: dropped',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(2, 'h2')],
      expected: 'drop',
    },
    {
      name: 'iTP Local, nowhere: refused',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [],
      expected: 'reject',
    },
    {
      name: 'iTP Local falls back to what drains here, ready or not elsewhere',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(1, 'h1', 'draining'), endpoint(2, 'h2')],
      expected: '1',
    },
    {
      name: 'iTP Local is not narrowed by hints',
      spec: { internalTrafficPolicy: 'Local' },
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z2'])), endpoint(2, 'h2', 'ready', hints(['z1']))],
      expected: '1',
    },
    // openyurt.io/topologyKeys
    { name: 'topologyKeys hostname', rest: yurt('kubernetes.io/hostname'), endpoints: spread, expected: '1' },
    { name: 'topologyKeys nodepool', rest: yurt('openyurt.io/nodepool'), endpoints: spread, expected: '1 2 3' },
    { name: 'topologyKeys zone is the pool', rest: yurt('kubernetes.io/zone'), endpoints: spread, expected: '1 2 3' },
    {
      name: 'topologyKeys has no fallback',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [endpoint(4, 's1')],
      expected: 'reject',
    },
    {
      name: 'topologyKeys from a node in no pool',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [...spread, endpoint(6, 'lone')],
      from: 'lone',
      expected: '6',
    },
    {
      name: 'topologyKeys come before the fallback to what drains',
      rest: yurt('openyurt.io/nodepool'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '2',
    },
    // hints
    {
      name: 'hints for the zone',
      endpoints: [
        endpoint(1, 'h1', 'ready', hints(['z1'])),
        endpoint(3, 'h3', 'ready', hints(['z2'])),
        endpoint(4, 's1', 'ready', hints(['z1', 'z3'])),
      ],
      expected: '1 4',
    },
    {
      name: 'hints for the zone, one without',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(3, 'h3')],
      expected: '1 3',
    },
    {
      name: 'hints for other zones only',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z3'])), endpoint(3, 'h3', 'ready', hints(['z2']))],
      expected: '1 3',
    },
    {
      name: 'hints where the zone of this node is not known',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(3, 'h3', 'ready', hints(['z2']))],
      from: 'unknown',
      expected: '1 3',
    },
    {
      name: 'hints of what is not ready do not count',
      endpoints: [
        endpoint(1, 'h1', 'ready', hints(['z1'])),
        endpoint(2, 'h2', 'starting'),
        endpoint(3, 'h3', 'ready', hints(['z2'])),
      ],
      expected: '1',
    },
    {
      name: 'hints for the node come before those for the zone',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'], ['h1'])), endpoint(2, 'h2', 'ready', hints(['z1'], ['h2']))],
      expected: '1',
    },
    {
      name: 'hints for other nodes: those for the zone',
      endpoints: [endpoint(2, 'h2', 'ready', hints(['z1'], ['h2'])), endpoint(4, 's1', 'ready', hints(['z3'], ['s1']))],
      expected: '2',
    },
    {
      name: 'hints do not narrow what drains',
      endpoints: [endpoint(1, 'h1', 'draining', hints(['z1'])), endpoint(4, 's1', 'draining', hints(['z3']))],
      expected: '1 4',
    },
    // fulmar.dev/topology
    { name: 'ours: the node', rest: ours('node, pool: prefer'), endpoints: spread, expected: '1' },
    { name: 'ours: the next level', rest: ours('node, pool: prefer'), endpoints: spread.slice(1), expected: '2 3' },
    { name: 'ours, prefer: any', rest: ours('node, pool: prefer'), endpoints: spread.slice(3), expected: '4 5' },
    { name: 'ours, strict: none', rest: ours('node, pool: strict'), endpoints: spread.slice(3), expected: 'reject' },
    { name: 'ours: zones of nodes', rest: ours('zone: strict'), endpoints: spread, expected: '1 2' },
    {
      name: 'ours: zones of endpoints',
      rest: ours('zone: strict'),
      endpoints: [endpoint(5, undefined, 'ready', { zone: 'z1' })],
      expected: '5',
    },
    {
      name: 'ours comes before hints',
      rest: ours('pool: prefer'),
      endpoints: [endpoint(2, 'h2', 'ready', hints(['z3'])), endpoint(4, 's1', 'ready', hints(['z1']))],
      expected: '2',
    },
    {
      name: 'ours, strict: what drains within',
      rest: ours('pool: strict'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '2',
    },
    {
      name: 'ours, prefer: what is ready first',
      rest: ours('pool: prefer'),
      endpoints: [endpoint(2, 'h2', 'draining'), endpoint(4, 's1')],
      expected: '4',
    },
    { name: 'ours, misspelt: ignored', rest: ours('pool: strickt'), endpoints: spread, expected: '1 2 3 4 5' },
    // health
    { name: 'what looks dead is left out', endpoints: spread, ...dead(2, 4), expected: '1 3 5' },
    { name: 'the last ones stay', endpoints: spread, ...dead(1, 2, 3, 4, 5), expected: '1 2 3 4 5' },
    {
      name: 'hints give way to what is alive',
      endpoints: [endpoint(1, 'h1', 'ready', hints(['z1'])), endpoint(4, 's1', 'ready', hints(['z3']))],
      ...dead(1),
      expected: '4',
    },
    {
      name: 'so does ours, prefer',
      rest: ours('node, pool: prefer'),
      endpoints: spread,
      ...dead(1, 2, 3),
      expected: '4 5',
    },
    {
      name: 'ours, strict, does not',
      rest: ours('node, pool: strict'),
      endpoints: spread,
      ...dead(1, 2, 3),
      expected: '1',
    },
    {
      name: 'ours, strict, within its levels',
      rest: ours('node, pool: strict'),
      endpoints: spread,
      ...dead(1, 2),
      expected: '3',
    },
    {
      name: 'nor does the hard filter',
      rest: yurt('kubernetes.io/hostname'),
      endpoints: spread,
      ...dead(1),
      expected: '1',
    },
    { name: 'nor iTP Local', spec: { internalTrafficPolicy: 'Local' }, endpoints: spread, ...dead(1), expected: '1' },
  ]
  for (const { name, spec, rest, endpoints, from, health, expected } of rows) {
    const { frontends } = balance(
      { services: [service(spec, rest)], slices: [slice({ endpoints: [...endpoints] })] },
      { ...(from !== undefined && { from }), health },
    )
    t.strictSame(frontends.map(brief), [expected], name)
  }
})

t.test('weights', async (t) => {
  const endpoints = [endpoint(1, 'h1'), endpoint(2, 'h2'), endpoint(3, 's1'), endpoint(4, 'far')]
  const paths = (name: string) => (name === 's1' ? 'direct' : name === 'far' ? 'relayed' : undefined)
  const rows: readonly (readonly [name: string, readonly Endpoint[], Options['paths'], expected: string])[] = [
    ['nothing is known', endpoints, undefined, '1 2 3 4'],
    ['all is known', endpoints, paths, '1*8 2*4 3*2 4'],
    ['in lowest terms', endpoints.slice(0, 2), paths, '1*2 2'],
    ['one path is not known', [...endpoints, endpoint(5, 'lost')], paths, '1 2 3 4 5'],
    ['one has no node', [...endpoints, endpoint(5, undefined)], paths, '1 2 3 4 5'],
  ]
  for (const [name, list, paths, expected] of rows)
    t.equal(brief(balance({ slices: [slice({ endpoints: [...list] })] }, { paths }).frontends[0]!), expected, name)
})

t.test('ten thousand endpoints: a part on each node, told', async (t) => {
  const endpoints = Array.from({ length: 10_000 }, (_, i) => ({
    addresses: [`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`],
  }))
  const slices = Array.from({ length: 100 }, (_, i) =>
    slice({ name: `s${i}`, endpoints: endpoints.slice(i * 100, (i + 1) * 100) }),
  )
  const addresses = (from: string) => {
    const { frontends, problems } = balance({ slices }, { from })
    t.match(problems, [/service shop\/web: 10000 endpoints serve port 80: 1000 of them/])
    return frontends[0]!.targets.map(({ address }) => address)
  }
  const [here, there] = [addresses('h1'), addresses('h2')]
  t.equal(here.length, TARGETS_MAX)
  t.ok(here.filter((address) => there.includes(address)).length < 300, 'another part on each node')
})
