// Addresses and prefixes of both families in their canonical text (RFC 5952), and how prefixes lie to each other.
// ipaddr.js reads `10.1` and `0x7f.1` as addresses, so net.isIP decides first what an address is.

import { isIP, isIPv4 } from 'node:net'
import ipaddr from 'ipaddr.js'

export const FAMILIES = [4, 6] as const
export type Family = (typeof FAMILIES)[number]
export type Cidr = {
  readonly family: Family
  /** The lowest and the highest address of the prefix, as numbers of 32 or 128 bits. */
  readonly first: bigint
  readonly last: bigint
  readonly length: number
  /** Canonical: host bits cleared, IPv6 as in RFC 5952. */
  readonly text: string
}

/**
 * Prefixes that were read, by their text, for the whole process: who plans from a cluster reads all of them again with each
 * change. Some 300 bytes each; where there are more than that they are forgotten together.
 */
const CIDRS_MAX = 8_192
const cidrs = new Map<string, Cidr>()

/** @returns undefined for whatever is no `ADDRESS/LENGTH`; host bits are cleared, as Kubernetes does. */
export function parseCidr(text: string): Cidr | undefined {
  const known = cidrs.get(text)
  if (known !== undefined) return known
  const cidr = readCidr(text)
  if (cidr === undefined) return undefined
  if (cidrs.size >= CIDRS_MAX) cidrs.clear()
  cidrs.set(text, cidr)
  return cidr
}

function readCidr(text: string): Cidr | undefined {
  const [, address, digits] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? []
  const parsed = address === undefined ? undefined : parseAddress(address)
  const length = Number(digits)
  if (parsed === undefined || length > parsed.bits) return undefined
  const hostBits = BigInt(parsed.bits - length)
  const first = (parsed.number >> hostBits) << hostBits
  const last = first + (1n << hostBits) - 1n
  return { family: parsed.family, first, last, length, text: `${addressText(parsed.family, first)}/${length}` }
}

/** An address or a prefix in canonical text; undefined for anything else, zones (`%eth0`) included. */
export function normalise(text: string): string | undefined {
  if (isIPv4(text)) return text
  if (text.includes('/')) return parseCidr(text)?.text
  const parsed = parseAddress(text)
  return parsed && addressText(parsed.family, parsed.number)
}

/** True if the address lies in the prefix; false for what is no address. */
export function contains(cidr: Cidr, address: string): boolean {
  const parsed = parseAddress(address)
  return parsed?.family === cidr.family && cidr.first <= parsed.number && parsed.number <= cidr.last
}

/**
 * @param prefixes text that is no prefix covers nothing.
 * @returns whether an address lies in any of them, in a time that grows with the logarithm of their number.
 */
export function covering(prefixes: readonly string[]): (address: string) => boolean {
  const ranges = { 4: [] as Cidr[], 6: [] as Cidr[] }
  // What lies in another one comes after it and ends before it.
  for (const cidr of prefixes.flatMap((text) => parseCidr(text) ?? []).toSorted(compareCidrs)) {
    const last = ranges[cidr.family].at(-1)
    if (last === undefined || cidr.first > last.last) ranges[cidr.family].push(cidr)
  }
  return (address) => {
    const parsed = parseAddress(address)
    if (parsed === undefined) return false
    const sorted = ranges[parsed.family]
    let [low, high] = [0, sorted.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sorted[middle]!.last < parsed.number) low = middle + 1
      else high = middle
    }
    return low < sorted.length && sorted[low]!.first <= parsed.number
  }
}

/** The address so far from the lowest one of the prefix; it must lie within. */
export const addressAt = ({ family, first }: Cidr, offset: bigint): string => addressText(family, first + offset)

export function overlaps(a: Cidr, b: Cidr): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last
}

/** Order by family, then lowest address, then the wider first: what contains a prefix comes before it. */
export function compareCidrs(a: Cidr, b: Cidr): number {
  if (a.family !== b.family) return a.family - b.family
  if (a.first !== b.first) return a.first < b.first ? -1 : 1
  return a.length - b.length
}

/** 4 or 6; undefined for what is no address. */
export function familyOf(address: string): Family | undefined {
  const family = isIP(address)
  return (family !== 4 && family !== 6) || address.includes('%') ? undefined : family
}

function parseAddress(text: string): { family: Family; bits: number; number: bigint } | undefined {
  const family = familyOf(text)
  if (family === undefined) return undefined
  let number = 0n
  for (const byte of ipaddr.parse(text).toByteArray()) number = (number << 8n) | BigInt(byte)
  return { family, bits: family === 4 ? 32 : 128, number }
}

function addressText(family: Family, number: bigint): string {
  const bytes: number[] = []
  for (let shift = family === 4 ? 24n : 120n; shift >= 0n; shift -= 8n) bytes.push(Number((number >> shift) & 0xffn))
  return ipaddr.fromByteArray(bytes).toString()
}
