// Which WireGuard handshakes pass between fm-tcp and the relay. WireGuard repeats a lost initiation only after 5 s, and of
// two that cross both are lost: each side has answered the other's and forgotten its own. So an initiation waits here
// until the peer is ready (its device knows our key), and of two that cross the controlling side's goes on. Pure.
//
// Message types are in the clear (WireGuard whitepaper §5.4): 1 initiation, 2 response, 3 cookie, 4 data.

const INITIATION = 1
const RESPONSE = 2
const DATA = 4
/** How long after ours an initiation of the peer's may have left before it heard of ours: what a relay takes one way. */
const CROSSING_MS = 600
/** How long ours may take to be answered before it is sent again. Later than that window, so that a repetition gets in. */
export const ANSWER_MS = 1_000
/** A peer of which nothing is heard is not waited for longer: the relay drops what cannot be delivered. */
const READY_PATIENCE_MS = 2_000

export class Handshakes {
  readonly #controlling: boolean
  /** Our last initiation, until it is answered or given up. */
  #initiation: Uint8Array | undefined
  /** When it left; Infinity while it is kept back. */
  #leftMs = Infinity
  #ready = false
  #waitsSinceMs: number | undefined

  /** @param controlling whether our initiation goes on when two cross; the other side has the opposite. */
  constructor(controlling: boolean) {
    this.#controlling = controlling
  }

  /** @returns false for an initiation that is kept back until the peer is ready. */
  mayLeave(packet: Uint8Array, nowMs: number): boolean {
    if (packet[0] !== INITIATION) return true
    this.#initiation = Uint8Array.from(packet)
    this.#waitsSinceMs ??= nowMs
    const leaves = this.#ready || nowMs - this.#waitsSinceMs > READY_PATIENCE_MS
    this.#leftMs = leaves ? nowMs : Infinity
    return leaves
  }

  /** @returns false for an initiation of the peer's that crossed ours: ours is the one that goes on. */
  mayEnter(packet: Uint8Array, nowMs: number): boolean {
    this.#ready = true
    this.#waitsSinceMs = undefined
    switch (packet[0]) {
      case INITIATION:
        if (this.#controlling && this.#initiation !== undefined && this.#isUnderWay(nowMs)) return false
        this.#initiation = undefined
        return true
      case RESPONSE:
        this.#initiation = undefined
        return true
      default:
        return true
    }
  }

  /** @returns our initiation if it left a while ago and was not answered: it or the answer was lost. */
  unanswered(nowMs: number): Uint8Array | undefined {
    return nowMs - this.#leftMs >= ANSWER_MS ? this.#initiation : undefined
  }

  /** The peer said that its device knows our key. @returns the initiation to send now, be it for the second time. */
  peerIsReady(nowMs: number): Uint8Array | undefined {
    this.#ready = true
    this.#waitsSinceMs = undefined
    if (this.#leftMs === Infinity) this.#leftMs = nowMs
    return this.#initiation
  }

  #isUnderWay(nowMs: number): boolean {
    return this.#leftMs <= nowMs && nowMs - this.#leftMs < CROSSING_MS
  }
}

export const isInitiation = (packet: Uint8Array): boolean => packet[0] === INITIATION

/** Whether a packet of ours means that someone wants to reach the peer: an echo or a keepalive does not. */
export const isTraffic = (packet: Uint8Array): boolean =>
  packet[0] === INITIATION || (packet[0] === DATA && packet.length > SMALL_ECHO_BYTES)

/** A small echo as WireGuard sends it; a TCP segment without data may be as small, and is followed by larger ones. */
const SMALL_ECHO_BYTES = 96
