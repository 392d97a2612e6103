// Meshes of 10 and 100 pools in memory: paths are as good as their NATs allow, changes cost what they may and leave
// nothing behind, and a seed tells all of it.

import t from 'tap'
import { costsOf } from './changes.ts'
import { NAT_TYPES, type NatType } from './internet.ts'
import { exponentOf, growthOf, shortfalls, type Sample } from './report.ts'
import { World } from './world.ts'

/** From RFC 4787 alone: a symmetric NAT sends from a port that nobody knows, which only a filter by address lets in. */
function expected(a: NatType, b: NatType): 'direct' | 'relay-tcp' {
  const has = (type: NatType) => a === type || b === type
  if (has('udp-blocked')) return 'relay-tcp'
  const both = a === 'symmetric' && b === 'symmetric'
  return both || (has('symmetric') && has('port-restricted')) ? 'relay-tcp' : 'direct'
}

async function withWorld<T>(pools: number, full: number, seed: number, use: (world: World) => Promise<T>): Promise<T> {
  const world = await World.create({ pools, full, seed })
  try {
    return await use(world)
  } finally {
    world.close()
  }
}

/** Packets between all gateways that run in full, and time for what they bring about. */
async function warmAll(world: World): Promise<void> {
  const all = [...world.gateways.values()]
  for (const [i, a] of all.entries()) for (const b of all.slice(i + 1)) a.traffic(b.site.node)
  await world.clock.run(10_000)
}

const rungsOf = (world: World): readonly string[] =>
  [...world.gateways.values()].flatMap((gateway) =>
    gateway
      .paths()
      .filter(({ rung }) => rung !== 'cold')
      .map(({ node, rung, since }) => `${gateway.site.node} ${node} ${rung} since ${since - world.clock.epochMs}`),
  )

for (const [pools, full] of [
  [10, 10],
  // Two of each type of NAT.
  [100, 12],
] as const)
  await t.test(`${pools} pools: each pair has the path that its NATs allow`, (t) =>
    withWorld(pools, full, 1, async (world) => {
      const all = [...world.gateways.values()]
      t.equal(all.length, full)
      t.strictSame(new Set(all.map(({ site }) => site.nat.type)), new Set(NAT_TYPES))
      t.ok(
        all.every(({ peers }) => peers.length === pools - 1),
        'all know each other',
      )
      t.strictSame(rungsOf(world), [], 'and cost nothing')
      await warmAll(world)
      for (const a of all)
        for (const b of all)
          if (a !== b) {
            const types = [a.site.nat.type, b.site.nat.type] as const
            t.equal(a.rungTo(b.site.node), expected(...types), `${a.site.node} to ${b.site.node}: ${types.join(', ')}`)
          }
      t.strictSame(world.relay.ended, [])
    }),
  )

await t.test('without packets all pairs go cold', (t) =>
  withWorld(10, 6, 6, async (world) => {
    await warmAll(world)
    t.equal(rungsOf(world).length, 6 * 5)
    await world.clock.run(75_000)
    t.strictSame(rungsOf(world), [])
  }),
)

await t.test('a site that is given another address is reached there, directly', (t) =>
  withWorld(10, 10, 2, async (world) => {
    await warmAll(world)
    const [moved, other] = [world.gateway(1), world.gateway(3)]
    t.equal(moved.rungTo(other.site.node), 'direct')
    world.renumber(moved)
    await world.clock.run(3_000)
    for (const [from, to] of [
      [moved, other],
      [other, moved],
    ] as const)
      t.equal(from.rungTo(to.site.node), 'direct')
    const endpoint = other.kernel.endpointOf('direct', moved.publicKey)
    t.equal(endpoint?.address, moved.site.nat.address)
  }),
)

