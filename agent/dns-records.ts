// Records and answers as the zone gives them: what is there, what has no record of the type, and what is not there.

import type { DnsRecord, DnsResponse, Rcode } from '../lib/wire/dns.ts'

export type ZoneAnswer = { readonly kind: 'answer' } & Omit<DnsResponse, 'authoritative'>

/** Seconds; kubelet and CoreDNS have the same. */
export const TTL = 5
const ANY_TTL = 8482

/** Names without records of the type say so with the zone's SOA, which caches need (RFC 2308). */
export function found(
  domain: string,
  answers: readonly DnsRecord[],
  additionals: readonly DnsRecord[] = [],
): ZoneAnswer {
  const authorities = answers.length > 0 ? [] : [soa(domain)]
  return { kind: 'answer', rcode: 'NOERROR', answers, authorities, additionals }
}

export const denied = (domain: string): ZoneAnswer => ({
  kind: 'answer',
  rcode: 'NXDOMAIN',
  answers: [],
  authorities: [soa(domain)],
  additionals: [],
})

/** Instead of all that a name has: one record that nobody can make an attack of (RFC 8482). */
export const minimalAny = (name: string): DnsRecord => ({ name, type: 'HINFO', ttl: ANY_TTL, data: 'RFC8482' })

export const failure = (rcode: Rcode): ZoneAnswer => ({
  kind: 'answer',
  rcode,
  answers: [],
  authorities: [],
  additionals: [],
})

/** @param name as it was asked. */
export function soa(domain: string, name = domain): DnsRecord {
  const data = {
    mname: `ns.dns.${domain}`,
    rname: `hostmaster.${domain}`,
    serial: 1,
    refresh: 7200,
    retry: 1800,
    expire: 86_400,
    minimum: TTL,
  }
  return { name, type: 'SOA', ttl: TTL, data }
}

/** Those of the family that the type asks for. */
export function addressRecords(name: string, type: string, addresses: readonly string[]): readonly DnsRecord[] {
  if (type !== 'A' && type !== 'AAAA') return []
  return addresses
    .filter((address) => address.includes(':') === (type === 'AAAA'))
    .map((data) => ({ name, type, ttl: TTL, data }))
}

export const bothFamilies = (name: string, addresses: readonly string[]): readonly DnsRecord[] => [
  ...addressRecords(name, 'A', addresses),
  ...addressRecords(name, 'AAAA', addresses),
]

/** One record for a target and port, each with an equal share of the calls. @param total with those that are not here. */
export function srvRecords(
  name: string,
  targets: readonly { readonly target: string; readonly port: number }[],
  total: number,
): readonly DnsRecord[] {
  const unique = [...new Map(targets.map((target) => [`${target.target} ${target.port}`, target])).values()]
  const weight = Math.max(1, Math.floor(100 / Math.max(total, unique.length)))
  return unique.map(({ target, port }): DnsRecord => ({
    name,
    type: 'SRV',
    ttl: TTL,
    data: { priority: 0, weight, port, target },
  }))
}

/** So many of them, in an order by chance. @param random in [0, 1). */
export function sample<T>(items: readonly T[], most: number, random: () => number): readonly T[] {
  const copy = [...items]
  const count = Math.min(most, copy.length)
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random() * (copy.length - i))
    ;[copy[i], copy[j]] = [copy[j]!, copy[i]!]
  }
  return count === copy.length ? copy : copy.slice(0, count)
}
