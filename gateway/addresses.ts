// The addresses that a gateway has inside the mesh, all made from names, so that every node computes the same.

import { createHash } from 'node:crypto'
import { canonicalAddress } from '../lib/address.ts'

/** The device-scoped address of a node on each of its WireGuard devices; echoes inside a device ride on it. */
export function linkLocalOf(node: string): string {
  return canonicalAddress(`fe80::${groups(hash('link-local', node).subarray(0, 8))}`)!
}

/** The mesh-wide address of a node's gateway: a ULA /128 (RFC 4193), always in AllowedIPs. */
export function ulaOf(node: string): string {
  return canonicalAddress(`${ULA_PREFIX}${groups(hash('ula', node).subarray(0, 10))}`)!
}

/** fd66:756c:6d61::/48 (`fulma` in ASCII after the fd). */
export const ULA_PREFIX = 'fd66:756c:6d61:'

const hash = (purpose: string, node: string) => createHash('sha256').update(`fulmar ${purpose} ${node}`).digest()

function groups(bytes: Uint8Array): string {
  const words: string[] = []
  for (let i = 0; i < bytes.length; i += 2) words.push(((bytes[i]! << 8) | bytes[i + 1]!).toString(16))
  return words.join(':')
}
