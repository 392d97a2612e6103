// The VXLAN overlay of a pool: how its nodes reach each other where they share no link. What each end needs to know of the
// other follows from the Node objects alone (name and InternalIP), so nothing is learned or flooded: the MAC address inside
// is made of the node's name, and the next hop of a route is the link-local address that belongs to it.
//
//   10.244.9.0/24 via fe80::… dev fm-vxlan  ─▶  neighbour fe80::… is 02:…  ─▶  02:… is at 192.168.2.11

import { createHash } from 'node:crypto'
import { FAMILIES, familyOf, normalise, type Family } from '../lib/cidr.ts'
import type { PoolNode } from '../lib/k8s/pools.ts'
import { LEAST_MTU } from '../lib/owned.ts'
import type { LocalAddress } from './transport.ts'

export type OverlayPeer = {
  readonly node: string
  readonly mac: string
  /** Next hop of routes, on the overlay's device only. */
  readonly hop: string
  /** Its InternalIP. */
  readonly endpoint: string
}
/** What one device is to be: all of its outer packets are of one family. */
export type Overlay = {
  readonly outer: Family
  /** Our InternalIP. */
  readonly local: string
  readonly mac: string
  readonly mtu: number
  readonly peers: readonly OverlayPeer[]
}

/** IP, UDP and VXLAN headers outside and the Ethernet header inside, bytes. */
const OVERHEAD: Readonly<Record<Family, number>> = { 4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14 }

/**
 * @param mtuOf of the device with this index.
 * @returns a device per family, and in it every neighbour that has an InternalIP of that family and none of an earlier one.
 */
export function overlaysOf(
  self: PoolNode,
  neighbours: readonly PoolNode[],
  links: readonly LocalAddress[],
  mtuOf: (device: number) => number | undefined,
): readonly Overlay[] {
  const ends = FAMILIES.flatMap((outer) => {
    const link = ownLink(self, outer, links)
    return link === undefined ? [] : [{ outer, link }]
  })
  return ends.flatMap(({ outer, link }) => {
    const peers = neighbours.flatMap((neighbour) => {
      const first = ends.find((end) => underlayAddress(neighbour, end.outer) !== undefined)
      const endpoint = underlayAddress(neighbour, outer)
      return first?.outer === outer && endpoint !== undefined ? [{ ...innerOf(neighbour.name), endpoint }] : []
    })
    if (peers.length === 0) return []
    const mtu = Math.max(LEAST_MTU, (mtuOf(link.device) ?? 0) - OVERHEAD[outer])
    return [{ outer, local: link.address, mac: innerOf(self.name).mac, mtu, peers }]
  })
}

/** Link-local addresses are on every link: as InternalIP they say nothing. */
export const underlayAddress = ({ addresses }: PoolNode, family: Family): string | undefined =>
  addresses.find((address) => familyOf(address) === family && !address.startsWith('fe80:'))

/** This node's own InternalIP of a family, if it is on a device. */
export const ownLink = (self: PoolNode, family: Family, links: readonly LocalAddress[]): LocalAddress | undefined =>
  links.find(({ address }) => familyOf(address) === family && self.addresses.includes(address))

/** What a node is called inside of the overlay: a locally administered MAC address, and the EUI-64 of it (RFC 4291). */
export function innerOf(node: string): { readonly node: string; readonly mac: string; readonly hop: string } {
  const mac = [0x02, ...createHash('sha256').update(`fulmar vxlan ${node}`).digest().subarray(0, 5)]
  const hex = (bytes: readonly number[]) => bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('')
  const [a, b, c, d, e, f] = mac as [number, number, number, number, number, number]
  const groups = hex([a ^ 0x02, b, c, 0xff, 0xfe, d, e, f]).match(/..../g)!
  return { node, mac: hex(mac).match(/../g)!.join(':'), hop: normalise(`fe80::${groups.join(':')}`)! }
}

export type ForwardingStep =
  | { readonly kind: 'set-endpoint' | 'remove-endpoint'; readonly mac: string; readonly endpoint: string }
  | { readonly kind: 'set-neighbour' | 'remove-neighbour'; readonly mac: string; readonly address: string }

export type Forwarding = {
  readonly endpoints: readonly { readonly mac: string; readonly endpoint: string }[]
  readonly neighbours: readonly { readonly mac: string; readonly address: string }[]
}

/** From what a device has to what it is to have, additions first. Entries without an end (multicast, flooding) go too. */
export function planForwarding(observed: Forwarding, peers: readonly OverlayPeer[]): readonly ForwardingStep[] {
  const endpoints = peers.map(({ mac, endpoint }) => ({ mac, endpoint }))
  const neighbours = peers.map(({ mac, hop }) => ({ mac, address: hop }))
  const missing = <T>(from: readonly T[], of: readonly T[], same: (a: T, b: T) => boolean) =>
    of.filter((item) => !from.some((other) => same(item, other)))
  const sameEndpoint = (a: { mac: string; endpoint: string }, b: typeof a) =>
    a.mac === b.mac && a.endpoint === b.endpoint
  const sameNeighbour = (a: { mac: string; address: string }, b: typeof a) => a.mac === b.mac && a.address === b.address
  return [
    ...missing(observed.endpoints, endpoints, sameEndpoint).map(
      (entry) => ({ kind: 'set-endpoint', ...entry }) as const,
    ),
    ...missing(observed.neighbours, neighbours, sameNeighbour).map(
      (entry) => ({ kind: 'set-neighbour', ...entry }) as const,
    ),
    // One that has moved was replaced by the one above.
    ...observed.endpoints
      .filter(({ mac }) => !endpoints.some((wanted) => wanted.mac === mac))
      .map((entry) => ({ kind: 'remove-endpoint', ...entry }) as const),
    ...observed.neighbours
      .filter(({ address }) => !neighbours.some((wanted) => wanted.address === address))
      .map((entry) => ({ kind: 'remove-neighbour', ...entry }) as const),
  ]
}
