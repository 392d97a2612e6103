// Resolvers as people write them: by flag, in resolv.conf(5), and for a domain of their own.

import { isIP } from 'node:net'
import { canonicalAddress, parseSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import { isName } from '../lib/wire/dns-name.ts'

export const DNS_PORT = 53

/** A domain whose names are asked of servers of its own. */
export type DnsStub = {
  /** In lower case, without dots at its ends. */
  readonly domain: string
  readonly servers: readonly SocketAddress[]
}

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

/** `DOMAIN=SERVER,…`; a domain that stands twice has two servers. @throws Error for what is none. */
export function parseStubs(text: string): readonly DnsStub[] {
  const stubs = new Map<string, SocketAddress[]>()
  for (const item of text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')) {
    const [written = '', address = ''] = item.split('=')
    const domain = written.toLowerCase().replace(/^\.|\.$/g, '')
    const server = parseServer(address)
    if (!isName(domain) || server === undefined) throw new Error(`${item} is not DOMAIN=ADDRESS[:PORT]`)
    stubs.set(domain, [...(stubs.get(domain) ?? []), server])
  }
  // The nearest domain of a name is the longest.
  return [...stubs].map(([domain, servers]) => ({ domain, servers })).sort((a, b) => b.domain.length - a.domain.length)
}

/** @param stubs the longest domains first. */
export function stubFor(stubs: readonly DnsStub[], name: string): DnsStub | undefined {
  if (stubs.length === 0) return undefined
  const lower = name.toLowerCase()
  return stubs.find(({ domain }) => lower === domain || lower.endsWith(`.${domain}`))
}
