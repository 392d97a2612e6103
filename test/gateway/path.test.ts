// Two paths, one per side, over a network of the test's making: a virtual clock, and switches for every link.

import t from 'tap'
import type { SocketAddress } from '../../lib/address.ts'
import type { Rung } from '../../lib/status.ts'
import type { EchoSize } from '../../gateway/echo.ts'
import { Path, type PathAction } from '../../gateway/path.ts'

const LATENCY_MS = 10
const ADDRESS: Record<Side, SocketAddress> = {
  a: { address: '198.51.100.1', port: 4000, family: 4 },
  b: { address: '203.0.113.1', port: 5000, family: 4 },
}
type Side = 'a' | 'b'
type Move = { side: Side; rung: Rung | 'cold'; atMs: number }
const ALWAYS = { coldAfterMs: 1e9, always: true }
/** A pair that is up while someone has traffic, and a little longer. */
const ON_DEMAND = { coldAfterMs: 60_000, always: false }

/** What the network lets through; a test turns switches while time goes on. */
class World {
  nowMs = 0
  udp = true
  relay = true
  /** The relay's UDP: whether it forwards. Sessions are bound as soon as one side wants one. */
  udpRelay = false
  /** The sizes of echoes that get through directly, and over the relay's UDP. */
  sizes: readonly EchoSize[] = ['small', 'least', 'full']
  /** The gateway process of a side: a dead one answers nothing. */
  readonly alive = { a: true, b: true }
  lossPercent = 0
  /** Echoes into a device without an endpoint: each costs WireGuard 5 s. */
  wasted = 0
  readonly moves: Move[] = []
  readonly counts = { probe: 0, echo: 0, call: 0, ask: 0, suspect: 0 }
  /** Echoes by rung, both sides. */
  readonly echoes: Record<Rung, number> = { direct: 0, 'relay-udp': 0, 'relay-tcp': 0 }
  readonly paths: Record<Side, Path>
  /** Whether a WireGuard session exists on the direct rung, and whether it was opened by both sides at once. */
  #session = false
  #endpoint = { a: false, b: false }
  readonly #udpBound = { a: false, b: false }
  #events: { atMs: number; run: () => void }[] = []
  #random = 1

  constructor(rung: Rung | 'cold' = 'cold', interest = ALWAYS) {
    this.paths = {
      a: new Path({ ...interest, controlling: true, rung, nowMs: 0 }),
      b: new Path({ ...interest, controlling: false, rung, nowMs: 0 }),
    }
    this.#session = rung === 'direct'
  }

  start(): this {
    for (const side of ['a', 'b'] as const) {
      this.paths[side].setCandidates([{ kind: 'reflexive', address: ADDRESS[other(side)] }], this.nowMs)
      this.paths[side].setRelayOpen(true)
      this.paths[side].ready(this.nowMs)
    }
    return this
  }

