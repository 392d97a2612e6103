// Whether a pair is up at all, and how a direct address is searched for.

import t from 'tap'
import { Path } from '../../gateway/path.ts'
import { ADDRESS, ALWAYS, ON_DEMAND, World } from './two-paths.ts'

t.test('the relay carries first, then the direct path', async (t) => {
  const world = new World().start().run(1_000)
  t.equal(world.rungs(), 'direct direct')
  t.strictSame(world.moves.map(({ side, rung }) => `${side} ${rung}`).toSorted(), [
    'a direct',
    'a relay-tcp',
    'b direct',
    'b relay-tcp',
  ])
  t.ok(
    world.moves.every(({ atMs }) => atMs < 500),
    'within half a second at 20 ms round trip',
  )
  t.equal(world.wasted, 0)
  t.ok(world.moves.findIndex(({ rung }) => rung === 'direct') >= 2, 'relay before direct')
})

t.test('nothing is sent before the peer is ready, which it is asked for', async (t) => {
  const path = new Path({ ...ALWAYS, controlling: true, rung: 'cold', nowMs: 0 })
  path.setRelayOpen(true)
  path.setCandidates([{ kind: 'host', address: ADDRESS.b }], 0)
  t.strictSame(path.step(0, 0.5), [{ kind: 'ask' }])
  t.strictSame(path.step(500, 0.5), [])
  t.strictSame(path.step(1_000, 0.5), [{ kind: 'ask' }])
})

t.test('a pair without traffic is cold and costs nothing', async (t) => {
  const world = new World('cold', ON_DEMAND).start().run(600_000)
  t.equal(world.rungs(), 'cold cold')
  t.strictSame(world.counts, { probe: 0, echo: 0, call: 0, ask: 0, suspect: 0 })
})

t.test('traffic of one side wakes both; silence lets both go cold', async (t) => {
  const world = new World('cold', ON_DEMAND).start().run(100)
  world.paths.b.traffic(world.nowMs)
  world.run(2_000)
  t.equal(world.rungs(), 'direct direct')
  for (let i = 0; i < 10; i++) {
    world.run(30_000)
    world.paths.b.traffic(world.nowMs)
  }
  t.equal(world.rungs(), 'direct direct', 'as long as one side has traffic')
  world.run(59_000)
  t.equal(world.rungs(), 'direct direct')
  world.run(12_000)
  t.equal(world.rungs(), 'cold cold')
  const before = { ...world.counts }
  world.run(600_000)
  t.strictSame(world.counts, before, 'and then nothing is sent')
  world.paths.a.traffic(world.nowMs)
  world.run(2_000)
  t.equal(world.rungs(), 'direct direct', 'and again')
})

t.test('where nothing punches, a pair without traffic goes cold all the same', async (t) => {
  const world = new World('cold', ON_DEMAND)
  world.udp = false
  world.start()
  world.paths.a.traffic(world.nowMs)
  world.run(50_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  world.run(30_000)
  t.equal(world.rungs(), 'cold cold')
  const before = { ...world.counts }
  world.run(600_000)
  t.strictSame(world.counts, before)
})

t.test('without the relay no pair goes cold: nothing could wake it', async (t) => {
  const world = new World('cold', ON_DEMAND).start()
  world.paths.a.traffic(world.nowMs)
  world.run(2_000)
  world.relay = false
  for (const path of Object.values(world.paths)) path.setRelayOpen(false)
  world.run(600_000)
  t.equal(world.rungs(), 'direct direct')
})

t.test('where nothing punches, tries grow rare', async (t) => {
  const world = new World()
  world.udp = false
  world.start().run(60_000)
  const before = world.counts.probe
  world.run(10 * 60_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  t.ok(world.counts.probe - before < 20 * 150, `${world.counts.probe - before} probes in ten minutes`)
})

t.test('probes that are late beget no others: an attempt that failed ends on both sides', async (t) => {
  const world = new World()
  // The direct rung carries no echo, so each attempt is in vain; its probes come when it is over.
  world.sizes = []
  world.latencyMs = 3_000
  world.start().run(60_000)
  const before = world.counts.probe
  world.run(10 * 60_000)
  t.ok(world.counts.probe - before < 20 * 150, `${world.counts.probe - before} probes in ten minutes`)
})
