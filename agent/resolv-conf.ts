// Resolvers as people write them: by flag, and in resolv.conf(5).

import { isIP } from 'node:net'
import { canonicalAddress, parseSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'

export const DNS_PORT = 53

/** `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. */
export function parseServer(text: string): SocketAddress | undefined {
  return isIP(text) === 0 ? parseSocketAddress(text) : socketAddress(text, DNS_PORT)
}

/** A link-local resolver keeps its zone: without it the address leads nowhere. */
export function parseResolvConf(text: string): readonly SocketAddress[] {
  return [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].flatMap(([, address]) => {
    if (address!.includes('%'))
      return isIP(address!) === 6 ? [{ address: address!, port: DNS_PORT, family: 6 as const }] : []
    const canonical = canonicalAddress(address!)
    return (canonical && socketAddress(canonical, DNS_PORT)) || []
  })
}
