// Which rung carries traffic, over time and through faults.

import t from 'tap'
import { ALWAYS, World } from './two-paths.ts'

t.test('UDP cut: back to the relay within 2 s, direct again within 10 s of healing', async (t) => {
  const world = new World().start().run(5_000)
  t.equal(world.rungs(), 'direct direct')
  world.udp = false
  world.run(2_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  world.run(20_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  world.udp = true
  world.run(10_000)
  t.equal(world.rungs(), 'direct direct')
})

/** @returns how long after the fault the last side moved, for faults at many moments between two echoes. */
function leftAfter(fail: (world: World) => void): readonly number[] {
  return Array.from({ length: 21 }, (_, phase) => {
    const world = new World().start().run(5_000 + 97 * phase)
    const failedMs = world.nowMs
    const moves = world.moves.length
    fail(world)
    world.run(4_000)
    const left = world.moves.slice(moves).filter(({ rung }) => rung === 'relay-tcp')
    return left.length < 2 ? Infinity : Math.max(...left.map(({ atMs }) => atMs)) - failedMs
  })
}

t.test('a direct path that is cut is left by both sides within 1.4 s, at whatever moment', async (t) => {
  const worst = Math.max(...leftAfter((world) => (world.udp = false)))
  t.ok(worst <= 1_400, `${worst} ms`)
})

t.test('a direct path that carries one way only is left by both sides within 2 s', async (t) => {
  for (const deaf of ['a', 'b'] as const) {
    const worst = Math.max(...leftAfter((world) => (world.deaf = deaf)))
    t.ok(worst <= 2_000, `nothing arrives at ${deaf}: ${worst} ms`)
  }
})

t.test('a path that carries small packets only never carries traffic', async (t) => {
  const world = new World()
  world.sizes = ['small']
  world.start().run(20_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
})

t.test('a narrow path carries traffic with a smaller MTU, until it is wide again', async (t) => {
  const world = new World()
  world.sizes = ['small', 'least']
  world.start().run(5_000)
  t.equal(world.rungs(), 'direct direct')
  t.strictSame([world.paths.a.mtu, world.paths.b.mtu], [1280, 1280])
  const moves = world.moves.length
  world.run(300_000)
  t.equal(world.moves.length, moves, 'and stays so')
  world.sizes = ['small', 'least', 'full']
  world.run(61_000)
  t.strictSame([world.paths.a.mtu, world.paths.b.mtu], [undefined, undefined])
  t.equal(world.rungs(), 'direct direct')
})

t.test('a path that becomes narrow gets a smaller MTU, and one that is narrower still is left', async (t) => {
  const world = new World().start().run(5_000)
  world.sizes = ['small', 'least']
  world.run(6_500)
  t.equal(world.rungs(), 'direct direct')
  t.strictSame([world.paths.a.mtu, world.paths.b.mtu], [1280, 1280])
  world.sizes = ['small']
  world.run(6_500)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  t.strictSame([world.paths.a.mtu, world.paths.b.mtu], [undefined, undefined])
})

t.test('the relay is not asked because of a short stall of the direct path', async (t) => {
  const world = new World().start().run(5_000)
  const before = world.echoes['relay-tcp']
  for (let i = 0; i < 20; i++) {
    world.udp = false
    world.run(400)
    world.udp = true
    world.run(2_600)
  }
  t.equal(world.echoes['relay-tcp'], before)
  t.equal(world.rungs(), 'direct direct')
})

t.test("the peer's gateway process down: nobody answers, so nothing moves", async (t) => {
  const world = new World().start().run(5_000)
  world.alive.b = false
  world.run(10_000)
  t.equal(world.paths.a.rung, 'direct')
  world.alive.b = true
  world.run(2_000)
  t.equal(world.rungs(), 'direct direct')
  t.equal(world.moves.filter(({ rung }) => rung === 'relay-tcp').length, 2, 'only the two first moves')
})

t.test('a restarted gateway keeps what the kernel carries', async (t) => {
  const world = new World('direct').start().run(5_000)
  t.equal(world.rungs(), 'direct direct')
  t.strictSame(world.moves, [])
})

t.test('the relay gone: a direct path stays, without a word', async (t) => {
  const world = new World().start().run(5_000)
  world.relay = false
  for (const path of Object.values(world.paths)) path.setRelayOpen(false)
  const moves = world.moves.length
  world.run(60_000)
  t.equal(world.rungs(), 'direct direct')
  t.equal(world.moves.length, moves)
})

t.test('10 % loss each way for ten minutes does not flap', async (t) => {
  for (let seed = 1; seed <= 16; seed++) {
    const world = new World('cold', ALWAYS, 7_919 * seed).start().run(5_000)
    world.lossPercent = 10
    const moves = world.moves.length
    world.run(10 * 60_000)
    t.equal(world.moves.length, moves, `losses of seed ${seed}`)
  }
})

t.test(
  'round trips that grow to two seconds on all rungs move nothing, and are not asked about much more',
  async (t) => {
    const world = new World().start().run(5_000)
    const moves = world.moves.length
    world.varies = true
    for (const latencyMs of [50, 100, 200, 300, 450, 600]) {
      world.latencyMs = latencyMs
      world.run(20_000)
    }
    const before = { ...world.counts }
    world.run(5 * 60_000)
    const minute = (count: 'echo' | 'probe') => Math.round((world.counts[count] - before[count]) / 5)
    t.equal(world.moves.length, moves)
    t.ok(minute('echo') < 2 * (2 * 60 + 20) * 2, `${minute('echo')} echoes a minute, both sides`)
    t.ok(minute('probe') < 60, `${minute('probe')} probes a minute`)
  },
)

t.test('round trips that are slow at once, or from the start, move nothing for long', async (t) => {
  for (const [beforeMs, afterMs] of [
    [10, 1_000],
    [25, 750],
    [750, 750],
  ] as const) {
    const world = new World()
    world.latencyMs = beforeMs
    world.start().run(30_000)
    t.equal(world.rungs(), 'direct direct', `${beforeMs} ms each way`)
    world.latencyMs = afterMs
    world.run(60_000)
    const [moves, echoes] = [world.moves.length, world.counts.echo]
    world.run(5 * 60_000)
    t.equal(world.rungs(), 'direct direct', `then ${afterMs} ms`)
    t.equal(world.moves.length, moves)
    const perMinute = Math.round((world.counts.echo - echoes) / 5)
    t.ok(perMinute < 2 * (2 * 60 + 20), `${perMinute} echoes a minute, both sides`)
  }
})

t.test('a machine that has no time for us leaves a dead path all the same', async (t) => {
  for (const lateMs of [29, 40, 80, 300]) {
    const world = new World().start().run(10_000)
    world.lateMs = lateMs
    world.run(60_000)
    t.equal(world.rungs(), 'direct direct', `${lateMs} ms late`)
    world.udp = false
    world.run(8_000 + 16 * lateMs)
    t.equal(world.rungs(), 'relay-tcp relay-tcp', `${lateMs} ms late, cut`)
  }
})

t.test('how long a peer is silent is not begun anew', async (t) => {
  const world = new World().start().run(5_000)
  world.alive.b = false
  for (let [silentMs, i] = [0, 0]; i < 600; i++) {
    world.run(100)
    const now = world.paths.a.ladder.silentMs(world.nowMs)
    if (now < silentMs) return t.fail(`${silentMs} ms, then ${now}`)
    silentMs = now
  }
  t.ok(world.paths.a.ladder.silentMs(world.nowMs) > 58_000)
})

t.test('a stall of our own process is not the path’s fault', async (t) => {
  const world = new World().start().run(5_000)
  const moves = world.moves.length
  for (let i = 0; i < 10; i++) {
    world.alive.a = false
    world.run(900)
    world.alive.a = true
    world.run(600)
  }
  t.equal(world.paths.a.rung, 'direct')
  t.equal(world.moves.length, moves)
})

t.test('a direct path costs five small echoes in two seconds, and a full-size one each 3 s and side', async (t) => {
  const world = new World().start().run(10_000)
  const before = { ...world.counts }
  world.run(60_000)
  t.equal(world.counts.probe - before.probe, 0)
  t.equal(world.counts.call - before.call, 0)
  t.ok(
    world.counts.echo - before.echo <= 2 * 60 + 60 / 2 + 2 * 20 + 2,
    `${world.counts.echo - before.echo} echoes in a minute, both sides`,
  )
})

t.test("without a direct path the relay's UDP carries, and TCP while that fails", async (t) => {
  const world = new World()
  world.udp = false
  world.udpRelay = true
  world.start().run(1_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp', 'time for a direct path first')
  world.run(2_000)
  t.equal(world.rungs(), 'relay-udp relay-udp')
  world.udpRelay = false
  world.run(2_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  world.udpRelay = true
  world.run(3_000)
  t.equal(world.rungs(), 'relay-udp relay-udp')
  world.udp = true
  world.run(70_000)
  t.equal(world.rungs(), 'direct direct', 'a direct path is better still')
})

t.test("a session over the relay's UDP from before a fall is proven anew before it carries", async (t) => {
  const world = new World()
  world.udp = false
  world.udpRelay = true
  world.start().run(5_000)
  world.udp = true
  world.run(70_000)
  t.equal(world.rungs(), 'direct direct')
  world.udp = false
  world.udpRelay = false
  const before = world.moves.length
  world.run(5_000)
  t.strictSame(
    world.moves
      .slice(before)
      .map(({ side, rung }) => `${side} ${rung}`)
      .toSorted(),
    ['a relay-tcp', 'b relay-tcp'],
    'all UDP is cut: straight to TCP',
  )
})

t.test('a path that was up for a while and is cut again comes back as fast as before', async (t) => {
  const world = new World().start().run(10_000)
  for (let round = 0; round < 10; round++) {
    world.udp = false
    world.run(4_000)
    t.equal(world.rungs(), 'relay-tcp relay-tcp')
    world.udp = true
    world.run(9_000)
    t.equal(world.rungs(), 'direct direct', `round ${round}`)
    world.run(6_000)
  }
})
