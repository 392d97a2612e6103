// The value of MAPPED-ADDRESS and of all attributes of its form (RFC 8489 §14.1-14.2):
//
//   u8 zero | u8 family: 1 IPv4, 2 IPv6 | u16 port | address of 4 or 16 bytes
//
// In XOR-MAPPED-ADDRESS port and address are XORed with the header from the cookie on, so that no NAT that rewrites
// addresses inside packets finds them.

import { readAddress, writeAddress, type SocketAddress } from '../address.ts'
import { u16 } from './stun-format.ts'

const IPV4_BYTES = 8
const IPV6_BYTES = 20

export const addressValueBytes = ({ family }: SocketAddress): number => (family === 4 ? IPV4_BYTES : IPV6_BYTES)

/** @param offset of the value in the datagram, whose header is at 0. @returns undefined if malformed. */
export function readAddressValue(
  datagram: Uint8Array,
  offset: number,
  length: number,
  xor: boolean,
): SocketAddress | undefined {
  const kind = datagram[offset + 1]
  const family = kind === 1 && length === IPV4_BYTES ? 4 : kind === 2 && length === IPV6_BYTES ? 6 : undefined
  if (family === undefined) return undefined
  const bytes = new Uint8Array(datagram.subarray(offset + 2, offset + length))
  if (xor) toggle(bytes, datagram)
  return { address: readAddress(bytes, family, 2), port: u16(bytes, 0), family }
}

/** @returns the offset behind the value. @throws RangeError or TypeError for a port or an address that is none. */
export function writeAddressValue(target: Buffer, offset: number, value: SocketAddress, xor: boolean): number {
  const end = offset + addressValueBytes(value)
  target.writeUInt16BE(value.family === 4 ? 1 : 2, offset)
  target.writeUInt16BE(value.port, offset + 2)
  writeAddress(value.address, value.family, target, offset + 4)
  if (xor) toggle(target.subarray(offset + 2, end), target)
  return end
}

function toggle(portAndAddress: Uint8Array, header: Uint8Array): void {
  for (let i = 0; i < portAndAddress.length; i++) portAndAddress[i]! ^= header[i < 2 ? 4 + i : 2 + i]!
}
