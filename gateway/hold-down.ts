// How long a rung that fell must wait before it carries traffic again: longer each time that it falls soon after. Pure.

import { backoffMs } from '../lib/backoff.ts'

/** A path that fails again so soon after it came up must wait longer before it carries traffic again. */
const FLAP_MS = 4_000
const HOLD_DOWN = { baseMs: 1_000, capMs: 30_000 }

export class HoldDown {
  untilMs = -Infinity
  #roseMs = -Infinity
  #falls = 0

  rose(nowMs: number): void {
    this.#roseMs = nowMs
  }

  fell(nowMs: number): void {
    this.#falls = nowMs - this.#roseMs < FLAP_MS ? this.#falls + 1 : 1
    this.untilMs = nowMs + backoffMs(HOLD_DOWN, this.#falls, 1)
  }
}
