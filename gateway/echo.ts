// The echo inside a WireGuard device: proof that a rung carries packets both ways, through encryption and all. It is a
// UDP datagram between the device-scoped addresses of two gateways (fe80::…%fm-direct), so the device alone decides
// the way it takes. WireGuard has authenticated whoever it came from.
//
//   u32 magic "FMEC" | u8 version 1 | u8 type (1 request, 2 reply, 3 role) | u8 flags | u8 zero | u32 sequence | u32 term
//   | zeros up to the size
//
// Flag 1: the sender has traffic for the receiver, who keeps the path up as long as such echoes come. Flag 2: the sender
// says what it is in its pool, in that term; flag 4 with it: the active gateway. A change of role is told at once in a
// datagram of type 3, which nobody answers, and again in every echo after it.
// A reply is as long as its request, so one exchange proves that size in both directions.

import { DEVICE_MTU, LEAST_MTU } from '../lib/owned.ts'
import type { Role } from './roles.ts'

export const ECHO_PORT = 7077

/** How large the packet inside the tunnel is: as small as can be, the least MTU that IPv6 allows, or the devices' MTU. */
export const ECHO_SIZES = ['small', 'least', 'full'] as const
export type EchoSize = (typeof ECHO_SIZES)[number]

/** IPv6 and UDP headers inside the tunnel. */
const HEADERS_BYTES = 48
const SMALL_BYTES = 16
/** Of a datagram's payload. */
const ECHO_BYTES: Readonly<Record<EchoSize, number>> = {
  small: SMALL_BYTES,
  least: LEAST_MTU - HEADERS_BYTES,
  full: DEVICE_MTU - HEADERS_BYTES,
}

export type Echo = {
  readonly kind: 'request' | 'reply' | 'role'
  readonly sequence: number
  readonly size: EchoSize
  readonly interested: boolean
  readonly role?: Role | undefined
}

const MAGIC = 0x464d4543
const INTERESTED = 1
const HAS_ROLE = 2
const ACTIVE = 4
const KINDS = ['request', 'reply', 'role'] as const

export function encodeEcho({ kind, sequence, size, interested, role }: Echo): Buffer {
  const datagram = Buffer.alloc(ECHO_BYTES[size])
  datagram.writeUInt32BE(MAGIC, 0)
  datagram[4] = 1
  datagram[5] = KINDS.indexOf(kind) + 1
  datagram[6] = interested ? INTERESTED : 0
  datagram.writeUInt32BE(sequence, 8)
  writeRole(datagram, role)
  return datagram
}

function writeRole(datagram: Buffer, role: Role | undefined): void {
  datagram[6] = (datagram[6]! & INTERESTED) | (role === undefined ? 0 : HAS_ROLE) | (role?.active === true ? ACTIVE : 0)
  datagram.writeUInt32BE(role?.term ?? 0, 12)
}

export function decodeEcho(datagram: Buffer): Echo | undefined {
  if (datagram.length < SMALL_BYTES || datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  const kind = KINDS[datagram[5]! - 1]
  if (kind === undefined) return undefined
  const flags = datagram[6]!
  return {
    kind,
    sequence: datagram.readUInt32BE(8),
    size: datagram.length >= ECHO_BYTES.full ? 'full' : datagram.length >= ECHO_BYTES.least ? 'least' : 'small',
    interested: (flags & INTERESTED) !== 0,
    ...((flags & HAS_ROLE) !== 0 && { role: { active: (flags & ACTIVE) !== 0, term: datagram.readUInt32BE(12) } }),
  }
}

/** Turns a request into its reply in place. @param role ours. */
export function toReply(request: Buffer, role?: Role): Buffer {
  request[5] = 2
  writeRole(request, role)
  return request
}

/** @returns what WireGuard sends for one echo: padded to 16 bytes, with its header and authenticator (32), bytes. */
export const carriedBytes = (size: EchoSize): number =>
  Math.min(DEVICE_MTU, Math.ceil((ECHO_BYTES[size] + HEADERS_BYTES) / 16) * 16) + 32
