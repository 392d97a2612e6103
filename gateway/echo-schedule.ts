// Which echoes a path sends when, and what came back on each rung. Pure. The rung in use is asked always, the others when
// it would help:
//
//   in use             small ones every 500 ms, one of the size it must carry every 3 s; a burst when one is missed
//   in use, followed   the controlled side hears by the other's that packets come, and asks every 2 s, while all is well
//   being validated    every 100 ms, until it carries traffic
//   all, at once       when the burst was not answered (suspicion.ts), until one that answers takes over

import { RUNGS, type Rung } from '../lib/status.ts'
import { ECHO_SIZES, type EchoSize } from './echo.ts'
import { RungHealth } from './rung-health.ts'
import { BURST_INTERVAL_MS, type Suspicion } from './suspicion.ts'

/** On the rung in use: of the controlling side, and of the other while the first does not ask. */
export const ECHO_INTERVAL_MS = 500
/** Of the controlled side, while those of the other come. */
const FOLLOWED_INTERVAL_MS = 2_000
/** The other's next echo is late. */
const FOLLOWED_MS = 1.2 * ECHO_INTERVAL_MS
/** One of the size that the path is trusted with, to notice when it carries small packets only. */
const LARGE_INTERVAL_MS = 3_000
/** On a narrow path: whether it carries full-size packets again. */
const WIDEN_INTERVAL_MS = 60_000
const VALIDATION_INTERVAL_MS = 100

export type DueEcho = { readonly rung: Rung; readonly sequence: number; readonly size: EchoSize }

/** What the path knows of its rungs now. */
export type EchoNeeds = {
  readonly inUse: Rung | 'none'
  /** The size, beside small ones, that the rung in use must carry. */
  readonly large: 'least' | 'full' | undefined
  readonly validated: readonly Rung[]
  /** Rungs that packets to the peer may pass on; what is sent on others would be lost for sure. */
  readonly usable: readonly Rung[]
  readonly suspicion: Suspicion
}

export class EchoSchedule {
  readonly #controlling: boolean
  #health = freshHealth()
  #sequence = 0

  constructor(controlling: boolean) {
    this.#controlling = controlling
  }

  get health(): Readonly<Record<Rung, RungHealth>> {
    return this.#health
  }

  /** What was measured before says nothing any more. */
  startOver(): void {
    this.#health = freshHealth()
  }

  /** @returns the echoes to send now; they count as sent. */
  due(needs: EchoNeeds, nowMs: number): readonly DueEcho[] {
    const echoes: DueEcho[] = []
    const send = (rung: Rung, size: EchoSize): void => {
      const sequence = this.#sequence++ >>> 0
      this.#health[rung].sent(sequence, size, nowMs)
      echoes.push({ rung, sequence, size })
    }
    for (const rung of RUNGS)
      for (const size of ECHO_SIZES) {
        const interval = this.#interval(rung, size, needs, nowMs)
        if (interval !== undefined && nowMs - this.#health[rung].lastSentMs(size) >= interval) send(rung, size)
      }
    // All rungs at the same moment: at different ones, one would win by chance.
    for (const rung of needs.suspicion.isToCompare(nowMs) ? RUNGS : []) {
      if (rung !== needs.inUse && !needs.usable.includes(rung)) continue
      send(rung, 'small')
      if (rung !== needs.inUse && rung !== 'relay-tcp') send(rung, 'full')
    }
    return echoes
  }

  /** When the next one is due, or the answer to the last one late. */
  nextMs(needs: EchoNeeds, nowMs: number): number {
    const followedMs = this.#followedMs(needs)
    const times = [followedMs > nowMs ? followedMs : nowMs + ECHO_INTERVAL_MS]
    for (const rung of RUNGS)
      for (const size of ECHO_SIZES) {
        const interval = this.#interval(rung, size, needs, nowMs)
        if (interval !== undefined) times.push(this.#health[rung].lastSentMs(size) + interval)
      }
    if (needs.inUse === 'none') return Math.min(...times)
    const health = this.#health[needs.inUse]
    for (const size of ECHO_SIZES) {
      const lateMs = health.lastSentMs(size) + health.timeoutMs + 1
      if (health.lastSentMs(size) > health.lastReplyMs(size) && lateMs > nowMs) times.push(lateMs)
    }
    return Math.min(...times)
  }

  /** Until when the other side's echoes tell enough: those of the rung in use alone, since in doubt it asks on all. */
  #followedMs({ inUse }: EchoNeeds): number {
    if (this.#controlling || inUse === 'none') return -Infinity
    const { lastRequestMs } = this.#health[inUse]
    const isDoubted = RUNGS.some(
      (rung) => rung !== inUse && lastRequestMs - this.#health[rung].lastRequestMs < FOLLOWED_MS,
    )
    return isDoubted ? -Infinity : lastRequestMs + FOLLOWED_MS
  }

  /** How often a rung is asked now; undefined: not at all. An idle, healthy path asks only the rung in use. */
  #interval(rung: Rung, size: EchoSize, needs: EchoNeeds, nowMs: number): number | undefined {
    const { inUse, large, validated, suspicion } = needs
    const silent = suspicion.sinceMs !== undefined
    if (rung === inUse) {
      // Until the burst is over it is this rung's own affair: a short stall moves no packet to the relay.
      if (suspicion.isBurst(nowMs)) {
        if (size === 'small') return BURST_INTERVAL_MS.small
        if (rung !== 'relay-tcp') return BURST_INTERVAL_MS.large
      }
      if (size === 'small' && silent) return undefined
      if (size === 'small') return nowMs < this.#followedMs(needs) ? FOLLOWED_INTERVAL_MS : ECHO_INTERVAL_MS
      if (size === large) return LARGE_INTERVAL_MS
      return size === 'full' && large === 'least' ? WIDEN_INTERVAL_MS : undefined
    }
    if (silent || !validated.includes(rung)) return undefined
    if (rung === 'relay-tcp') return size === 'small' ? VALIDATION_INTERVAL_MS : undefined
    if (size === 'least' && this.#health[rung].silentSinceMs('full', nowMs) === undefined) return undefined
    return VALIDATION_INTERVAL_MS
  }
}

const freshHealth = (): Record<Rung, RungHealth> => ({
  direct: new RungHealth(),
  'relay-udp': new RungHealth(),
  'relay-tcp': new RungHealth(),
})
