// How much a sender of relayed packets may have under way, so that nothing queues for long, whatever the bottleneck: in the
// kernel's send buffer (which grows to megabytes), in a modem, or before the other end's event loop.
//
// Marks in the stream come back as acknowledgements and tell the round-trip time. What it is above the path's own is the
// queue's doing. Once a round the window is made what would leave a short queue, as FAST TCP does (Wei, Jin, Low and
// Hegde, 2006): with a window w the rate is w / rtt, so w × (base + target) / rtt is that window. No bandwidth is assumed.
// The path's own time, the base, is what a round takes while little of ours is under way, which is brought about every
// BASE_MS: so much of the path's jitter counts as the path's and not as ours. Where others keep a long queue filled it gives
// way, as LEDBAT does (RFC 6817), though not to nothing.
//
// Now and then nothing comes back for a while although the queue is short: a radio pauses, a busy machine does something
// else. That is no queue of ours, and what waits meanwhile is not to be thrown away for it: by `clock` it has not waited.
//
// Time is an argument, in milliseconds of any clock that does not go back.

/** The queue that is aimed at: this, or on long paths a part of the base. With less, pauses would let the link run idle. */
const TARGET_MS = 15
const TARGET_PART = 1 / 8
const INITIAL_BYTES = 16 * 1024
/** Five full packets. */
const MIN_BYTES = 8 * 1024
/** 600 Mbit/s at 200 ms; bounds the memory that a connection takes. */
const MAX_BYTES = 16 * 1024 * 1024
const MAX_GROWTH = 2
const MAX_SHRINK = 0.5
const MARKS_PER_WINDOW = 16
/** Two full packets. */
const MIN_MARK_BYTES = 3000
/** A round ends with so many marks that were set in it; the least of their times counts, since noise only adds. */
const MARKS_PER_ROUND = 3
const BASE_MS = 10_000
/** A window that was not the limit for so long shrinks to twice what was used, as links change meanwhile (RFC 7661). */
const UNUSED_MS = 2_000

/** Of one pause, so much does not count; a longer one is taken for a link that is down. */
const MAX_PAUSE_MS = 1_000

type Mark = { readonly number: number; readonly setMs: number; readonly upTo: number }

export class PacketWindow {
  #windowBytes = INITIAL_BYTES
  #sentBytes = 0
  #acknowledgedBytes = 0
  #markedBytes = 0
  /** Those under way, in the order in which they were set. */
  readonly #marks: Mark[] = []
  #nextMark = 0
  /** Until the first queue shows, the window doubles each round. */
  #starting = true
  /** The window kept something waiting in this round. */
  #limited = false
  /** The most that was under way since `usedSinceMs`, when the window was last the limit. */
  #usedBytes = 0
  #usedSinceMs = 0
  /** Marks before this one were set before the round began. */
  #roundFrom = 0
  #roundMarks = 0
  #leastMs = Infinity
  #sumMs = 0
  #baseMs = Infinity
  #basedAtMs = 0
  /** This round is to tell the base. */
  #draining = false
  /** Pauses up to the last acknowledgement, in sum. */
  #pausedMs = 0
  #acknowledgedMs = -Infinity

