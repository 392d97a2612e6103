// The gateway's own addresses inside the mesh: one of each family, out of the podCIDRs of its node.

import { networkInterfaces } from 'node:os'
import { contains, familyOf, parseCidr } from '../lib/cidr.ts'
import { NODES } from '../lib/k8s/objects.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import { pause } from '../lib/net/lifetime.ts'

export type OwnAddresses = { readonly ipv4?: string; readonly ipv6?: string }

const POLL_MS = 20

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
  const [ipv4, ipv6] = [own.find((address) => familyOf(address) === 4), own.find((address) => familyOf(address) === 6)]
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) }
}

function podCidrsOf(store: StoreView, node: string): readonly string[] | undefined {
  const object = store.list(NODES).find(({ metadata }) => metadata?.name === node)
  return object && (object.spec?.podCIDRs ?? [object.spec?.podCIDR ?? []].flat())
}