await t.test('churn leaves nothing behind', (t) =>
  withWorld(10, 10, 3, async (world) => {
    const stayed = [...world.gateways.values()]
    await warmAll(world)
    const sizes = () => stayed.map((gateway) => gateway.sizes())
    const before = sizes()
    for (let i = 0; i < 2; i++) {
      const added = world.addPool()
      await world.clock.run(3_000)
      t.ok(
        stayed.every(({ peers }) => peers.some(({ node }) => node === added.site.node)),
        `${added.site.node} is there`,
      )
      for (const gateway of stayed) gateway.traffic(added.site.node)
      await world.clock.run(5_000)
      t.equal(added.rungTo(stayed[0]!.site.node), expected(added.site.nat.type, stayed[0]!.site.nat.type))
      world.restart(stayed[i]!)
      await world.clock.run(3_000)
      world.removePool(added)
      await world.clock.run(3_000)
      for (const gateway of stayed) {
        const { publicKey, podCidrs, node } = added.site
        const left = Object.entries(gateway.kernel.devices).filter(([, device]) => device.has(publicKey))
        t.strictSame(left, [], `${gateway.site.node} has no peer of it`)
        t.notOk(gateway.kernel.routes.routes.some(({ destination }) => podCidrs.includes(destination)))
        t.notOk(gateway.paths().some((path) => path.node === node))
      }
    }
    t.strictSame(sizes(), before, 'peers, routes, nexthops, paths and sockets are as many as before')
  }),
)

await t.test('gateways that start together ask too much of nobody', (t) =>
  withWorld(100, 0, 4, async (world) => {
    t.strictSame(world.relay.ended, [])
    t.equal(world.relay.sessions, 100)
    // Each hears of each, and a welcome.
    t.ok(world.relay.sent.messages <= 100 * 100, `${world.relay.sent.messages} messages`)
  }),
)

await t.test('what a change costs at 10 and 100 pools', async (t) => {
  const samples: Sample[] = []
  for (const pools of [10, 100]) samples.push({ pools, costs: await withWorld(pools, 6, 5, (world) => costsOf(world)) })
  // Times of so small meshes are noise beside other tests; the command holds them at larger sizes.
  const growth = growthOf(samples).map((each) => ({ ...each, gatewayMs: undefined }))
  t.strictSame(shortfalls(samples, growth), [])
  for (const { kind, messages } of growth) t.ok((messages ?? 0) < 1.1, `${kind}: ${messages}`)
})

await t.test('a bound that is broken is told', async (t) => {
  const cost = {
    ...{ sessions: 100, messages: 0, bytes: 0, relayMs: 0, gatewayMs: 0, totalMs: 0, peers: 0, looks: 0, pairs: 0 },
    ...{ strayPairs: 0, ended: [] },
    kind: 'a pool is removed',
  } as const
  for (const [name, change, sentences] of [
    ['none', {}, 0],
    ['messages', { messages: 101 }, 1],
    ['pairs', { strayPairs: 1 }, 1],
    ['peers', { peers: 2 }, 1],
    ['sessions', { ended: ['x: too many'] }, 1],
  ] as const)
    t.equal(shortfalls([{ pools: 100, costs: [{ ...cost, ...change }] }], []).length, sentences, name)
  const growth = { kind: cost.kind, messages: undefined, bytes: undefined, gatewayMs: 1.9 }
  t.equal(shortfalls([], [growth]).length, 1, 'growth')
  t.equal(
    exponentOf(
      [
        [10, 5],
        [100, 500],
        [1000, 50_000],
      ],
      0,
    )?.toFixed(6),
    '2.000000',
  )
  t.equal(
    exponentOf(
      [
        [10, 0],
        [100, 0],
      ],
      0,
    ),
    undefined,
  )
})

await t.test('one seed, one course of events', async (t) => {
  const course = (seed: number) =>
    withWorld(10, 10, seed, async (world) => {
      await warmAll(world)
      world.restart(world.gateway(2))
      await world.clock.run(5_000)
      // Not the bytes: a signature of ECDSA in DER is now and then a byte shorter.
      return { rungs: rungsOf(world), messages: world.relay.sent.messages, datagrams: world.internet.datagrams }
    })
  const [first, again, other] = [await course(7), await course(7), await course(8)]
  t.strictSame(again, first)
  t.notSame(other, first)
})
