// Which WireGuard handshakes pass between fm-tcp and the relay. WireGuard repeats a lost initiation only after 5 s, and of
// two that cross both are lost: each side has answered the other's and forgotten its own. So an initiation waits here
// until the peer is ready (its device knows our key), and of two that cross the controlling side's goes on: the peer's is
// not let in while ours is under way, and ours does not leave when it was made before WireGuard saw the peer's. Pure.
//
// Message types are in the clear (WireGuard whitepaper §5.4): 1 initiation, 2 response, 3 cookie, 4 data.

const INITIATION = 1
const RESPONSE = 2
const DATA = 4
/** How long after ours an initiation of the peer's may have left before it heard of ours: what a relay takes one way. */
const CROSSING_MS = 600
/** How long ours may take to be answered before it is sent again. Later than that window, so that a repetition gets in. */
const ANSWER_MS = 1_000
/** How long after a peer's initiation WireGuard may still hand out one that it made before, and send its response. */
const RESPONSE_MS = 150
/** A peer of which nothing is heard is not waited for longer: the relay drops what cannot be delivered. */
const READY_PATIENCE_MS = 2_000

export class Handshakes {
  readonly #controlling: boolean
  /** Our last initiation, until it is answered or given up. */
  #initiation: Uint8Array | undefined
  /** When it left; Infinity while it is kept back. */
  #leftMs = Infinity
  /** When it is to be sent, for the first time or again. */
  #dueMs = Infinity
  /** When a peer's was let in, and whether WireGuard has answered it. */
  #enteredMs = -Infinity
  #answered = false
  #ready = false
  #waitsSinceMs: number | undefined

  /** @param controlling whether our initiation goes on when two cross; the other side has the opposite. */
  constructor(controlling: boolean) {
    this.#controlling = controlling
  }

  /** When `due` is to be asked; Infinity: not at all. */
  get dueMs(): number {
    return this.#dueMs
  }

  /** @returns false for an initiation that is kept back. */
  mayLeave(packet: Uint8Array, nowMs: number): boolean {
    switch (packet[0]) {
      case INITIATION:
        return this.#mayInitiate(packet, nowMs)
      case RESPONSE:
        this.#answered = true
        this.#forget()
        return true
      default:
        return true
    }
  }

  /** @returns false for an initiation of the peer's that crossed ours: ours is the one that goes on. */
  mayEnter(packet: Uint8Array, nowMs: number): boolean {
    this.#ready = true
    this.#waitsSinceMs = undefined
    switch (packet[0]) {
      case INITIATION:
        if (this.#controlling && this.#initiation !== undefined && this.#isUnderWay(nowMs)) return false
        this.#enteredMs = nowMs
        this.#answered = false
        this.#forget()
        return true
      case RESPONSE:
        this.#forget()
        return true
      default:
        return true
    }
  }

  /** @returns our initiation if it is to be sent now: it was kept back for long enough, or it or the answer was lost. */
  due(nowMs: number): Uint8Array | undefined {
    if (nowMs < this.#dueMs) return undefined
    // Once more is enough: WireGuard makes a new one in the end.
    this.#dueMs = this.#leftMs === Infinity ? nowMs + ANSWER_MS : Infinity
    this.#leftMs = nowMs
    return this.#initiation
  }

  /** The peer said that its device knows our key. @returns the initiation to send now, be it for the second time. */
  peerIsReady(nowMs: number): Uint8Array | undefined {
    this.#ready = true
    this.#waitsSinceMs = undefined
    if (this.#initiation !== undefined && this.#leftMs === Infinity) this.#leave(nowMs)
    return this.#initiation
  }

  #mayInitiate(packet: Uint8Array, nowMs: number): boolean {
    const isForgotten = nowMs - this.#enteredMs < RESPONSE_MS
    if (isForgotten && this.#answered) return false
    this.#initiation = Uint8Array.from(packet)
    this.#leftMs = Infinity
    this.#waitsSinceMs ??= nowMs
    // WireGuard answers nothing if it made this one after it took in the peer's: then this one is all there is.
    if (isForgotten) this.#dueMs = this.#enteredMs + RESPONSE_MS
    else if (this.#ready || nowMs - this.#waitsSinceMs > READY_PATIENCE_MS) this.#leave(nowMs)
    else this.#dueMs = Infinity
    return this.#leftMs === nowMs
  }

  #leave(nowMs: number): void {
    this.#leftMs = nowMs
    this.#dueMs = nowMs + ANSWER_MS
  }

  #forget(): void {
    this.#initiation = undefined
    this.#leftMs = Infinity
    this.#dueMs = Infinity
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
