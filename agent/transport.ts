// How packets for a neighbour's pods, or for whoever is behind it, get to that neighbour: over the link that both share, or
// over the pool's VXLAN overlay. What shares a link the kernel says: where it would send a packet to the neighbour's
// InternalIP now, past the mesh, whatever prefixes and rules there are.

import { familyOf, type Family } from '../lib/cidr.ts'
import type { PoolNode } from '../lib/k8s/pools.ts'
import { prefixOf } from '../lib/routes.ts'
import { innerOf, ownLink, underlayAddress } from './overlay.ts'

/** An address of this node, with the prefix that its device is on. */
export type LocalAddress = {
  /** Interface index. */
  readonly device: number
  readonly address: string
  readonly length: number
}
/** Where the kernel sends packets to an address. */
export type Reach = {
  readonly device: number
  /** Without a router between, on a device that asks for MAC addresses. */
  readonly onLink: boolean
}
/** What was observed of this node. */
export type Surroundings = {
  readonly links: readonly LocalAddress[]
  /** By InternalIP of a neighbour; absent for those that the kernel knows no way to. */
  readonly reach: ReadonlyMap<string, Reach>
  /** By prefix of a neighbour's pods: the devices by which routes of others, a CNI's, lead into it. */
  readonly carried: ReadonlyMap<string, readonly number[]>
  /** Devices of the overlay that are there, by their outer family. */
  readonly overlay: Readonly<Partial<Record<Family, { readonly device: number; readonly mtu: number }>>>
}
export type Transport =
  | { readonly kind: 'on-link'; readonly via: string; readonly device: number; readonly address: string }
  | {
      readonly kind: 'vxlan'
      readonly via: string
      readonly device: number
      readonly address: string
      readonly mtu: number
    }

/**
 * @param family of the packets that are to be carried.
 * @returns undefined where there is no way.
 */
export function transportTo(
  neighbour: PoolNode,
  family: Family,
  self: PoolNode,
  surroundings: Surroundings,
): Transport | undefined {
  return onLinkTo(neighbour, family, self, surroundings) ?? overlayTo(neighbour, surroundings)
}

/**
 * Both ends have to decide alike, or the reverse-path filter of one drops what the other sends: so the link counts only
 * where both have their InternalIP, and not where a CNI takes the same pods another way.
 */
function onLinkTo(neighbour: PoolNode, family: Family, self: PoolNode, around: Surroundings): Transport | undefined {
  const { reach, links, carried } = around
  const own = ownLink(self, family, links)
  const others = neighbour.podCidrs
    .filter((cidr) => prefixOf(cidr).family === family)
    .flatMap((cidr) => carried.get(cidr) ?? [])
  for (const via of neighbour.addresses) {
    const { device, onLink } = reach.get(via) ?? { device: 0, onLink: false }
    if (familyOf(via) !== family || !onLink) continue
    const isShared = own === undefined || own.device === device
    if (isShared && others.every((other) => other === NO_DEVICE || other === device))
      return { kind: 'on-link', via, device, address: via }
  }
  return undefined
}

/** A route over several devices names none. */
const NO_DEVICE = 0

function overlayTo(neighbour: PoolNode, { reach, overlay }: Surroundings): Transport | undefined {
  for (const outer of [4, 6] as const) {
    const endpoint = underlayAddress(neighbour, outer)
    const device = overlay[outer]
    if (device === undefined || endpoint === undefined) continue
    // An overlay has each neighbour once: what the first family does not reach, the second has not got.
    return reach.has(endpoint)
      ? { kind: 'vxlan', via: innerOf(neighbour.name).hop, address: endpoint, ...device }
      : undefined
  }
  return undefined
}
