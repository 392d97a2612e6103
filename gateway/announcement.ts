// What a gateway tells its peers through the relay, signed by its node's key so that the relay can neither forge nor
// change it. The payload is JSON:
//
//   { version: 1, node, sequence, wireguardKey, candidates: [{ kind, address }], nat, role: { active, term } }
//
// `sequence` grows with every announcement and is kept on disk by both sides; a lower one is rejected (a replay), unless
// its certificate is a newer one: a node that lost its disk joins again and starts anew. There is no expiry by wall
// clock. Unknown fields are ignored.

import { createPublicKey, sign, verify, X509Certificate, type KeyObject } from 'node:crypto'
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../lib/address.ts'
import type { Clock } from '../lib/clock.ts'
import { identityOf, type Subject } from '../lib/identity.ts'
import type { NatBehaviour } from '../lib/status.ts'
import { MAX_TERM } from '../lib/wire/lan.ts'
import { ProtocolError, type SignedAnnouncement } from '../lib/wire/signal.ts'
import { isPublicKey } from './probe.ts'
import type { Role } from './roles.ts'

/** `static` is what a Gateway object says of a peer; nobody announces it. */
export type CandidateKind = AnnouncedKind | 'static'
const ANNOUNCED_KINDS = ['host', 'mapped', 'reflexive'] as const
type AnnouncedKind = (typeof ANNOUNCED_KINDS)[number]
export type Candidate = { readonly kind: CandidateKind; readonly address: SocketAddress }

export type Announcement = {
  readonly node: string
  readonly sequence: number
  /** X25519 public key, base64. */
  readonly wireguardKey: string
  readonly candidates: readonly Candidate[]
  readonly nat: NatBehaviour
  /** In its pool; absent while it is not decided. */
  readonly role?: Role | undefined
}

/** An announcement as received, with the issuer's dates of the certificate that vouches for it, Unix milliseconds. */
export type Received = Announcement & { readonly certifiedMs: number; readonly expiresMs: number }

export const isNewer = (a: Received, b: Received | undefined): boolean =>
  b === undefined || a.certifiedMs > b.certifiedMs || (a.certifiedMs === b.certifiedMs && a.sequence > b.sequence)

/** Gateways that are remembered; more are refused, and named in the log. */
export const MAX_PEERS = 4096
/** More candidates than this are cut off, ours when sent and a peer's when read. */
export const MAX_CANDIDATES = 16

export function signAnnouncement(
  announcement: Announcement,
  certificate: X509Certificate,
  key: KeyObject,
): SignedAnnouncement {
  const payload = Buffer.from(
    JSON.stringify({
      version: 1,
      ...announcement,
      candidates: announcement.candidates
        .slice(0, MAX_CANDIDATES)
        .map(({ kind, address }) => ({ kind, address: formatSocketAddress(address) })),
    }),
  )
  return {
    certificate: certificate.raw.toString('base64'),
    payload: payload.toString('base64'),
    signature: sign(digestOf(key), payload, key).toString('base64'),
  }
}

/**
 * Checks the certificate against the CA, the signature against the certificate, and the node's name against both.
 * The certificate's dates are the caller's to judge (judgeDates).
 * @throws ProtocolError saying what does not hold
 */
export function openAnnouncement(signed: SignedAnnouncement, ca: X509Certificate): Received {
  const certificate = certificateOf(signed)
  if (!certificate.verify(ca.publicKey)) throw new ProtocolError('announcement: its certificate is not from our CA')
  const payload = Buffer.from(signed.payload, 'base64')
  const key = createPublicKey(certificate.publicKey.export({ type: 'spki', format: 'pem' }))
  if (!verify(digestOf(key), payload, key, Buffer.from(signed.signature, 'base64')))
    throw new ProtocolError('announcement: the signature does not match')
  const announcement = readPayload(payload)
  const identity = identityOf(certificate.toLegacyObject().subject as Subject)
  if (identity.kind !== 'node' || identity.node !== announcement.node)
    throw new ProtocolError(`announcement: names node ${announcement.node}, its certificate does not`)
  return { ...announcement, certifiedMs: Date.parse(certificate.validFrom), expiresMs: Date.parse(certificate.validTo) }
}

const DAY_MS = 86_400_000

