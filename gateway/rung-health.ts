// What echoes tell about one rung to one peer: its round-trip time, and whether it carries packets now. Pure; the owner
// says when echoes leave and come back.

/** Silence longer than this is a loss, whatever the round-trip time is. */
const MAX_TIMEOUT_MS = 1_000
/** A reply sooner than this is never a loss: schedulers and radios take that long without any fault. */
const MIN_TIMEOUT_MS = 250
/** Echoes in flight that are remembered; older ones are forgotten, and their replies count as none. */
const MAX_OUTSTANDING = 32

type Sent = { readonly sequence: number; readonly atMs: number; readonly full: boolean }

export class RungHealth {
  /** Smoothed as in TCP (RFC 6298 §2, alpha 1/8); undefined before the first reply. */
  rttMs: number | undefined
  lastSentMs = -Infinity
  lastReplyMs = -Infinity
  lastFullReplyMs = -Infinity
  /** When the peer last sent an echo through this rung: a session exists and packets come in. */
  lastRequestMs = -Infinity
  #outstanding: Sent[] = []
  /** When the first echo left that has no reply after it. */
  #unansweredSinceMs: number | undefined

  sent(sequence: number, full: boolean, nowMs: number): void {
    this.lastSentMs = nowMs
    this.#unansweredSinceMs ??= nowMs
    this.#outstanding.push({ sequence, atMs: nowMs, full })
    if (this.#outstanding.length > MAX_OUTSTANDING) this.#outstanding.shift()
  }

  replied(sequence: number, nowMs: number): void {
    const index = this.#outstanding.findIndex((sent) => sent.sequence === sequence)
    const sent = this.#outstanding[index]
    if (sent === undefined) return
    this.#outstanding.splice(index, 1)
    const sample = nowMs - sent.atMs
    // Only small echoes tell the round-trip time (a full-size one takes longer to send), and only those that did not wait
    // in WireGuard for a handshake.
    if (sent.full) this.lastFullReplyMs = nowMs
    else if (sample <= MAX_TIMEOUT_MS)
      this.rttMs = this.rttMs === undefined ? sample : this.rttMs + (sample - this.rttMs) / 8
    this.lastReplyMs = nowMs
    this.#unansweredSinceMs = this.#outstanding.find((other) => other.sequence > sequence)?.atMs
  }

  /** @returns since when no echo has been answered, if longer than a reply may take; undefined while all is well. */
  silentSinceMs(nowMs: number): number | undefined {
    const since = this.#unansweredSinceMs
    return since !== undefined && nowMs - since > this.timeoutMs ? since : undefined
  }

  get timeoutMs(): number {
    const rtt = this.rttMs ?? MAX_TIMEOUT_MS / 2
    return Math.min(MAX_TIMEOUT_MS, Math.max(MIN_TIMEOUT_MS, 3 * rtt))
  }

  /** Time in which we ourselves did not run proves nothing about the rung: it is taken out of what it was silent. */
  forgive(ms: number): void {
    if (this.#unansweredSinceMs !== undefined) this.#unansweredSinceMs += ms
  }
}
