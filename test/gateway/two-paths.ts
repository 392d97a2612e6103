// Two paths, one per side, over a network of the test's making: a virtual clock, and switches for every link.

import type { SocketAddress } from '../../lib/address.ts'
import type { Rung } from '../../lib/status.ts'
import type { EchoSize } from '../../gateway/echo.ts'
import { Path, type PathAction } from '../../gateway/path.ts'

const LATENCY_MS = 10
export const ADDRESS: Record<Side, SocketAddress> = {
  a: { address: '198.51.100.1', port: 4000, family: 4 },
  b: { address: '203.0.113.1', port: 5000, family: 4 },
}
type Side = 'a' | 'b'
type Move = { side: Side; rung: Rung | 'cold'; atMs: number }
export const ALWAYS = { coldAfterMs: 1e9, always: true }
/** A pair that is up while someone has traffic, and a little longer. */
export const ON_DEMAND = { coldAfterMs: 60_000, always: false }

/** What the network lets through; a test turns switches while time goes on. */
export class World {
  nowMs = 0
  udp = true
  relay = true
  /** Nothing that is sent directly arrives at this side. */
  deaf: Side | undefined
  /** The relay's UDP: whether it forwards. Sessions are bound as soon as one side wants one. */
  udpRelay = false
  /** The sizes of echoes that get through directly, and over the relay's UDP. */
  sizes: readonly EchoSize[] = ['small', 'least', 'full']
  /** The gateway process of a side: a dead one answers nothing. */
  readonly alive = { a: true, b: true }
  lossPercent = 0
  /** Each way; up to twice as long by chance where it `varies`. */
  latencyMs = LATENCY_MS
  varies = false
  /** How late both sides step their paths: their machines have no time for them. */
  lateMs = 0
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
  #random: number

  /** @param seed of what is lost. */
  constructor(rung: Rung | 'cold' = 'cold', interest = ALWAYS, seed = 1) {
    this.#random = seed
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
        // Timers are late, by a little.
        if (this.alive[side] && (due.length > 0 || path.nextMs + this.lateMs < this.nowMs))
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
        return this.#send(this.udp && this.deaf !== peer, peer, () => {
          this.paths[peer].probed(ADDRESS[side], this.nowMs)
          this.#send(this.udp && this.deaf !== side, side, () =>
            this.paths[side].probeAnswered(ADDRESS[peer], 2 * this.latencyMs, this.nowMs),
          )
        })
      case 'echo': {
        this.counts.echo++
        this.echoes[action.rung]++
        const { rung, sequence, size, interested } = action
        const fits = rung === 'relay-tcp' || this.sizes.includes(size)
        if (rung === 'direct' && !this.#session && !this.#endpoint[side]) this.wasted++
        const carried = (to: Side) =>
          rung === 'direct'
            ? this.udp && this.deaf !== to && (this.#session || this.#endpoint.a)
            : rung === 'relay-udp'
              ? this.udpRelay
              : this.relay
        return this.#send(fits && carried(peer), peer, () => {
          if (rung === 'direct') this.#session = true
          this.paths[peer].echoRequested(rung, interested, this.nowMs)
          this.#send(carried(side), side, () => this.paths[side].echoReplied(rung, sequence, this.nowMs))
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
    const moreMs = this.varies ? (this.latencyMs * (this.#random % 1_000)) / 1_000 : 0
    this.#events.push({ atMs: this.nowMs + this.latencyMs + moreMs, run: () => this.alive[to] && run() })
  }

  rungs(): string {
    return `${this.paths.a.rung} ${this.paths.b.rung}`
  }
}

const other = (side: Side): Side => (side === 'a' ? 'b' : 'a')