/**
 * Whether the dates of a peer's certificate let it in. A new peer must have a certificate that is valid now, which takes a
 * clock that is right. A peer that was known before is known still, for a grace after its certificate's end: it may have
 * been out of reach of the issuer as long as we.
 * @throws ProtocolError saying why they do not.
 */
export function judgeDates(
  { certifiedMs, expiresMs }: Pick<Received, 'certifiedMs' | 'expiresMs'>,
  isKnown: boolean,
  { clock, graceMs }: { readonly clock: Pick<Clock, 'now' | 'isBehind'>; readonly graceMs: number },
): void {
  const nowMs = clock.now()
  const text = (ms: number): string => new Date(ms).toISOString()
  if (isKnown) {
    if (nowMs < expiresMs + graceMs) return
    throw new ProtocolError(
      `announcement: its certificate ended at ${text(expiresMs)}, and peers are known for ${Math.round(graceMs / DAY_MS)} days ` +
        'after that (--peer-grace)',
    )
  }
  if (clock.isBehind())
    throw new ProtocolError(
      `announcement: a new peer, and the clock of this node is wrong (it is ${text(nowMs)} or later): its certificate cannot ` +
        'be judged before the clock is set',
    )
  if (nowMs < certifiedMs || nowMs >= expiresMs)
    throw new ProtocolError(
      `announcement: a new peer, and its certificate is valid from ${text(certifiedMs)} to ${text(expiresMs)} only`,
    )
}

/** Ed25519 hashes by itself; ECDSA is used with SHA-256. */
const digestOf = (key: KeyObject): string | null => (key.asymmetricKeyType === 'ed25519' ? null : 'sha256')

function certificateOf(signed: SignedAnnouncement): X509Certificate {
  try {
    return new X509Certificate(Buffer.from(signed.certificate, 'base64'))
  } catch (cause) {
    throw new ProtocolError('announcement: its certificate cannot be read', { cause })
  }
}

function readPayload(bytes: Buffer): Announcement {
  let value: Partial<Record<string, unknown>>
  try {
    value = JSON.parse(bytes.toString()) as Record<string, unknown>
  } catch (cause) {
    throw new ProtocolError('announcement: not JSON', { cause })
  }
  const { node, sequence, wireguardKey, candidates, nat, role } = value ?? {}
  if (typeof node !== 'string' || node === '') throw new ProtocolError('announcement: node')
  if (typeof sequence !== 'number' || !Number.isSafeInteger(sequence)) throw new ProtocolError('announcement: sequence')
  if (typeof wireguardKey !== 'string' || !isPublicKey(wireguardKey))
    throw new ProtocolError('announcement: wireguardKey')
  if (!Array.isArray(candidates)) throw new ProtocolError('announcement: candidates')
  return {
    node,
    sequence,
    wireguardKey,
    candidates: candidates.slice(0, MAX_CANDIDATES).flatMap(readCandidate),
    nat: readNat(nat),
    ...readRole(role),
  }
}

/** A candidate of a kind or family that this version does not know is left out. */
function readCandidate(value: unknown): Candidate[] {
  const { kind, address } = (value ?? {}) as Record<string, unknown>
  const known = ANNOUNCED_KINDS.find((announced) => announced === kind)
  if (known === undefined || typeof address !== 'string') return []
  const parsed = parseSocketAddress(address)
  return parsed === undefined ? [] : [{ kind: known, address: parsed }]
}

function readRole(value: unknown): { role?: Role } {
  const { active, term } = (value ?? {}) as Record<string, unknown>
  if (typeof active !== 'boolean' || typeof term !== 'number') return {}
  return Number.isInteger(term) && term >= 0 && term <= MAX_TERM ? { role: { active, term } } : {}
}

const BEHAVIOURS = ['none', 'endpoint-independent', 'address-dependent', 'address-and-port-dependent'] as const

function readNat(value: unknown): NatBehaviour {
  const { mapping, filtering, udp, mapped, hairpin } = (value ?? {}) as Record<string, unknown>
  return {
    mapping: BEHAVIOURS.find((behaviour) => behaviour === mapping) ?? 'unknown',
    filtering: BEHAVIOURS.find((behaviour) => behaviour === filtering) ?? 'unknown',
    udp: udp === 'open' || udp === 'blocked' ? udp : 'unknown',
    ...(typeof mapped === 'string' && mapped.length < 64 ? { mapped } : {}),
    ...(typeof hairpin === 'boolean' ? { hairpin } : {}),
  }
}
