// Whether anyone wants the path to a peer: this side, which has traffic for it, or the peer, which says so in its calls
// and echoes. A pair that nobody wants is cold and costs nothing. Pure.
//
// Only a side with traffic of its own tells the peer of it. Two sides that each followed the other would never let go.

/** How long a peer's last word of interest counts: it repeats it with every echo. */
const FOLLOW_MS = 5_000

export type InterestOptions = {
  /** How long a pair stays up after its last traffic. */
  readonly coldAfterMs: number
  /** The operator wants the path up at all times. */
  readonly always: boolean
}

export class Interest {
  readonly #options: InterestOptions
  #ownUntilMs = -Infinity
  #peerUntilMs = -Infinity

  constructor(options: InterestOptions) {
    this.#options = options
  }

  /** Packets for the peer, or from it, that are no echoes. */
  traffic(nowMs: number): void {
    this.#ownUntilMs = nowMs + this.#options.coldAfterMs
  }

  /** The peer has traffic, or had until a moment ago. */
  peer(nowMs: number): void {
    this.#peerUntilMs = nowMs + FOLLOW_MS
  }

  /** Whether this side has a reason of its own. */
  isOwn(nowMs: number): boolean {
    return this.#options.always || nowMs < this.#ownUntilMs
  }

  any(nowMs: number): boolean {
    return this.isOwn(nowMs) || nowMs < this.#peerUntilMs
  }
}
