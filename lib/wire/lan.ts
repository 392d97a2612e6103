// Datagrams between the gateways and agents of a pool, on their LAN. Each is signed with the key of the sender's node
// certificate, so that a pool needs neither the cloud nor a clock to know who speaks:
//
//   u32 magic "FMLN" | u8 version 1 | u8 kind | u16 length of what is signed, from the magic on
//   32 bytes SHA-256 of the sender's certificate (DER) | u64 boot | u64 sequence
//   kind 1, heartbeat:
//     u32 term | u8 role (0 standby, 1 active) | u8 flags | u16 priority | name pool | name follows | findings
//   kind 2, presence:
//     u8 source (1 agent, 2 gateway) | u8 flags (1: an answer is asked for) | u16 0 | name pool | findings
//   then, unsigned: u8 length, signature | certificate (DER) in some datagrams, else nothing
//
// A name is a u8 length and UTF-8. Flag 1: the sender leaves, and the node that it follows is to take its role. Flag 2:
// it took the role over from one that left. `boot` counts the sender's starts and is kept on its disk; within a boot
// `sequence` grows. Whoever receives keeps the highest pair of each certificate and daemon (lib/lan.ts), so no datagram
// counts twice. Findings are in lib/wire/lan-findings.ts. Unknown kinds and versions, and bytes behind the fields that are known, are ignored.

import { createHash, sign, verify, type KeyObject, type X509Certificate } from 'node:crypto'
import { decodeFindings, encodeFindings, type Finding } from './lan-findings.ts'

export type Heartbeat = {
  /** Grows with each change of the active gateway; see gateway/election.ts. */
  readonly term: number
  readonly role: 'active' | 'standby'
  /** Of candidates in one term the lowest wins: the place in the pool's list of gateways, as the sender knows it. */
  readonly priority: number
  readonly pool: string
  /** The active gateway's node; '' where the sender knows of none. Of one that leaves: who is to follow it. */
  readonly follows: string
  readonly leaving: boolean
  /** Active since a planned hand-over, and not for want of anybody else. */
  readonly handedOver: boolean
  /** Absent where there is none. */
  readonly findings?: readonly Finding[]
}

/** Says that the sender runs. */
export type Presence = {
  readonly source: LanSource
  /** The receiver is to say at once that it runs too. */
  readonly asks: boolean
  readonly pool: string
  /** Absent where there is none. */
  readonly findings?: readonly Finding[]
}

/** Each daemon of a node counts for itself. */
export type LanSource = 'agent' | 'gateway'
export type LanMessage = (Heartbeat & { readonly kind: 'heartbeat' }) | (Presence & { readonly kind: 'presence' })

export const sourceOf = (message: LanMessage): LanSource => (message.kind === 'heartbeat' ? 'gateway' : message.source)

export type LanStamp = { readonly boot: number; readonly sequence: number }

/** A datagram taken apart, and nothing of it proven. */
export type LanDatagram = LanStamp & {
  /** Hex. */
  readonly certificateHash: string
  /** DER, where the datagram carries it. */
  readonly certificate: Buffer | undefined
  readonly signed: Buffer
  readonly signature: Buffer
  readonly message: LanMessage
}

export const MAX_TERM = 0xffff_fffe
/** A certificate has 0.5 KiB, or 2 with RSA keys; larger ones are no node's. */
export const MAX_LAN_BYTES = 4096
const MAGIC = 0x464d4c4e
const HEARTBEAT = 1
const PRESENCE = 2
const HASH_BYTES = 32
const HEADER_BYTES = 8 + HASH_BYTES + 16
const HEARTBEAT_BYTES = 8
const PRESENCE_BYTES = 4
const ASKS = 1
const SOURCES = ['agent', 'gateway'] as const
const LEAVING = 1
const HANDED_OVER = 2
const MAX_NAME_BYTES = 253

export const certificateHash = (der: Uint8Array): Buffer => createHash('sha256').update(der).digest()

/**
 * @returns the datagram with the certificate, for receivers that may not know the sender, and without.
 * @throws RangeError for names that are too long.
 */
export function encodeLan(
  message: LanMessage,
  { boot, sequence }: LanStamp,
  { certificate, key }: { readonly certificate: X509Certificate; readonly key: KeyObject },
): { readonly whole: Buffer; readonly bare: Buffer } {
  const body = Buffer.concat([
    message.kind === 'heartbeat' ? writeHeartbeat(message) : writePresence(message),
    encodeFindings(message.findings ?? []),
  ])
  const head = Buffer.alloc(HEADER_BYTES)
  head.writeUInt32BE(MAGIC, 0)
  head[4] = 1
  head[5] = message.kind === 'heartbeat' ? HEARTBEAT : PRESENCE
  head.writeUInt16BE(head.length + body.length, 6)
  certificateHash(certificate.raw).copy(head, 8)
  head.writeBigUInt64BE(BigInt(boot), 8 + HASH_BYTES)
  head.writeBigUInt64BE(BigInt(sequence), 16 + HASH_BYTES)
  const signed = Buffer.concat([head, body])
  const signature = sign(digestOf(key), signed, key)
  if (signature.length > 0xff)
    throw new RangeError(`signature of ${signature.length} bytes: node keys are P-256 or Ed25519`)
  const bare = Buffer.concat([signed, Buffer.of(signature.length), signature])
  return { whole: Buffer.concat([bare, certificate.raw]), bare }
}

