// What waits to be sent to one receiver, by whom or what it belongs to. Each takes its turn with one packet, so that one's
// bulk does not delay another's few; and what waits too long is dropped, the oldest first, so that the TCP inside learns
// of the bottleneck soon. A bound in time and not in packets serves 2 Mbit/s and 200 alike.
//
// No controlled delay (RFC 8289): its drops come ever faster until senders slow down, and BBR does not for them.

/** They stay however old, or a link that takes longer for one packet than it may wait would get none. */
const MIN_PACKETS = 4
/** Of all together; bounds the memory. */
const MAX_PACKETS = 2048

export type Waiting<Of> = { readonly frame: Buffer; readonly of: Of; readonly sinceMs: number }

export class PacketQueue<Of> {
  /** Those with something waiting; the first is next. */
  readonly #turns = new Map<Of, Waiting<Of>[]>()
  readonly #dropped: (of: Of) => void
  #length = 0

  /** @param dropped told of each packet that is never sent. */
  constructor(dropped: (of: Of) => void) {
    this.#dropped = dropped
  }

  get length(): number {
    return this.#length
  }

  push(frame: Buffer, of: Of, nowMs: number, maxWaitMs: number): void {
    if (this.#length >= MAX_PACKETS) this.#dropNext()
    const waiting = this.#turns.get(of)
    if (waiting === undefined) this.#turns.set(of, [{ frame, of, sinceMs: nowMs }])
    else {
      waiting.push({ frame, of, sinceMs: nowMs })
      this.#expire(waiting, nowMs - maxWaitMs)
    }
    this.#length++
  }

  /** @returns what is to be sent next; undefined if nothing waits. */
  shift(nowMs: number, maxWaitMs: number): Waiting<Of> | undefined {
    for (const [of, waiting] of this.#turns) {
      this.#expire(waiting, nowMs - maxWaitMs)
      this.#length--
      this.#turns.delete(of)
      const next = waiting.shift()!
      if (waiting.length > 0) this.#turns.set(of, waiting)
      return next
    }
    return undefined
  }

  /** Drops all. */
  clear(): void {
    while (this.#length > 0) this.#dropNext()
  }

  #expire(waiting: Waiting<Of>[], sinceMs: number): void {
    while (waiting.length > MIN_PACKETS && waiting[0]!.sinceMs < sinceMs) {
      this.#length--
      this.#dropped(waiting.shift()!.of)
    }
  }

  #dropNext(): void {
    const [of, waiting] = this.#turns.entries().next().value!
    this.#length--
    this.#dropped(waiting.shift()!.of)
    if (waiting.length === 0) this.#turns.delete(of)
  }
}