  get bytes(): number {
    if (!this.#draining) return this.#windowBytes
    const withoutQueue = (this.#windowBytes * this.#baseMs) / (this.#baseMs + this.#targetMs)
    return Math.max(MIN_BYTES, withoutQueue / 2)
  }

  /** What the path takes is not known yet: that something waits says little. */
  get starting(): boolean {
    return this.#starting
  }

  get #targetMs(): number {
    return Math.max(TARGET_MS, this.#baseMs * TARGET_PART)
  }

  /** Time as what waits for this connection has waited: it stands still while the path pauses. */
  clock(nowMs: number): number {
    return nowMs - this.#pausedMs - this.#pauseMs(nowMs)
  }

  /** How long the next acknowledgement is overdue. */
  #pauseMs(nowMs: number): number {
    const [next] = this.#marks
    if (next === undefined || this.#baseMs === Infinity) return 0
    const dueMs = next.setMs + this.#baseMs + this.#targetMs
    return Math.min(MAX_PAUSE_MS, Math.max(0, nowMs - Math.max(dueMs, this.#acknowledgedMs)))
  }

  /** Asked by who has something to send. */
  get open(): boolean {
    const open = this.#sentBytes - this.#acknowledgedBytes < this.bytes
    if (!open) this.#limited = true
    return open
  }

  sent(bytes: number): void {
    this.#sentBytes += bytes
    this.#usedBytes = Math.max(this.#usedBytes, this.#sentBytes - this.#acknowledgedBytes)
  }

  /**
   * To be asked after each `sent` and `acknowledge`.
   * @returns the number of a mark to be sent now; undefined while none is due.
   */
  mark(nowMs: number): number | undefined {
    this.#forgetUnused(nowMs)
    const unmarked = this.#sentBytes - this.#markedBytes
    // While none is under way nobody would say that the rest has arrived.
    const part = this.#marks.length === 0 ? 0 : this.bytes / MARKS_PER_WINDOW
    if (unmarked < Math.max(MIN_MARK_BYTES, part)) return undefined
    this.#markedBytes = this.#sentBytes
    this.#marks.push({ number: this.#nextMark, setMs: nowMs, upTo: this.#sentBytes })
    return this.#nextMark++
  }

  /** @returns false for a mark that is not under way. */
  acknowledge(number: number, nowMs: number): boolean {
    const index = this.#marks.findIndex((mark) => mark.number === number)
    if (index < 0) return false
    const { setMs, upTo } = this.#marks[index]!
    this.#pausedMs += this.#pauseMs(nowMs)
    this.#acknowledgedMs = nowMs
    this.#marks.splice(0, index + 1)
    this.#acknowledgedBytes = upTo
    if (number < this.#roundFrom) return true
    this.#leastMs = Math.min(this.#leastMs, nowMs - setMs)
    this.#sumMs += nowMs - setMs
    this.#roundMarks++
    if (this.#roundMarks >= MARKS_PER_ROUND) this.#endRound(nowMs)
    return true
  }

  #forgetUnused(nowMs: number): void {
    if (!this.#limited && nowMs - this.#usedSinceMs < UNUSED_MS) return
    const enough = Math.max(INITIAL_BYTES, 2 * this.#usedBytes)
    if (!this.#limited && enough < this.#windowBytes) {
      this.#windowBytes = enough
      this.#starting = true
    }
    this.#usedSinceMs = nowMs
    this.#usedBytes = 0
  }

  #endRound(nowMs: number): void {
    // With the least window nothing of the queue is ours, or nothing can be done about it.
    if (this.#draining || this.#baseMs === Infinity || this.#windowBytes === MIN_BYTES) {
      const beforeMs = this.#baseMs
      this.#baseMs = this.#sumMs / this.#roundMarks
      this.#basedAtMs = nowMs
      // The window shrank for a queue that was not its doing.
      if (this.#baseMs > beforeMs + this.#targetMs) this.#starting = true
    }
    this.#baseMs = Math.min(this.#baseMs, this.#leastMs + this.#targetMs / 2)
    // Only a window that was the limit says anything of what fits.
    if (this.#limited && !this.#draining) this.#adjust()
    this.#draining = !this.#draining && this.#limited && nowMs - this.#basedAtMs >= BASE_MS
    this.#roundFrom = this.#nextMark
    this.#roundMarks = 0
    this.#leastMs = Infinity
    this.#sumMs = 0
    this.#limited = false
  }

  #adjust(): void {
    if (this.#leastMs - this.#baseMs > this.#targetMs / 2) this.#starting = false
    const wanted = (this.#baseMs + this.#targetMs) / this.#leastMs
    const factor = this.#starting ? MAX_GROWTH : Math.min(MAX_GROWTH, Math.max(MAX_SHRINK, wanted))
    this.#windowBytes = Math.min(MAX_BYTES, Math.max(MIN_BYTES, this.#windowBytes * factor))
  }
}
