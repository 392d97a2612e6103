// One side of one relayed session in one address family, bound from WireGuard's port and kept so (lib/wire/udp-bind.ts).
// Pure: it says what to send and when to be asked again.

import type { SocketAddress } from '../lib/address.ts'
import { hasIntegrity, type StunMessage } from '../lib/wire/stun.ts'
import { encodeBindRequest, STALE_NONCE, UNAUTHENTICATED, type Binding } from '../lib/wire/udp-bind.ts'

/** The relay forgets a binding after 60 s; NATs forget a mapping after 30 s and more. */
const REFRESH_MS = 20_000
const REFRESH_JITTER = 0.1
const FIRST_RETRY_MS = 250
const RETRY_CAP_MS = 20_000
/** So many requests without an answer, about 8 s, and it no longer counts as bound. */
const LOST_AFTER = 5
/** Nonces in a row that the relay does not like when they come back; then it is left alone for a while. */
const MAX_CHALLENGES = 3

export type Answered = 'ignored' | 'bound' | 'challenged' | 'unknown'

export class UdpBinding {
  readonly server: SocketAddress
  bound = false
  /** When `step` wants to be called. */
  nextMs: number
  readonly #binding: Binding
  #nonce: string | undefined
  #tries = 0
  #challenges = 0
  /** The requests since the last answer; any of them may be answered. */
  #sent: string[] = []

  /** @param server the relay's address with this side's port. */
  constructor(server: SocketAddress, binding: Binding, nowMs: number) {
    this.server = server
    this.#binding = binding
    this.nextMs = nowMs
  }

  /** Asks anew at once: the address may have changed. */
  refresh(nowMs: number): void {
    this.#tries = 0
    this.nextMs = nowMs
  }

  /** @returns what to send to `server` now. @param transactionId 12 random bytes. */
  step(nowMs: number, transactionId: Buffer): Buffer | undefined {
    if (nowMs < this.nextMs) return undefined
    if (this.#tries >= LOST_AFTER) this.bound = false
    this.nextMs = nowMs + Math.min(RETRY_CAP_MS, FIRST_RETRY_MS * 2 ** this.#tries)
    this.#tries++
    this.#sent = [...this.#sent.slice(1 - LOST_AFTER), transactionId.toString('hex')]
    return encodeBindRequest(transactionId, this.#binding, this.#nonce)
  }

  /** @param random 0-1. */
  answered(message: StunMessage, datagram: Uint8Array, nowMs: number, random: number): Answered {
    if (!this.#sent.includes(Buffer.from(message.transactionId).toString('hex'))) return 'ignored'
    // The relay that knows no session has no cookie to prove itself by; that the request's id came back must do.
    if (message.errorCode?.code === UNAUTHENTICATED) return 'unknown'
    if (!hasIntegrity(datagram, this.#binding.cookie)) return 'ignored'
    if (message.class === 'success') {
      this.bound = true
      this.#tries = this.#challenges = 0
      this.#sent = []
      this.nextMs = nowMs + REFRESH_MS * (1 + REFRESH_JITTER * (2 * random - 1))
      return 'bound'
    }
    if (message.errorCode?.code !== STALE_NONCE || message.nonce === undefined) return 'ignored'
    this.#nonce = message.nonce
    this.#challenges++
    this.#tries = 0
    this.nextMs = this.#challenges > MAX_CHALLENGES ? nowMs + RETRY_CAP_MS : nowMs
    return 'challenged'
  }
}
