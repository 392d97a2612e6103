// The addresses at which peers may find this gateway's WireGuard port: what its interfaces have, and what STUN servers
// see. Pure.

import type { NetworkInterfaceInfo } from 'node:os'
import { socketAddress, type SocketAddress } from '../lib/address.ts'
import { contains, parseCidr } from '../lib/cidr.ts'
import { MAX_CANDIDATES, type Candidate } from './announcement.ts'
import { ULA_PREFIX } from './addresses.ts'

/** Devices of the mesh itself and of container networks, whose addresses mean nothing outside of the node. */
const INNER_DEVICE = /^(fm-|veth|cni|cali|cilium|lxc|flannel|docker|br-|kube|vxlan|raven|nodelocaldns|lo$)/

/** @param meshPrefixes pod prefixes of all pools: no candidate lies inside the mesh that it is to carry. */
export function hostCandidates(
  interfaces: NodeJS.Dict<readonly NetworkInterfaceInfo[]>,
  port: number,
  meshPrefixes: readonly string[],
): readonly Candidate[] {
  const mesh = meshPrefixes.map(parseCidr).filter((cidr) => cidr !== undefined)
  const addresses = Object.entries(interfaces).flatMap(([device, infos]) =>
    INNER_DEVICE.test(device) ? [] : (infos ?? []).map(({ address }) => socketAddress(address, port)),
  )
  return addresses
    .filter((address) => address !== undefined)
    .filter(({ address }) => !/^(fe80:|169\.254\.|127\.|::1$)/.test(address) && !address.startsWith(ULA_PREFIX))
    .filter(({ address }) => !mesh.some((cidr) => contains(cidr, address)))
    .map((address) => ({ kind: 'host', address }))
}

/** Host addresses first, then what servers saw and no interface has; each once. */
export function mergeCandidates(
  hosts: readonly Candidate[],
  reflexive: readonly SocketAddress[],
): readonly Candidate[] {
  const seen = new Set(hosts.map(({ address }) => keyOf(address)))
  const added = reflexive.filter((address) => !seen.has(keyOf(address)) && seen.add(keyOf(address)))
  return [...hosts, ...added.map((address) => ({ kind: 'reflexive' as const, address }))].slice(0, MAX_CANDIDATES)
}

const keyOf = ({ address, port }: SocketAddress): string => `${address} ${port}`
