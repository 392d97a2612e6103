// The echo inside a WireGuard device: proof that a rung carries packets both ways, through encryption and all. It is a
// UDP datagram between the device-scoped addresses of two gateways (fe80::…%fm-direct), so the device alone decides
// the way it takes. WireGuard has authenticated whoever it came from.
//
//   u32 magic "FMEC" | u8 version 1 | u8 type (1 request, 2 reply) | u8 flags | u8 zero | u32 sequence | zeros up to the size
//
// Flag 1: the sender has traffic for the receiver, who keeps the path up as long as such echoes come.
// A reply is as long as its request, so one exchange proves that size in both directions.

import { DEVICE_MTU, LEAST_MTU } from '../lib/owned.ts'

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
  readonly kind: 'request' | 'reply'
  readonly sequence: number
  readonly size: EchoSize
  readonly interested: boolean
}

const MAGIC = 0x464d4543
const INTERESTED = 1

export function encodeEcho({ kind, sequence, size, interested }: Echo): Buffer {
  const datagram = Buffer.alloc(ECHO_BYTES[size])
  datagram.writeUInt32BE(MAGIC, 0)
  datagram[4] = 1
  datagram[5] = kind === 'request' ? 1 : 2
  datagram[6] = interested ? INTERESTED : 0
  datagram.writeUInt32BE(sequence, 8)
  return datagram
}

export function decodeEcho(datagram: Buffer): Echo | undefined {
  if (datagram.length < SMALL_BYTES || datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  if (datagram[5] !== 1 && datagram[5] !== 2) return undefined
  return {
    kind: datagram[5] === 1 ? 'request' : 'reply',
    sequence: datagram.readUInt32BE(8),
    size: datagram.length >= ECHO_BYTES.full ? 'full' : datagram.length >= ECHO_BYTES.least ? 'least' : 'small',
    interested: (datagram[6]! & INTERESTED) !== 0,
  }
}

/** Turns a request into its reply in place. */
export function toReply(request: Buffer): Buffer {
  request[5] = 2
  return request
}

/** @returns what WireGuard sends for one echo: padded to 16 bytes, with its header and authenticator (32), bytes. */
export const carriedBytes = (size: EchoSize): number =>
  Math.min(DEVICE_MTU, Math.ceil((ECHO_BYTES[size] + HEADERS_BYTES) / 16) * 16) + 32
