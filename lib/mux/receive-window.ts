// How much the other side may send on a stream before what it sent is consumed here. A window starts small, doubles when
// it is what holds the sender up while the consumer here keeps up, and never grows for a consumer that does not: so it
// needs neither a clock nor a round-trip time. What all streams of a session may have outstanding is bounded together,
// and each has its floor in that, so that streams which nobody reads leave something for those that come later. A window
// is its stream's, used or not: many that each took what another left for a moment would send ever smaller pieces.

import { MuxError } from '../wire/mux.ts'

/** Of one session. */
export const MAX_STREAMS = 512
/**
 * What a session's streams may have been granted and not consumed, all together. Beside it waits a chunk of each who sends
 * to the other side.
 */
export const BUDGET_BYTES = 9 * 1024 * 1024
export const MIN_WINDOW_BYTES = 8 * 1024
export const INITIAL_WINDOW_BYTES = 256 * 1024
/** 80 ms at 420 Mbit/s. */
export const MAX_WINDOW_BYTES = 4 * 1024 * 1024
/** A new stream takes no more than this part of what is free. */
const INITIAL_PART = 1 / 16
/** A window that grows takes no more than this part of what is free, and grows by a quarter or not at all. */
const GROWTH_PART = 1 / 2
const LEAST_GROWTH = 1.25
/** Large windows shrink where less than this part of them is free. */
const FREE_PART = 1 / 8
/** A window is renewed when a quarter of it is consumed, or so much. */
const RENEW_BYTES = 128 * 1024

export class WindowBudget {
  /** Of streams that are open: what each was granted, its floor at least. */
  charged = 0
  streams = 0

  /** Beyond the floors of all streams that may yet be opened. */
  get free(): number {
    return BUDGET_BYTES - this.charged - MIN_WINDOW_BYTES * (MAX_STREAMS - this.streams)
  }
}

export class ReceiveWindow {
  readonly #budget: WindowBudget
  #windowBytes: number
  #received = 0
  #consumed = 0
  #limit: number
  #charge: number
  #ended = false
  #closed = false

  /** There is room for it: fewer than MAX_STREAMS are open. */
  constructor(budget: WindowBudget) {
    this.#budget = budget
    budget.streams++
    this.#windowBytes = Math.max(
      MIN_WINDOW_BYTES,
      Math.min(INITIAL_WINDOW_BYTES, Math.floor(budget.free * INITIAL_PART)),
    )
    this.#limit = this.#windowBytes
    this.#charge = this.#windowBytes
    budget.charged += this.#charge
  }

  get windowBytes(): number {
    return this.#windowBytes
  }
  get ended(): boolean {
    return this.#ended
  }
  get received(): number {
    return this.#received
  }
  get consumed(): number {
    return this.#consumed
  }
  /** The offset up to which the other side may send. */
  get limit(): number {
    return this.#limit
  }
  /** Received and not consumed. */
  get waiting(): number {
    return this.#received - this.#consumed
  }
  /** What may still come. */
  get open(): number {
    return this.#limit - this.#received
  }

  /** @throws MuxError for more than the window. */
  receive(bytes: number): void {
    if (bytes > this.open) throw new MuxError('data beyond the window', `${bytes - this.open} bytes`)
    this.#received += bytes
  }

  /** @returns true if the other side is to be told of a new limit, which `renew` made. */
  consume(bytes: number): boolean {
    this.#consumed += bytes
    const due = Math.min(this.#windowBytes / 4, RENEW_BYTES)
    const renewed = !this.#ended && this.#consumed + this.#windowBytes - this.#limit >= due && this.#renew()
    this.#recharge()
    return renewed
  }

  /** The other side has more to send than it may. @returns true if it may send more now. */
  blocked(): boolean {
    if (this.#ended || this.waiting > this.#windowBytes / 2) return false
    const free = Math.floor(this.#budget.free * GROWTH_PART)
    const grown = Math.min(2 * this.#windowBytes, MAX_WINDOW_BYTES, this.#windowBytes + free)
    if (grown < Math.min(LEAST_GROWTH * this.#windowBytes, MAX_WINDOW_BYTES) || grown === this.#windowBytes)
      return false
    this.#windowBytes = grown
    return this.#renew()
  }

  /** Nothing more comes. */
  end(): void {
    this.#ended = true
    this.#limit = this.#received
    this.#recharge()
  }

  /** Gives back what it took of the budget. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#budget.charged -= this.#charge
    this.#budget.streams--
  }

  #renew(): boolean {
    // Where others find nothing free any more, large windows shrink as they are used.
    if (this.#windowBytes > INITIAL_WINDOW_BYTES && this.#budget.free < this.#windowBytes * FREE_PART)
      this.#windowBytes = Math.max(INITIAL_WINDOW_BYTES, this.#windowBytes / 2)
    const limit = this.#consumed + this.#windowBytes
    if (limit <= this.#limit) return false
    this.#limit = limit
    this.#recharge()
    return true
  }

  #recharge(): void {
    if (this.#closed) return
    const outstanding = this.#limit - this.#consumed
    const charge = this.#ended ? outstanding : Math.max(this.#windowBytes, outstanding)
    this.#budget.charged += charge - this.#charge
    this.#charge = charge
  }
}
