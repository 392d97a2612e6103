// Where a datagram comes from or goes to: an address and a port, written `192.0.2.1:3478` or `[2001:db8::1]:3478`.
// A socket of both families shows IPv4 peers as `::ffff:192.0.2.1`; here they are IPv4, so that one peer has one name.

import { isIP, isIPv4 } from 'node:net'
import ipaddr from 'ipaddr.js'
import { normalise, type Family } from './cidr.ts'

export type SocketAddress = {
  /** Canonical text (RFC 5952), without a zone. */
  readonly address: string
  readonly port: number
  readonly family: Family
}

/** @returns undefined for what is no address or no port; zones are cut off, IPv4-mapped addresses become IPv4. */
export function socketAddress(address: string, port: number): SocketAddress | undefined {
  if (!Number.isInteger(port) || port < 0 || port > 65535) return undefined
  const canonical = canonicalAddress(address)
  return canonical === undefined ? undefined : { address: canonical, port, family: isIPv4(canonical) ? 4 : 6 }
}

/** Reads `ADDRESS:PORT` or `[ADDRESS]:PORT`, port 1-65535; undefined for anything else, names included. */
export function parseSocketAddress(text: string): SocketAddress | undefined {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:[\]]+)):([1-9]\d{0,4})$/.exec(text) ?? []
  const address = bracketed ?? plain
  if (address === undefined || isIP(address) !== (bracketed === undefined ? 4 : 6) || address.includes('%'))
    return undefined
  return socketAddress(address, Number(digits))
}

export const formatSocketAddress = ({ address, port }: Pick<SocketAddress, 'address' | 'port'>): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`

export const sameSocketAddress = (a: SocketAddress, b: SocketAddress): boolean =>
  a.port === b.port && a.address === b.address

/** Canonical text without zone, IPv4-mapped as IPv4; undefined for what is no address. IPv4 passes without work. */
export function canonicalAddress(address: string): string | undefined {
  if (isIPv4(address)) return address
  const zone = address.indexOf('%')
  const canonical = normalise(zone === -1 ? address : address.slice(0, zone))
  if (canonical === undefined || !canonical.startsWith('::ffff:')) return canonical
  const parsed = ipaddr.IPv6.parse(canonical)
  return parsed.isIPv4MappedAddress() ? parsed.toIPv4Address().toString() : canonical
}

/** The number that an IPv4 address is; undefined for any other text. Tens of thousands are asked, and isIPv4 takes ten times as long. */
export function ipv4Number(text: string): number | undefined {
  let [number, byte, digits, dots] = [0, 0, 0, 0]
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === DOT && digits > 0 && dots < 3) {
      number = number * 256 + byte
      dots++
      byte = digits = 0
    } else if (code >= ZERO && code <= ZERO + 9 && !(digits > 0 && byte === 0)) {
      byte = byte * 10 + code - ZERO
      digits++
      if (byte > 255) return undefined
    } else return undefined
  }
  return dots === 3 && digits > 0 ? number * 256 + byte : undefined
}

/** Writes the 4 or 16 bytes of an address in network order. @throws TypeError for what is no address. */
export function writeAddress(address: string, family: Family, target: Uint8Array, offset: number): void {
  const number = family === 4 ? ipv4Number(address) : undefined
  if (number === undefined && (family === 4 || isIP(address) !== 6))
    throw new TypeError(`${address}: is no IPv${family} address`)
  if (number === undefined) return target.set(ipaddr.IPv6.parse(address).toByteArray(), offset)
  for (let i = 0; i < 4; i++) target[offset + i] = number / 2 ** (24 - 8 * i)
}

/** The address in 4 or 16 bytes of a packet, as canonical text; IPv4-mapped ones stay IPv6, as they were written. */
export function readAddress(bytes: Uint8Array, family: Family, offset: number): string {
  if (family === 4) return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}`
  return ipaddr.fromByteArray([...bytes.subarray(offset, offset + 16)]).toString()
}

const DOT = 0x2e
const ZERO = 0x30
