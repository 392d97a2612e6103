// Addresses as names: for reverse lookups (RFC 1035 §3.5, RFC 3596 §2.5) and with dashes as labels of pods.

import { isIP } from 'node:net'
import { familyOf, normalise } from '../lib/cidr.ts'
import { writeAddress } from '../lib/address.ts'

/** In lower case, without a dot at the end. */
export function reverseName(address: string): string {
  if (familyOf(address) === 4) return `${address.split('.').reverse().join('.')}.in-addr.arpa`
  const bytes = new Uint8Array(16)
  writeAddress(address, 6, bytes, 0)
  const nibbles = [...bytes].flatMap((byte) => [byte >> 4, byte & 15]).map((nibble) => nibble.toString(16))
  return `${nibbles.reverse().join('.')}.ip6.arpa`
}

/** `10-244-1-5` or `fd00--5` as an address; undefined for any other label. */
export function unDash(label: string): string | undefined {
  const v4 = label.replaceAll('-', '.')
  if (isIP(v4) === 4) return v4
  return normalise(label.replaceAll('-', ':'))
}
