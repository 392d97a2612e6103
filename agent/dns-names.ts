// Endpoints and addresses as names: hostnames, addresses with dashes, and reverse names (RFC 1035 §3.5, RFC 3596 §2.5).

import { isIP } from 'node:net'
import { familyOf, normalise } from '../lib/cidr.ts'
import { writeAddress } from '../lib/address.ts'
import type { ClusterService, Endpoint } from './cluster.ts'
import { readyEndpoints, type Here } from './topology.ts'

/** In lower case, without a dot at the end. */
function reverseName(address: string): string {
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

/** The pod's hostname, else its address with dashes. */
export function endpointLabel({ hostname, address }: Endpoint): string {
  if (hostname !== undefined) return hostname.toLowerCase()
  if (!address.includes(':')) return address.replaceAll('.', '-')
  const dashed = address.replaceAll(':', '-')
  // A label may neither begin nor end with a dash.
  return `${dashed.startsWith('-') ? '0' : ''}${dashed}${dashed.endsWith('-') ? '0' : ''}`
}

/** ClusterIPs lead to services; addresses of endpoints to their own names, the first service by name. */
export function reverseNames(
  services: readonly ClusterService[],
  here: Here,
  domain: string,
): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  for (const service of services)
    for (const { address } of service.clusterIps) {
      const key = reverseName(address)
      if (!names.has(key)) names.set(key, `${service.name}.${service.namespace}.svc.${domain}`)
    }
  for (const service of services)
    for (const endpoint of readyEndpoints(service, here)) {
      const key = reverseName(endpoint.address)
      if (!names.has(key))
        names.set(key, `${endpointLabel(endpoint)}.${service.name}.${service.namespace}.svc.${domain}`)
    }
  return names
}