  /** Lets time go on in steps of a millisecond. */
  run(ms: number): this {
    for (const end = this.nowMs + ms; this.nowMs < end; this.nowMs++) {
      const due = this.#events.filter(({ atMs }) => atMs <= this.nowMs)
      this.#events = this.#events.filter(({ atMs }) => atMs > this.nowMs)
      for (const { run } of due) run()
      for (const side of ['a', 'b'] as const) {
        const path = this.paths[side]
        if (path.wantsUdpRelay(this.nowMs) !== this.#udpBound[side] && this.udpRelay) this.#bindUdp()
        if (this.alive[side] && (due.length > 0 || path.nextMs <= this.nowMs))
          for (const action of path.step(this.nowMs, 0.5)) this.#act(side, action)
      }
    }
    return this
  }

  #bindUdp(): void {
    for (const side of ['a', 'b'] as const) {
      this.#udpBound[side] = this.paths[side].wantsUdpRelay(this.nowMs)
      this.paths[side].setUdpBound(this.#udpBound[side], this.nowMs)
    }
  }

  #act(side: Side, action: PathAction): void {
    const peer = other(side)
    switch (action.kind) {
      case 'probe':
        this.counts.probe++
        if (action.ttl !== undefined) return
        return this.#send(this.udp, peer, () => {
          this.paths[peer].probed(ADDRESS[side], this.nowMs)
          this.#send(this.udp, side, () => this.paths[side].probeAnswered(ADDRESS[peer], 2 * LATENCY_MS, this.nowMs))
        })
      case 'echo': {
        this.counts.echo++
        this.echoes[action.rung]++
        const { rung, sequence, size, interested } = action
        const fits = rung === 'relay-tcp' || this.sizes.includes(size)
        if (rung === 'direct' && !this.#session && !this.#endpoint[side]) this.wasted++
        const carried = () =>
          rung === 'direct'
            ? this.udp && (this.#session || this.#endpoint.a)
            : rung === 'relay-udp'
              ? this.udpRelay
              : this.relay
        return this.#send(fits && carried(), peer, () => {
          if (rung === 'direct') this.#session = true
          this.paths[peer].echoRequested(rung, interested, this.nowMs)
          this.#send(carried(), side, () => this.paths[side].echoReplied(rung, sequence, this.nowMs))
        })
      }
      case 'call':
        this.counts.call++
        return this.#send(true, peer, () => this.paths[peer].called(action.reply, this.nowMs))
      case 'ask':
        this.counts.ask++
        return this.#send(this.relay, side, () => this.paths[side].ready(this.nowMs))
      case 'suspect':
        this.counts.suspect++
        return
      case 'endpoint':
        this.#events.push({
          atMs: this.nowMs + LATENCY_MS,
          run: () => {
            this.#endpoint[side] = true
            this.paths[side].endpointSet(action.to, this.nowMs)
          },
        })
        return
      case 'move':
        this.moves.push({ side, rung: action.rung, atMs: this.nowMs })
    }
  }

  #send(open: boolean, to: Side, run: () => void): void {
    this.#random = (this.#random * 48271) % 2147483647
    if (!open || this.#random % 100 < this.lossPercent) return
    this.#events.push({ atMs: this.nowMs + LATENCY_MS, run: () => this.alive[to] && run() })
  }

  rungs(): string {
    return `${this.paths.a.rung} ${this.paths.b.rung}`
  }
}

const other = (side: Side): Side => (side === 'a' ? 'b' : 'a')

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

t.test('UDP cut: back to the relay within 2 s, direct again within 10 s of healing', async (t) => {
  for (const fault of ['udp'] as const) {
    const world = new World().start().run(5_000)
    t.equal(world.rungs(), 'direct direct')
    world[fault] = false
    world.run(2_000)
    t.equal(world.rungs(), 'relay-tcp relay-tcp')
    world.run(20_000)
    t.equal(world.rungs(), 'relay-tcp relay-tcp')
    world[fault] = true
    world.run(10_000)
    t.equal(world.rungs(), 'direct direct')
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

t.test('10 % loss each way does not flap', async (t) => {
  const world = new World().start().run(5_000)
  world.lossPercent = 10
  const moves = world.moves.length
  world.run(10 * 60_000)
  t.equal(world.moves.length, moves)
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

t.test('a direct path costs two echoes a second and side, and a full-size one each 3 s', async (t) => {
  const world = new World().start().run(10_000)
  const before = { ...world.counts }
  world.run(60_000)
  t.equal(world.counts.probe - before.probe, 0)
  t.equal(world.counts.call - before.call, 0)
  t.ok(
    world.counts.echo - before.echo <= 2 * (2 * 60 + 20) + 2,
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

t.test('where nothing punches, tries grow rare', async (t) => {
  const world = new World()
  world.udp = false
  world.start().run(60_000)
  const before = world.counts.probe
  world.run(10 * 60_000)
  t.equal(world.rungs(), 'relay-tcp relay-tcp')
  t.ok(world.counts.probe - before < 20 * 150, `${world.counts.probe - before} probes in ten minutes`)
})
