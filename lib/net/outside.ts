// Addresses that this node must reach without the mesh: its own on the LAN, and those of relays, STUN servers and the API.

import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { parseSocketAddress } from '../address.ts'
import { contains, parseCidr } from '../cidr.ts'
import { withoutOutside, type Pool } from '../k8s/pools.ts'
import type { NodeIdentity } from './identity.ts'

type OutsideAddress = { readonly address: string; readonly what: string }

/** Pools as this node may route them, and what was left out. */
export function routablePools(
  identity: Pick<NodeIdentity, 'node' | 'relays' | 'stun' | 'server'>,
  pools: readonly Pool[],
): { pools: readonly Pool[]; problems: readonly string[] } {
  const own = pools.flatMap(({ nodes }) => nodes.filter(({ name }) => name === identity.node))
  return withoutOutside(
    pools,
    outsideAddresses(
      identity,
      own.flatMap(({ podCidrs }) => podCidrs),
    ),
  )
}

/** @param own podCIDRs of this node: its addresses in there are inside. */
function outsideAddresses(
  { relays, stun, server }: Pick<NodeIdentity, 'relays' | 'stun' | 'server'>,
  own: readonly string[],
): readonly OutsideAddress[] {
  const inside = own.map(parseCidr).filter((cidr) => cidr !== undefined)
  const local = Object.entries(networkInterfaces()).flatMap(([device, infos]) =>
    device.startsWith('fm-')
      ? []
      : (infos ?? []).map(({ address }) => ({ address, what: `an address of this node on ${device}` })),
  )
  const hosts = [
    ...relays.map((url) => ({ address: hostOf(url), what: 'the relay' })),
    ...stun.map((text) => ({ address: parseSocketAddress(text)?.address ?? '', what: 'a STUN server' })),
    { address: hostOf(server), what: 'the Kubernetes API' },
  ]
  return [...hosts, ...local].filter(
    ({ address }) => isIP(address) !== 0 && !inside.some((cidr) => contains(cidr, address)),
  )
}

/** A host that is a name is not looked up: what it resolves to may change at any time. */
const hostOf = (url: string): string => (URL.parse(url)?.hostname ?? '').replace(/^\[|\]$/g, '')
