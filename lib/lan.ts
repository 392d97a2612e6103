// Who speaks on a pool's LAN: takes datagrams (lib/wire/lan.ts) and gives back what a member of the pool said, once. The
// CA vouches for certificates, and the certificates for what is said; validity by wall clock does not count, since a site
// that is without the cloud for long, or starts in 1970, is still one site. Of a node's certificates the newest counts.
//
// A pool's LAN is not trusted: what cannot be proven costs one signature check at most, of which there is a budget.

import { createPublicKey, X509Certificate, type KeyObject } from 'node:crypto'
import { identityOf, type Subject } from './identity.ts'
import type { Pool } from './k8s/pools.ts'
import {
  certificateHash,
  decodeLan,
  isSignedBy,
  sourceOf,
  type Heartbeat,
  type LanDatagram,
  type LanMessage,
  type LanStamp,
} from './wire/lan.ts'

export type Heard = Heartbeat & { readonly node: string }
export type HeardMessage = LanMessage & { readonly node: string }
/** Whom we listen to, by the objects. */
export type IsMember = (node: string, message: LanMessage) => boolean

type Certified = { readonly node: string; readonly key: KeyObject; readonly issuedMs: number }
type Latest = LanStamp & { readonly issuedMs: number }

/** Certificates that are kept ready; each renewal of a member's makes one more. */
const MAX_CERTIFICATES = 512
/** Daemons whose last stamp is kept. */
const MAX_DAEMONS = 4096
/** Who is no member and speaks is told so seldom. */
const TELL_MS = 60_000
const MAX_TOLD = 256
/** Signatures checked per second, a tenth of a processor or so. */
const CHECKS_PER_SECOND = 1_000

export class LanPeers {
  readonly #ca: X509Certificate
  readonly #certificates = new Map<string, Certified>()
  readonly #latest = new Map<string, Latest>()
  readonly #onStranger: ((node: string, message: LanMessage) => void) | undefined
  readonly #toldMs = new Map<string, number>()
  #checks = CHECKS_PER_SECOND
  #checkedMs = 0
  /** What was not let in: malformed, not proven, old, or over the budget. */
  refused = 0

  /** @param onStranger a node that has proven who it is said something that only others may say; told now and then. */
  constructor(ca: X509Certificate, onStranger?: (node: string, message: LanMessage) => void) {
    this.#ca = ca
    this.#onStranger = onStranger
  }

  /** @returns undefined for whatever is not new, whole and proven. */
  receive(datagram: Buffer, isMember: IsMember, nowMs: number): HeardMessage | undefined {
    const said = decodeLan(datagram)
    const heard = said && this.#prove(said, isMember, nowMs)
    if (heard === undefined) this.refused++
    return heard
  }

  #prove(said: LanDatagram, isMember: IsMember, nowMs: number): HeardMessage | undefined {
    const certified = this.#certificates.get(said.certificateHash) ?? this.#certify(said, nowMs)
    if (certified === undefined) return undefined
    const { node, key, issuedMs } = certified
    if (!isMember(node, said.message)) {
      this.#tellStranger(said, certified, nowMs)
      return undefined
    }
    const daemon = `${sourceOf(said.message)} ${node}`
    if (!isLater({ ...said, issuedMs }, this.#latest.get(daemon))) return undefined
    if (!this.#mayCheck(nowMs) || !isSignedBy(said, key)) return undefined
    if (this.#latest.size >= MAX_DAEMONS && !this.#latest.has(daemon)) return undefined
    this.#latest.set(daemon, { boot: said.boot, sequence: said.sequence, issuedMs })
    return { ...said.message, node }
  }

  #tellStranger(said: LanDatagram, { node, key }: Certified, nowMs: number): void {
    if (this.#onStranger === undefined || nowMs - (this.#toldMs.get(node) ?? -Infinity) < TELL_MS) return
    if (!this.#mayCheck(nowMs) || !isSignedBy(said, key)) return
    this.#toldMs.delete(node)
    this.#toldMs.set(node, nowMs)
    if (this.#toldMs.size > MAX_TOLD) this.#toldMs.delete(this.#toldMs.keys().next().value!)
    this.#onStranger(node, said.message)
  }

  #certify(said: LanDatagram, nowMs: number): Certified | undefined {
    if (said.certificate === undefined || !this.#mayCheck(nowMs)) return undefined
    if (certificateHash(said.certificate).toString('hex') !== said.certificateHash) return undefined
    try {
      const certificate = new X509Certificate(said.certificate)
      const identity = identityOf(certificate.toLegacyObject().subject as Subject)
      if (identity.kind !== 'node' || !certificate.verify(this.#ca.publicKey)) return undefined
      const key = createPublicKey(certificate.publicKey.export({ type: 'spki', format: 'pem' }))
      const certified = { node: identity.node, key, issuedMs: Date.parse(certificate.validFrom) }
      if (this.#certificates.size >= MAX_CERTIFICATES)
        this.#certificates.delete(this.#certificates.keys().next().value!)
      this.#certificates.set(said.certificateHash, certified)
      return certified
    } catch {
      return undefined
    }
  }

  #mayCheck(nowMs: number): boolean {
    this.#checks = Math.min(CHECKS_PER_SECOND, this.#checks + ((nowMs - this.#checkedMs) * CHECKS_PER_SECOND) / 1000)
    this.#checkedMs = nowMs
    if (this.#checks < 1) return false
    this.#checks--
    return true
  }
}

/** A node that lost its disk joins anew: its counters start again, under a newer certificate. */
const isLater = (a: Latest, b: Latest | undefined): boolean =>
  b === undefined ||
  a.issuedMs > b.issuedMs ||
  (a.issuedMs === b.issuedMs && (a.boot > b.boot || (a.boot === b.boot && a.sequence > b.sequence)))

/** Claims to a pool's role of active gateway, compared: the higher term, then who comes first, then the name. */
export type Claim = { readonly node: string; readonly term: number; readonly priority: number }

export const isStronger = (a: Claim, b: Claim): boolean =>
  a.term !== b.term ? a.term > b.term : a.priority !== b.priority ? a.priority < b.priority : a.node < b.node

/** Silence after which an agent believes a weaker claim: the stronger one may be on the other side of a LAN that split. */
const FORGET_MS = 3_000

/** Whom a node that is no gateway takes for its pool's active one: the strongest claim that it hears. */
export class Follower {
  #active: (Claim & { readonly heardMs: number }) | undefined

  /** @returns whether the active gateway is another now. */
  heard(heard: Heard, nowMs: number): boolean {
    if (heard.role !== 'active') return false
    const before = this.#active
    const isNews = before === undefined || heard.node === before.node || isStronger(heard, before)
    if (!isNews && nowMs - before.heardMs < FORGET_MS) return false
    this.#active = { node: heard.node, term: heard.term, priority: heard.priority, heardMs: nowMs }
    return before?.node !== heard.node
  }

  /** undefined while none was heard of that may be one. It stays when it falls silent: its kernel still forwards. */
  active(candidates: readonly string[]): string | undefined {
    const node = this.#active?.node
    return node !== undefined && candidates.includes(node) ? node : undefined
  }
}

/** The pool of a node, and what its members are on the LAN. */
export const poolOf = (pools: readonly Pool[], node: string): Pool | undefined =>
  pools.find(({ nodes }) => nodes.some(({ name }) => name === node))
