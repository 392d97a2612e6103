// Proofs at the end of a STUN message: MESSAGE-INTEGRITY (HMAC-SHA1) and MESSAGE-INTEGRITY-SHA256 over all before them,
// FINGERPRINT (a CRC) over all before it. The header's length counts as if the proof were the last attribute.

import { createHmac, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { HEADER_BYTES, isStun, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, padded, u16 } from './stun-format.ts'

/** SHA-1 is never truncated; RFC 8489 §14.6 lets SHA-256 be cut to 16 bytes. */
const ALGORITHMS = { sha1: { bytes: 20, minBytes: 20 }, sha256: { bytes: 32, minBytes: 16 } } as const
export type IntegrityAlgorithm = keyof typeof ALGORITHMS

export const SHA256_BYTES = ALGORITHMS.sha256.bytes

/**
 * True if the message carries an integrity attribute made with this key: the SHA-256 one where there are both. Takes as
 * long for one wrong byte as for twenty.
 */
export function hasIntegrity(datagram: Uint8Array, key: Uint8Array): boolean {
  if (!isStun(datagram)) return false
  const end = HEADER_BYTES + u16(datagram, 2)
  for (let offset = HEADER_BYTES; offset + 4 <= end;) {
    const attribute = u16(datagram, offset)
    const length = u16(datagram, offset + 2)
    const next = offset + 4 + padded(length)
    if (next > end) return false
    if (attribute === MESSAGE_INTEGRITY_SHA256) return matches('sha256', datagram, offset, length, key)
    if (attribute === MESSAGE_INTEGRITY) {
      // The only thing after it that may count is the better proof.
      const better = next + 4 <= end && u16(datagram, next) === MESSAGE_INTEGRITY_SHA256
      if (!better) return matches('sha1', datagram, offset, length, key)
    }
    offset = next
  }
  return false
}

/** @param offset where the integrity attribute starts. @param length of its value. */
export function integrityOf(
  algorithm: IntegrityAlgorithm,
  datagram: Uint8Array,
  offset: number,
  length: number,
  key: Uint8Array,
): Buffer {
  const upTo = offset + 4 + length - HEADER_BYTES
  return createHmac(algorithm, key)
    .update(datagram.subarray(0, 2))
    .update(Uint8Array.of(upTo >> 8, upTo & 0xff))
    .update(datagram.subarray(4, offset))
    .digest()
}

/** @param offset where the FINGERPRINT attribute starts; the header's length must already count it. */
export const fingerprintOf = (datagram: Uint8Array, offset: number): number =>
  (crc32(datagram.subarray(0, offset)) ^ 0x5354554e) >>> 0

function matches(
  algorithm: IntegrityAlgorithm,
  datagram: Uint8Array,
  offset: number,
  length: number,
  key: Uint8Array,
): boolean {
  const { bytes, minBytes } = ALGORITHMS[algorithm]
  if (length < minBytes || length > bytes || length % 4 !== 0) return false
  const expected = integrityOf(algorithm, datagram, offset, length, key).subarray(0, length)
  return timingSafeEqual(expected, datagram.subarray(offset + 4, offset + 4 + length))
}
