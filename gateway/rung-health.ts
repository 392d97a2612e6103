// What echoes tell about one rung to one peer: its round-trip time, its loss, and which sizes it carries now. Pure; the
// owner says when echoes leave and come back.

import { ECHO_SIZES, type EchoSize } from './echo.ts'

/** Silence longer than this is a loss, whatever the round-trip time is. */
const MAX_TIMEOUT_MS = 3_000
/** Before any reply told how long one takes. */
const FIRST_TIMEOUT_MS = 1_000
/** Round trips grow by so much from one sample to the next, at the most: a longer one may have met a standstill. */
const MAX_GROWTH = 3
/** The first sample, at the most. */
const MAX_FIRST_SAMPLE_MS = 1_000
/** A reply sooner than this is never a loss: schedulers and radios take that long without any fault. */
const MIN_TIMEOUT_MS = 250
/** Echoes in flight that are remembered; older ones are forgotten, and their replies count as none. */
const MAX_OUTSTANDING = 32
/** A rung that answers small echoes and no full-size one for so long is taken for narrow. */
const NARROW_AFTER_MS = 1_000
/** After such a pause, longer than any between echoes of a rung in use, they are a new series: what the last one of the old met says nothing now. */
const SERIES_GAP_MS = 5_000
/** Each outcome counts that much less than the one after it: the last hundred or so make the loss. */
const LOSS_DECAY = 1 - 1 / 64

type Sent = {
  readonly sequence: number
  readonly atMs: number
  /** WireGuard had a session, since a reply came just before: it did not wait for a handshake. */
  readonly inSession: boolean
}

/** Echoes of one size. */
class Track {
  lastSentMs = -Infinity
  lastReplyMs = -Infinity
  readonly #outstanding: Sent[] = []
  /** When the first echo left that has no reply after it. */
  #unansweredSinceMs: number | undefined
  #answered = 0
  #lost = 0

  sent(sequence: number, nowMs: number): void {
    if (nowMs - this.lastSentMs > SERIES_GAP_MS) this.#unansweredSinceMs = nowMs
    this.#unansweredSinceMs ??= nowMs
    this.lastSentMs = nowMs
    this.#outstanding.push({ sequence, atMs: nowMs, inSession: nowMs - this.lastReplyMs <= SERIES_GAP_MS })
    while (nowMs - this.#outstanding[0]!.atMs > MAX_TIMEOUT_MS || this.#outstanding.length > MAX_OUTSTANDING) {
      this.#outstanding.shift()
      this.#settle(false)
    }
  }

  /** @returns the echo; undefined if there is none such under way. */
  replied(sequence: number, nowMs: number): Sent | undefined {
    const index = this.#outstanding.findIndex((sent) => sent.sequence === sequence)
    const sent = this.#outstanding[index]
    if (sent === undefined) return undefined
    this.#outstanding.splice(index, 1)
    this.#settle(true)
    this.lastReplyMs = nowMs
    this.#unansweredSinceMs = this.#outstanding.find((other) => other.sequence > sequence)?.atMs
    return sent
  }

  /** @returns since when none has been answered, if longer than a reply may take; undefined while all is well. */
  silentSinceMs(nowMs: number, timeoutMs: number): number | undefined {
    const since = this.#unansweredSinceMs
    return since !== undefined && nowMs - since > timeoutMs ? since : undefined
  }

  get loss(): number {
    const all = this.#answered + this.#lost
    return all === 0 ? 0 : this.#lost / all
  }

  forgetLoss(): void {
    this.#answered = 0
    this.#lost = 0
  }

  forgive(ms: number): void {
    if (this.#unansweredSinceMs !== undefined) this.#unansweredSinceMs += ms
  }

  #settle(answered: boolean): void {
    this.#answered = this.#answered * LOSS_DECAY + Number(answered)
    this.#lost = this.#lost * LOSS_DECAY + Number(!answered)
  }
}

export class RungHealth {
  /** Smoothed as in TCP (RFC 6298 §2); undefined before the first reply. */
  rttMs: number | undefined
  /** How much it varies, as there. */
  #varianceMs = 0
  /** When the peer last sent an echo through this rung: a session exists and packets come in. */
  lastRequestMs = -Infinity
  readonly #tracks: Readonly<Record<EchoSize, Track>> = { small: new Track(), least: new Track(), full: new Track() }

  sent(sequence: number, size: EchoSize, nowMs: number): void {
    this.#tracks[size].sent(sequence, nowMs)
  }

  replied(sequence: number, nowMs: number): void {
    for (const size of ECHO_SIZES) {
      const sent = this.#tracks[size].replied(sequence, nowMs)
      // Only small echoes tell the round-trip time: larger ones take longer to send.
      if (sent === undefined || size !== 'small') continue
      const tookMs = nowMs - sent.atMs
      const mostMs = Math.max(MAX_FIRST_SAMPLE_MS, MAX_GROWTH * (this.rttMs ?? 0))
      if (tookMs <= mostMs || sent.inSession) this.#measured(Math.min(tookMs, mostMs))
    }
  }

  #measured(sample: number): void {
    const error = Math.abs(sample - (this.rttMs ?? sample / 2))
    this.#varianceMs = this.rttMs === undefined ? error : this.#varianceMs + (error - this.#varianceMs) / 4
    this.rttMs = this.rttMs === undefined ? sample : this.rttMs + (sample - this.rttMs) / 8
  }

  lastSentMs(size: EchoSize): number {
    return this.#tracks[size].lastSentMs
  }

  lastReplyMs(size: EchoSize): number {
    return this.#tracks[size].lastReplyMs
  }

  /** @returns since when no echo of this size has been answered, if longer than a reply may take; else undefined. */
  silentSinceMs(size: EchoSize, nowMs: number): number | undefined {
    return this.#tracks[size].silentSinceMs(nowMs, this.timeoutMs)
  }

  /** @returns the largest packets that the rung has carried both ways since then, small ones included; undefined: none. */
  provenSize(fromMs: number, nowMs: number): 'least' | 'full' | undefined {
    if (this.lastReplyMs('small') < fromMs) return undefined
    if (this.lastReplyMs('full') >= fromMs) return 'full'
    const silentSince = this.silentSinceMs('full', nowMs)
    const narrow = silentSince !== undefined && nowMs - Math.max(silentSince, fromMs) >= NARROW_AFTER_MS
    return narrow && this.lastReplyMs('least') >= fromMs ? 'least' : undefined
  }

  get timeoutMs(): number {
    if (this.rttMs === undefined) return FIRST_TIMEOUT_MS
    return Math.min(MAX_TIMEOUT_MS, Math.max(MIN_TIMEOUT_MS, this.rttMs + 4 * this.#varianceMs))
  }

  /** Counts anew: what was lost before the rung was used, or while it was down, is no loss of those who use it now. */
  forgetLoss(): void {
    this.#tracks.small.forgetLoss()
  }

  /** Share of the last hundred or so small echoes that were not answered, 0 to 1. */
  get loss(): number {
    return this.#tracks.small.loss
  }

  /** So much of the time in which nothing was answered proves nothing about the rung. */
  forgive(ms: number): void {
    for (const size of ECHO_SIZES) this.#tracks[size].forgive(ms)
  }
}
