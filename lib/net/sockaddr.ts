// Sockets and their addresses as the C library takes them, for calls through node:ffi on Linux.
//
//   sockaddr_in:  u16 family, u16 port, 4 bytes of address, 8 zero
//   sockaddr_in6: u16 family, u16 port, u32 flow label, 16 bytes of address, u32 scope
//
// Port and address are big-endian, the family is in the byte order of the host: little-endian on x64 and arm64.

import { readAddress, writeAddress } from '../address.ts'
import type { Family } from '../cidr.ts'

export const AF: Readonly<Record<Family, number>> = { 4: 2, 6: 10 }
export const SOCK = { stream: 1, datagram: 2, nonBlocking: 0o4000, closeOnExec: 0o2000000 } as const
export const SOCKADDR_BYTES: Readonly<Record<Family, number>> = { 4: 16, 6: 28 }
/** Where the address begins. */
const ADDRESS_AT: Readonly<Record<Family, number>> = { 4: 4, 6: 8 }

/** In memory of its own, which stays where it is. */
export function encodeSockaddr(address: string, family: Family, port: number): Buffer {
  const name = Buffer.from(new ArrayBuffer(SOCKADDR_BYTES[family]))
  name.writeUInt16LE(AF[family], 0)
  name.writeUInt16BE(port, 2)
  writeAddress(address, family, name, ADDRESS_AT[family])
  return name
}

/** The address alone, as text; undefined for what is none. */
export function addressIn(name: Uint8Array): string | undefined {
  for (const family of [4, 6] as const)
    if (name.length >= SOCKADDR_BYTES[family] && name[0] === AF[family] && name[1] === 0)
      return readAddress(name, family, ADDRESS_AT[family])
  return undefined
}
