// The gateway's own addresses inside the mesh: one of each family, out of the podCIDRs of its node.

import { networkInterfaces } from 'node:os'
import { contains, familyOf, parseCidr } from '../lib/cidr.ts'
import { NODES } from '../lib/k8s/objects.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import { pause } from '../lib/net/lifetime.ts'
import { linkLocalOf, ulaOf } from './addresses.ts'

export type OwnAddresses = {
  /** What this node sends into the mesh comes from there; undefined where the node has none in its podCIDRs. */
  readonly source4: string | undefined
  readonly source6: string | undefined
  /** What every WireGuard device has. */
  readonly onDevices: {
    readonly linkLocal: string
    readonly ula: string
    readonly ipv4: string
    readonly ipv6: string | undefined
  }
}

/** Without a disk, the first list of nodes comes a moment after the start, and all waits for it. */
const POLL_MS = 20
/**
 * Put on the devices of a node that has no address in its podCIDR: the kernel takes a device without any IPv4 address
 * for one with strict rp_filter, and drops what arrives while two sides use different rungs.
 */
const NO_ADDRESS = '169.254.20.54'

/**
 * Waits until the cluster (or the disk) knows this node.
 * @param configured an address to use instead of one that an interface has.
 */
export async function findOwnAddresses(
  store: StoreView,
  node: string,
  configured: string | undefined,
  signal: AbortSignal,
): Promise<OwnAddresses> {
  let prefixes = podCidrsOf(store, node)
  for (; prefixes === undefined && !signal.aborted; prefixes = podCidrsOf(store, node)) await pause(POLL_MS, signal)
  const cidrs = (prefixes ?? []).map(parseCidr).filter((cidr) => cidr !== undefined)
  const local = Object.values(networkInterfaces()).flatMap((infos) => (infos ?? []).map(({ address }) => address))
  const own = [
    ...(configured === undefined ? [] : [configured]),
    ...local.filter((address) => cidrs.some((cidr) => contains(cidr, address))),
  ]
  const source4 = own.find((address) => familyOf(address) === 4)
  const source6 = own.find((address) => familyOf(address) === 6)
  const onDevices = { linkLocal: linkLocalOf(node), ula: ulaOf(node), ipv4: source4 ?? NO_ADDRESS, ipv6: source6 }
  return { source4, source6, onDevices }
}

function podCidrsOf(store: StoreView, node: string): readonly string[] | undefined {
  const object = store.list(NODES).find(({ metadata }) => metadata?.name === node)
  return object && (object.spec?.podCIDRs ?? [object.spec?.podCIDR ?? []].flat())
}
