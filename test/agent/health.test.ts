// What speaks against endpoints, and the way to them: as the chooser and the names of headless services hear of it.

import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { createHealthView, REASONS, type HealthFacts } from '../../agent/health.ts'
import { hereOf } from '../../agent/topology.ts'
import { PathChecks } from '../../agent/path-checks.ts'
import type { Pool } from '../../lib/k8s/pools.ts'

const pool = (name: string, ...nodes: readonly string[]): Pool => ({
  name,
  nodes: nodes.map((node) => ({ name: node, addresses: [], podCidrs: [] })),
  gateways: nodes,
})
const facts: HealthFacts = {
  node: 'bay1',
  pools: [pool('bay', 'bay1', 'bay2'), pool('cape', 'cape1', 'cape2'), pool('dune', 'dune1')],
  findings: [],
  down: new Set(),
  dead: new Map(),
}

t.test('reasons', async (t) => {
  for (const [name, changed, expected] of [
    ['nothing', {}, [undefined, undefined, undefined]],
    [
      'a silent node',
      { findings: [{ kind: 'node', pool: 'cape', node: 'cape1' }] },
      [undefined, REASONS.node, undefined],
    ],
    ['our own', { findings: [{ kind: 'node', pool: 'bay', node: 'bay1' }] }, [undefined, undefined, undefined]],
    [
      'a node of another pool than is said',
      { findings: [{ kind: 'node', pool: 'dune', node: 'cape1' }] },
      [undefined, undefined, undefined],
    ],
    ['a pool out of reach', { down: new Set(['cape']) }, [undefined, REASONS.path, undefined]],
    ['our own pool cannot be', { down: new Set(['bay']) }, [undefined, undefined, undefined]],
    [
      'a gateway calls a path silent: not yet',
      { findings: [{ kind: 'path', pool: 'cape', state: 'silent' }] },
      [undefined, undefined, undefined],
    ],
    [
      'an endpoint',
      { dead: new Map([['10.0.0.1 80', 'refused']]) },
      [REASONS.refused, REASONS.refused, REASONS.refused],
    ],
    ['another one', { dead: new Map([['10.0.0.2 80', 'silent']]) }, [undefined, undefined, undefined]],
  ] as const satisfies readonly (readonly [string, Partial<HealthFacts>, readonly (string | undefined)[]])[]) {
    const { health } = createHealthView()({ ...facts, ...changed })
    t.strictSame(
      ['bay1', 'cape1', 'dune1'].map((node) => health?.('10.0.0.1', 80, node, 'TCP')),
      expected,
      name,
    )
    const isEndpoint = name === 'an endpoint'
    if (isEndpoint) t.equal(health?.('10.0.0.1', 80, undefined, 'UDP'), undefined, 'TCP says nothing of UDP')
  }
})

t.test('ways', async (t) => {
  const { paths } = createHealthView()({ ...facts, findings: [{ kind: 'path', pool: 'cape', state: 'relayed' }] })
  t.strictSame(['cape1', 'cape2', 'dune1', 'unknown'].map(paths), ['relayed', 'relayed', 'direct', 'direct'])
})

t.test('the same functions while the answers are the same', async (t) => {
  const viewOf = createHealthView()
  const first = viewOf(facts)
  t.equal(first.health, undefined)
  t.equal(viewOf({ ...facts, pools: [...facts.pools] }), first)
  const dead = { ...facts, dead: new Map([['10.0.0.1 80', 'refused' as const]]) }
  const second = viewOf(dead)
  t.not(second.health, undefined)
  t.equal(second.paths, first.paths)
  t.equal(viewOf({ ...dead, dead: new Map(dead.dead) }), second)
  t.equal(viewOf(facts).health, undefined)
})

t.test('whether a pool that is called silent is out of reach', async (t) => {
  const run = (
    answers: (nowMs: number) => boolean,
    endpoints: readonly string[] = ['a', 'b', 'c'],
    untilMs = 10_000,
  ) => {
    const checks = new PathChecks()
    const changes: [boolean, number][] = []
    let tried = 0
    for (let nowMs = 0; nowMs <= untilMs; nowMs += 100) {
      checks.told(new Set(nowMs < 8_000 ? ['cape'] : []), nowMs)
      for (const [name] of checks.step(() => endpoints, nowMs)) {
        tried++
        checks.result(name, answers(nowMs), nowMs)
      }
      const isDown = checks.down.has('cape')
      if (isDown !== (changes.at(-1)?.[0] ?? false)) changes.push([isDown, nowMs])
    }
    return { changes, tried }
  }
  t.strictSame(
    run(() => false).changes,
    [
      [true, 0],
      [false, 8_000],
    ],
    'nothing answers',
  )
  t.strictSame(run(() => true).changes, [], 'its gateway is down, and its kernel forwards')
  t.strictSame(
    run(() => false, []).changes,
    [
      [true, 0],
      [false, 8_000],
    ],
    'nothing to try',
  )
  t.strictSame(
    run((nowMs) => nowMs >= 4_000).changes,
    [
      [true, 0],
      [false, 4_000],
    ],
    'it is back before the gateway says so',
  )
  t.match(
    run((nowMs) => nowMs < 2_000).changes,
    [
      [true, Number],
      [false, 8_000],
    ],
    'lost later',
  )
  t.ok(run(() => false).tried <= 18, 'two endpoints a second')
})

t.test('names of a headless service lead to what is alive, and to all where nothing is', async (t) => {
  const cluster = clusterOf({
    services: [
      {
        metadata: { namespace: 'shop', name: 'db' },
        spec: { clusterIP: 'None', ports: [{ name: 'sql', port: 5432 }] },
      },
    ],
    slices: [
      {
        metadata: { namespace: 'shop', name: 'db-1', labels: { 'kubernetes.io/service-name': 'db' } },
        addressType: 'IPv4',
        ports: [{ name: 'sql', port: 5432 }],
        endpoints: ['bay2', 'cape1', 'dune1'].map((nodeName, i) => ({ addresses: [`10.0.0.${i + 1}`], nodeName })),
      },
    ],
    nodes: [],
    nodePools: [],
    gateways: [],
  })
  const here = hereOf(cluster, 'bay1')
  for (const [name, changed, addresses] of [
    ['nothing against any', {}, ['10.0.0.1', '10.0.0.2', '10.0.0.3']],
    ['a node', { findings: [{ kind: 'node', pool: 'bay', node: 'bay2' }] }, ['10.0.0.2', '10.0.0.3']],
    ['a pool and an endpoint', { down: new Set(['cape']), dead: new Map([['10.0.0.3 5432', 'silent']]) }, ['10.0.0.1']],
    ['another port', { dead: new Map([['10.0.0.3 80', 'silent']]) }, ['10.0.0.1', '10.0.0.2', '10.0.0.3']],
    [
      'all',
      { down: new Set(['cape', 'dune']), findings: [{ kind: 'node', pool: 'bay', node: 'bay2' }] },
      ['10.0.0.1', '10.0.0.2', '10.0.0.3'],
    ],
  ] as const satisfies readonly (readonly [string, Partial<HealthFacts>, readonly string[]])[]) {
    const { health } = createHealthView()({ ...facts, ...changed })
    const zone = zoneOf({ cluster, here, domains: ['cluster.local'], servers: [], health })
    t.strictSame(zone.members([...cluster.services][0]!).v4, addresses, name)
  }
})
