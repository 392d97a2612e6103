// Endpoints and addresses as names: hostnames, addresses with dashes, and reverse names (RFC 1035 §3.5, RFC 3596 §2.5).

import { isIP } from 'node:net'
import { normalise } from '../lib/cidr.ts'
import type { Health } from './choice.ts'
import type { ClusterService, Endpoint } from './cluster.ts'
import { readyEndpoints, type Here } from './topology.ts'

/** The zones of addresses as names; each answers for what is not there below it. */
export type ReverseZone = 'in-addr.arpa' | 'ip6.arpa'

/** @param lower in lower case. @returns undefined for what is no reverse name; no address for one that is cut short. */
export function readReverse(
  lower: string,
): { readonly zone: ReverseZone; readonly address: string | undefined } | undefined {
  if (lower.endsWith('.in-addr.arpa')) {
    const text = lower.slice(0, -'.in-addr.arpa'.length).split('.').reverse().join('.')
    return { zone: 'in-addr.arpa', address: isIP(text) === 4 ? text : undefined }
  }
  if (!lower.endsWith('.ip6.arpa')) return undefined
  const nibbles = lower.slice(0, -'.ip6.arpa'.length).split('.').reverse()
  if (nibbles.length !== 32 || !nibbles.every((nibble) => /^[0-9a-f]$/.test(nibble)))
    return { zone: 'ip6.arpa', address: undefined }
  return { zone: 'ip6.arpa', address: normalise(nibbles.join('').replace(/.{4}(?=.)/g, '$&:')) }
}

/** `10-244-1-5` or `fd00--5` as an address; undefined for any other label. */
export function unDash(label: string): string | undefined {
  const v4 = label.replaceAll('-', '.')
  if (isIP(v4) === 4) return v4
  return normalise(label.replaceAll('-', ':'))
}

/** The pod's hostname, else its address with dashes. */
function endpointLabel({ hostname, address }: Endpoint): string {
  if (hostname !== undefined && /^[\w-]{1,63}$/.test(hostname)) return hostname.toLowerCase()
  if (!address.includes(':')) return address.replaceAll('.', '-')
  const dashed = address.replaceAll(':', '-')
  // A label may neither begin nor end with a dash.
  return `${dashed.startsWith('-') ? '0' : ''}${dashed}${dashed.endsWith('-') ? '0' : ''}`
}

/** The endpoints of a service that its names have from here. */
export type Members = {
  readonly all: readonly Endpoint[]
  /** Each address once. */
  readonly v4: readonly string[]
  readonly v6: readonly string[]
  /** Made when first asked for. */
  readonly byLabel: () => ReadonlyMap<string, readonly Endpoint[]>
}

export function membersOf(service: ClusterService, here: Here, health?: Health): Members {
  const all = readyEndpoints(service, here, health && deadBy(health))
  const addresses = [...new Set(all.map(({ address }) => address))]
  let labelled: ReadonlyMap<string, readonly Endpoint[]> | undefined
  return {
    all,
    v4: addresses.filter((address) => !address.includes(':')),
    v6: addresses.filter((address) => address.includes(':')),
    byLabel: () => (labelled ??= Map.groupBy(all, endpointLabel)),
  }
}

/** A name leads to an address, not to a port: one port that answers is enough. */
const deadBy =
  (health: Health) =>
  ({ address, node, ports }: Endpoint): boolean =>
    ports.length === 0
      ? health(address, 0, node, 'TCP') !== undefined
      : ports.every(({ port, protocol }) => health(address, port, node, protocol) !== undefined)

/** Where an address leads: to a service, or to an endpoint of one. */
export type Named = { readonly service: ClusterService; readonly endpoint: Endpoint | undefined }

export const nameOf = ({ service, endpoint }: Named, domain: string): string =>
  `${endpoint === undefined ? '' : `${endpointLabel(endpoint)}.`}${service.name}.${service.namespace}.svc.${domain}`

/** A ClusterIP leads to its service, the first that claims it; an endpoint's address to its name in each service. */
export function namedAddresses(services: Iterable<ClusterService>, here: Here): ReadonlyMap<string, readonly Named[]> {
  const found = new Map<string, Named[]>()
  for (const service of services)
    for (const { address } of service.clusterIps)
      if (!found.has(address)) found.set(address, [{ service, endpoint: undefined }])
  for (const service of services)
    for (const endpoint of readyEndpoints(service, here)) {
      const known = found.get(endpoint.address)
      if (known === undefined) found.set(endpoint.address, [{ service, endpoint }])
      // Services are gone through one after the other.
      else if (known[0]!.endpoint !== undefined && known.at(-1)!.service !== service) known.push({ service, endpoint })
    }
  return found
}