/** @returns undefined for what is malformed, or of a kind or version that is not known here. */
export function decodeLan(datagram: Buffer): LanDatagram | undefined {
  if (datagram.length < HEADER_BYTES || datagram.length > MAX_LAN_BYTES) return undefined
  if (datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  const signedBytes = datagram.readUInt16BE(6)
  const signatureBytes = datagram[signedBytes]
  if (signedBytes < HEADER_BYTES || !signatureBytes) return undefined
  const signatureEnd = signedBytes + 1 + signatureBytes
  if (signatureEnd > datagram.length) return undefined
  const signed = datagram.subarray(0, signedBytes)
  const boot = Number(datagram.readBigUInt64BE(8 + HASH_BYTES))
  const sequence = Number(datagram.readBigUInt64BE(16 + HASH_BYTES))
  const message = readMessage(datagram[5]!, signed.subarray(HEADER_BYTES))
  if (message === undefined || !Number.isSafeInteger(boot) || !Number.isSafeInteger(sequence)) return undefined
  return {
    boot,
    sequence,
    certificateHash: datagram.toString('hex', 8, 8 + HASH_BYTES),
    certificate: signatureEnd < datagram.length ? datagram.subarray(signatureEnd) : undefined,
    signed,
    signature: datagram.subarray(signedBytes + 1, signatureEnd),
    message,
  }
}

/** @param key of the certificate that the datagram names. */
export const isSignedBy = ({ signed, signature }: LanDatagram, key: KeyObject): boolean =>
  verify(digestOf(key), signed, key, signature)

/** Ed25519 hashes by itself; ECDSA is used with SHA-256. */
const digestOf = (key: KeyObject): string | null => (key.asymmetricKeyType === 'ed25519' ? null : 'sha256')

function writeHeartbeat(heartbeat: Heartbeat): Buffer {
  const fields = Buffer.alloc(HEARTBEAT_BYTES)
  fields.writeUInt32BE(heartbeat.term, 0)
  fields[4] = heartbeat.role === 'active' ? 1 : 0
  fields[5] = (heartbeat.leaving ? LEAVING : 0) | (heartbeat.handedOver ? HANDED_OVER : 0)
  fields.writeUInt16BE(Math.min(heartbeat.priority, 0xffff), 6)
  return Buffer.concat([fields, writeName(heartbeat.pool), writeName(heartbeat.follows)])
}

const writePresence = ({ source, asks, pool }: Presence): Buffer =>
  Buffer.concat([Buffer.of(SOURCES.indexOf(source) + 1, asks ? ASKS : 0, 0, 0), writeName(pool)])

function readMessage(kind: number, body: Buffer): LanMessage | undefined {
  switch (kind) {
    case HEARTBEAT:
      return readHeartbeat(body)
    case PRESENCE:
      return readPresence(body)
    default:
      return undefined
  }
}

function readHeartbeat(body: Buffer): LanMessage | undefined {
  if (body.length < HEARTBEAT_BYTES) return undefined
  const [term, role, flags] = [body.readUInt32BE(0), body[4]!, body[5]!]
  const pool = readName(body, HEARTBEAT_BYTES)
  const follows = pool && readName(body, pool.end)
  if (follows === undefined || pool === undefined || role > 1 || term > MAX_TERM) return undefined
  return {
    kind: 'heartbeat',
    term,
    role: role === 1 ? 'active' : 'standby',
    priority: body.readUInt16BE(6),
    pool: pool.name,
    follows: follows.name,
    leaving: (flags & LEAVING) !== 0,
    handedOver: (flags & HANDED_OVER) !== 0,
    ...readFindings(body.subarray(follows.end)),
  }
}

function readPresence(body: Buffer): LanMessage | undefined {
  const source = SOURCES[(body[0] ?? 0) - 1]
  const pool = readName(body, PRESENCE_BYTES)
  if (source === undefined || pool === undefined) return undefined
  const asks = (body[1]! & ASKS) !== 0
  return { kind: 'presence', source, asks, pool: pool.name, ...readFindings(body.subarray(pool.end)) }
}

function readFindings(bytes: Buffer): { readonly findings?: readonly Finding[] } {
  const findings = decodeFindings(bytes)
  return findings.length === 0 ? {} : { findings }
}

function writeName(name: string): Buffer {
  const bytes = Buffer.from(name)
  if (bytes.length > MAX_NAME_BYTES) throw new RangeError(`name over ${MAX_NAME_BYTES} bytes`)
  return Buffer.concat([Buffer.of(bytes.length), bytes])
}

function readName(body: Buffer, offset: number): { readonly name: string; readonly end: number } | undefined {
  const length = body[offset]
  if (length === undefined || length > MAX_NAME_BYTES || offset + 1 + length > body.length) return undefined
  return { name: body.toString('utf8', offset + 1, offset + 1 + length), end: offset + 1 + length }
}
