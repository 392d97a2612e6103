// The addresses of a lab's underlay: what a registry and an Internet provider would hand out.
//
//                     IPv4                      IPv6 (underlay v6 or dual)      IPv6 (underlay v4)
//   cloud             203.0.113.0/24, .10 .11   2001:db8:1::/64, ::10 ::11      fd00:168::/64 (goes nowhere)
//   … second relay    .12 .13, and so on        ::12 ::13
//   WAN of site i     198.18.i.2/24             2001:db8:f000:i::2/64           -
//   ... behind a carrier's NAT, which has that one
//                     100.64.i.2/24             2001:db8:f100:i::2/64           -
//   LAN of site i     192.168.i.0/24            2001:db8:100+i::/64             fd00:168:i::/64 (goes nowhere)
//   ... if public     198.19.i.0/24             the same                        the same
//   second LAN of it  172.16.i.0/24             2001:db8:400+i::/64             fd00:169:i::/64 (goes nowhere)
//
// The core is .1 or ::1 of the cloud and of each WAN, the router .1 or ::1 of its LAN, the carrier of what is behind it.
// Decimal numbers stand for hex groups as they are, so that a person reads the same number in both families.

import type { NatName } from './nat.ts'

export const UNDERLAYS = ['v4', 'v6', 'dual'] as const
export type Underlay = (typeof UNDERLAYS)[number]

/** Prefix length and the addresses of one link's two ends, or of one host on a LAN. */
export type Prefix = { readonly cidr: string; readonly length: number; readonly at: (host: number) => string }
export type Lan = { readonly v4: Prefix; readonly v6: Prefix }
export type Wan = { readonly v4: Prefix | undefined; readonly v6: Prefix | undefined }

export const SITES_MAX = 250
/** Hosts of a LAN: its router is 1, its nodes are 11, 12, … */
export const FIRST_NODE = 11
export const NODES_MAX = 200
export const RELAYS_MAX = 5
/** A relay's machine has both of these, so that STUN has two addresses; that of the first is the cloud's. */
export const relayHosts = (relay: number): readonly [number, number] => [10 + 2 * relay, 11 + 2 * relay]
/** Further nodes of the cloud's pool. */
export const FIRST_CLOUD_NODE = 20

export const hasV4 = (underlay: Underlay) => underlay !== 'v6'
export const hasV6 = (underlay: Underlay) => underlay !== 'v4'

export function cloudLan(underlay: Underlay): Lan {
  return { v4: prefix4('203.0.113'), v6: prefix6(hasV6(underlay) ? '2001:db8:1' : 'fd00:168') }
}

export function siteLan(site: number, nat: NatName, underlay: Underlay, overlap: boolean): Lan {
  const privateSite = overlap ? 1 : site
  return {
    v4: prefix4(nat === 'none' && hasV4(underlay) ? `198.19.${site}` : `192.168.${privateSite}`),
    v6: prefix6(hasV6(underlay) ? `2001:db8:${100 + site}` : `fd00:168:${privateSite}`),
  }
}

/** Of a site whose nodes are on two LANs, joined by its router. */
export function secondLan(site: number, underlay: Underlay, overlap: boolean): Lan {
  const privateSite = overlap ? 1 : site
  return {
    v4: prefix4(`172.16.${privateSite}`),
    v6: prefix6(hasV6(underlay) ? `2001:db8:${400 + site}` : `fd00:169:${privateSite}`),
  }
}

export function siteWan(site: number, underlay: Underlay): Wan {
  return {
    v4: hasV4(underlay) ? prefix4(`198.18.${site}`) : undefined,
    v6: hasV6(underlay) ? prefix6(`2001:db8:f000:${site}`) : undefined,
  }
}

/** Between the router of a site and the NAT of its carrier (RFC 6598). */
export function carrierLan(site: number, underlay: Underlay): Wan {
  return {
    v4: hasV4(underlay) ? prefix4(`100.64.${site}`) : undefined,
    v6: hasV6(underlay) ? prefix6(`2001:db8:f100:${site}`) : undefined,
  }
}

/** What a daemon may dial of a relay from anywhere; the order is IPv4 first. */
export function relayAddresses(
  underlay: Underlay,
  relay: number,
): {
  readonly public: readonly string[]
  readonly stun: readonly string[]
} {
  const hosts = relayHosts(relay)
  const { v4, v6 } = cloudLan(underlay)
  const families = [...(hasV4(underlay) ? [v4] : []), ...(hasV6(underlay) ? [v6] : [])]
  return {
    public: families.map((family) => family.at(hosts[0])),
    stun: families.flatMap((family) => hosts.map((host) => family.at(host))),
  }
}

const prefix4 = (head: string): Prefix => ({ cidr: `${head}.0/24`, length: 24, at: (host) => `${head}.${host}` })
const prefix6 = (head: string): Prefix => ({ cidr: `${head}::/64`, length: 64, at: (host) => `${head}::${host}` })
