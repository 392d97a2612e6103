// The doubt about the rung in use: an echo is missed, a burst of them decides, and then all rungs are compared. Pure.
//
//   missed ── burst of 8 ──▶ answered: nothing was the matter, and no other rung was bothered
//                        ──▶ not answered: all rungs asked at the same moments, until one that answers takes over

import type { EchoSize } from './echo.ts'
import type { RungHealth } from './rung-health.ts'

/**
 * So many echoes, so far apart, before a path counts as dead: of 10 % loss each way one echo in five is lost, and 8 in a row
 * once in a million times. Where only large ones are missed there is more time, and they are larger.
 */
const BURST_ECHOES = 8
export const BURST_INTERVAL_MS = { small: 30, large: 60 } as const
/** How often all rungs are asked: first often, then less and less. */
const COMPARE = { minMs: 100, maxMs: 2_000 }
/** How often the rest of the gateway is told. */
const TELL_INTERVAL_MS = 1_000

/** Which echoes the rung in use does not answer: none of any size, or only large ones. */
export type Missed = 'nothing' | 'large' | 'all'

export class Suspicion {
  sinceMs: number | undefined
  /** Since when the echoes are missed that are missed now. */
  silentSinceMs = 0
  #missed: Missed = 'nothing'
  #toldMs = -Infinity
  #compareMs = -Infinity

  /** @param large the size beside small ones that the rung must carry. */
  look(health: RungHealth, large: EchoSize | undefined, nowMs: number): Missed {
    const small = health.silentSinceMs('small', nowMs)
    const silentSince = small ?? (large && health.silentSinceMs(large, nowMs))
    if (silentSince === undefined) {
      this.clear()
      return 'nothing'
    }
    const missed = small === undefined ? 'large' : 'all'
    // Small packets pass again: the larger ones get the same chance before they are given up.
    if (this.sinceMs === undefined || (missed === 'large' && this.#missed === 'all')) this.sinceMs = nowMs
    this.#missed = missed
    this.silentSinceMs = silentSince
    return missed
  }

  clear(): void {
    this.sinceMs = undefined
    this.#missed = 'nothing'
  }

  /** Time in which we ourselves did not run. */
  forgive(ms: number): void {
    if (this.sinceMs !== undefined) this.sinceMs += ms
  }

  /** 0 while there is none. */
  ageMs(nowMs: number): number {
    return this.sinceMs === undefined ? 0 : nowMs - this.sinceMs
  }

  isBurst(nowMs: number): boolean {
    return this.sinceMs !== undefined && nowMs - this.sinceMs < this.#burstMs
  }

  /** The burst is over and was not answered, as far as one can tell yet. */
  isPastBurst(nowMs: number): boolean {
    return this.sinceMs !== undefined && nowMs - this.sinceMs >= this.#burstMs
  }

  /** The answers to the whole burst would have come. */
  isCertain({ timeoutMs }: RungHealth, nowMs: number): boolean {
    return this.sinceMs !== undefined && nowMs - this.sinceMs >= this.#burstMs + timeoutMs
  }

  /** @returns true once a second: others want to know. */
  isToBeTold(nowMs: number): boolean {
    if (this.sinceMs === undefined || nowMs - this.#toldMs < TELL_INTERVAL_MS) return false
    this.#toldMs = nowMs
    return true
  }

  /** @returns true when it is time to ask all rungs. */
  isToCompare(nowMs: number): boolean {
    if (!this.isPastBurst(nowMs) || nowMs < this.#compareMs) return false
    this.#compareMs = nowMs + Math.max(COMPARE.minMs, Math.min(COMPARE.maxMs, this.ageMs(nowMs) / 8))
    return true
  }

  /** When the next comparison is due; Infinity without a suspicion. */
  get nextMs(): number {
    return this.sinceMs === undefined ? Infinity : Math.max(this.#compareMs, this.sinceMs + this.#burstMs)
  }

  get #burstMs(): number {
    return BURST_ECHOES * BURST_INTERVAL_MS[this.#missed === 'large' ? 'large' : 'small']
  }
}
