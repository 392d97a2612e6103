// The addresses at which a gateway's WireGuard port may be reached: what its interfaces have, what its router forwards,
// what STUN servers see, and what its pool's Gateway object says. Pure.

import type { NetworkInterfaceInfo } from 'node:os'
import { socketAddress, type SocketAddress } from '../lib/address.ts'
import { covering } from '../lib/cidr.ts'
import { MAX_CANDIDATES, type Candidate } from './announcement.ts'
import { ULA_PREFIX } from './addresses.ts'

/** Devices of the mesh itself and of container networks, whose addresses mean nothing outside of the node. */
const INNER_DEVICE = /^(fm-|veth|cni|cali|cilium|lxc|flannel|docker|br-|kube|vxlan|raven|nodelocaldns|lo$)/

const OWN = new RegExp(`^(fe80:|${ULA_PREFIX})`)

export type IsInside = (address: string) => boolean

/**
 * Tells which addresses lie inside the mesh, where no path to a gateway may be: it would carry itself. Link-local ones
 * count, which gateways have on the mesh's own devices.
 * @param meshPrefixes pod prefixes of all pools.
 */
export function insideOf(meshPrefixes: readonly string[]): IsInside {
  const mesh = covering(meshPrefixes)
  return (address) => OWN.test(address) || mesh(address)
}

/** Addresses of interfaces that others may know. */
export function hostAddresses(
  interfaces: NodeJS.Dict<readonly NetworkInterfaceInfo[]>,
  port: number,
  isInside: IsInside,
): readonly SocketAddress[] {
  const addresses = Object.entries(interfaces).flatMap(([device, infos]) =>
    INNER_DEVICE.test(device) ? [] : (infos ?? []).map(({ address }) => socketAddress(address, port)),
  )
  return addresses
    .filter((address) => address !== undefined)
    .filter(({ address }) => !/^(169\.254\.|127\.|::1$)/.test(address) && !isInside(address))
}

/**
 * What we announce: best first, each address once and under its best kind. Of a host with more addresses than can be
 * told the last are left out, and not those that the outside sees.
 */
export function ownCandidates(
  hosts: readonly SocketAddress[],
  mapped: readonly SocketAddress[],
  reflexive: readonly SocketAddress[],
): readonly Candidate[] {
  const outer = distinct([...ofKind('mapped', mapped), ...ofKind('reflexive', reflexive)])
  const room = Math.max(0, MAX_CANDIDATES - outer.length)
  return distinct([...ofKind('host', hosts).slice(0, room), ...outer]).slice(0, MAX_CANDIDATES)
}

/** What we try of a peer's: what it announced, and what the Gateway object of its pool says of it. */
export function peerCandidates(
  announced: readonly Candidate[],
  fixed: readonly SocketAddress[],
  isInside: IsInside,
): readonly Candidate[] {
  const hosts = announced.filter(({ kind }) => kind === 'host')
  const others = announced.filter(({ kind }) => kind !== 'host')
  const all = distinct([...hosts, ...ofKind('static', fixed), ...others])
  return all.filter(({ address }) => !isInside(address.address))
}

const ofKind = (kind: Candidate['kind'], addresses: readonly SocketAddress[]): readonly Candidate[] =>
  addresses.map((address) => ({ kind, address }))

function distinct(candidates: readonly Candidate[]): readonly Candidate[] {
  const seen = new Set<string>()
  return candidates.filter(({ address: { address, port } }) => {
    const key = `${address} ${port}`
    return !seen.has(key) && seen.add(key)
  })
}
