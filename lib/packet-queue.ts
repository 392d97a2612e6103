// What waits to be sent to one receiver, by whom or what it belongs to. Each takes its turn with one packet, so that one's
// bulk does not delay another's few; and what waits too long is dropped, the oldest first, so that the TCP inside learns
// of the bottleneck soon. A bound in time and not in packets serves 2 Mbit/s and 200 alike.
//
// Small packets take turns of their own: inside WireGuard nothing else tells what somebody waits for (a question, a key
// stroke, a voice, an acknowledgement) from bulk. They overtake by tens of packets, where WireGuard allows thousands, and
// they may wait for longer: they are no bottleneck's cause, and who waits for them waits longer for what is lost.
//
// No controlled delay (RFC 8289): its drops come ever faster until senders slow down, and BBR does not for them.

/** With its headers here, the datagram that every IPv4 host must take (576 bytes, RFC 791): names, voice, calls. */
const SMALL_BYTES = 640
const SMALL_WAIT_MS = 500
/** They stay however old, or a link that takes longer for one packet than it may wait would get none. */
const MIN_PACKETS = 4
/** Of all together; bounds the memory. */
const MAX_PACKETS = 2048

export type Waiting<Of> = { readonly frame: Buffer; readonly of: Of; readonly sinceMs: number }
/** By whose they are; the first is next. */
type Turns<Of> = Map<Of, Waiting<Of>[]>

export class PacketQueue<Of> {
  readonly #small: Turns<Of> = new Map()
  readonly #large: Turns<Of> = new Map()
  readonly #dropped: (of: Of) => void
  #smallIsNext = true
  #length = 0

  /** @param dropped told of each packet that is never sent. */
  constructor(dropped: (of: Of) => void) {
    this.#dropped = dropped
  }

  get length(): number {
    return this.#length
  }

  /** @param maxWaitMs of packets that are not small. */
  push(frame: Buffer, of: Of, nowMs: number, maxWaitMs: number): void {
    if (this.#length >= MAX_PACKETS) this.#dropNext()
    const turns = frame.length <= SMALL_BYTES ? this.#small : this.#large
    const waiting = turns.get(of)
    if (waiting === undefined) turns.set(of, [{ frame, of, sinceMs: nowMs }])
    else {
      waiting.push({ frame, of, sinceMs: nowMs })
      this.#expire(waiting, this.#oldest(turns, nowMs, maxWaitMs))
    }
    this.#length++
  }

  /** @returns what is to be sent next; undefined if nothing waits. */
  shift(nowMs: number, maxWaitMs: number): Waiting<Of> | undefined {
    const first = this.#smallIsNext ? this.#small : this.#large
    const turns = first.size > 0 ? first : first === this.#small ? this.#large : this.#small
    this.#smallIsNext = turns === this.#large
    for (const [of, waiting] of turns) {
      this.#expire(waiting, this.#oldest(turns, nowMs, maxWaitMs))
      this.#length--
      turns.delete(of)
      const next = waiting.shift()!
      if (waiting.length > 0) turns.set(of, waiting)
      return next
    }
    return undefined
  }

  /** Drops all. */
  clear(): void {
    while (this.#length > 0) this.#dropNext()
  }

  #oldest(turns: Turns<Of>, nowMs: number, maxWaitMs: number): number {
    return nowMs - (turns === this.#small ? Math.max(SMALL_WAIT_MS, maxWaitMs) : maxWaitMs)
  }

  #expire(waiting: Waiting<Of>[], sinceMs: number): void {
    while (waiting.length > MIN_PACKETS && waiting[0]!.sinceMs < sinceMs) {
      this.#length--
      this.#dropped(waiting.shift()!.of)
    }
  }

  #dropNext(): void {
    const turns = this.#large.size > 0 ? this.#large : this.#small
    const [of, waiting] = turns.entries().next().value!
    this.#length--
    this.#dropped(waiting.shift()!.of)
    if (waiting.length === 0) turns.delete(of)
  }
}
