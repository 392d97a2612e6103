// The echo inside a WireGuard device: proof that a rung carries packets both ways, through encryption and all. It is a
// UDP datagram between the device-scoped addresses of two gateways (fe80::…%fm-direct), so the device alone decides
// the way it takes. WireGuard has authenticated whoever it came from.
//
//   u32 magic "FMEC" | u8 version 1 | u8 type (1 request, 2 reply) | u16 zero | u32 sequence | zeros up to the size
//
// A reply is as long as its request, so one exchange proves that size in both directions.

import { DEVICE_MTU } from '../lib/owned.ts'

export const ECHO_PORT = 7077
export const SMALL_ECHO_BYTES = 16
/** A datagram that makes the inner packet exactly as large as the device's MTU (IPv6 header 40, UDP header 8). */
export const FULL_ECHO_BYTES = DEVICE_MTU - 48

export type Echo = { readonly kind: 'request' | 'reply'; readonly sequence: number; readonly full: boolean }

const MAGIC = 0x464d4543

export function encodeEcho({ kind, sequence, full }: Echo): Buffer {
  const datagram = Buffer.alloc(full ? FULL_ECHO_BYTES : SMALL_ECHO_BYTES)
  datagram.writeUInt32BE(MAGIC, 0)
  datagram[4] = 1
  datagram[5] = kind === 'request' ? 1 : 2
  datagram.writeUInt32BE(sequence, 8)
  return datagram
}

export function decodeEcho(datagram: Buffer): Echo | undefined {
  if (datagram.length < SMALL_ECHO_BYTES || datagram.readUInt32BE(0) !== MAGIC || datagram[4] !== 1) return undefined
  if (datagram[5] !== 1 && datagram[5] !== 2) return undefined
  return {
    kind: datagram[5] === 1 ? 'request' : 'reply',
    sequence: datagram.readUInt32BE(8),
    full: datagram.length >= FULL_ECHO_BYTES,
  }
}

/** Turns a request into its reply in place. */
export function toReply(request: Buffer): Buffer {
  request[5] = 2
  return request
}
