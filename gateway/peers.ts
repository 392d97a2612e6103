// Whom this gateway has tunnels to: the active gateway of every other pool, if it has announced itself. Pure. What a
// pool is and which prefixes it has comes from the Kubernetes objects, never from what a gateway claims.

import { socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import { linkLocalOf, ulaOf } from './addresses.ts'
import type { Announcement, Candidate } from './announcement.ts'
import { insideOf, peerCandidates } from './candidates.ts'

export type Peer = {
  readonly pool: string
  readonly node: string
  readonly wireguardKey: string
  /** Prefixes to route to it. */
  readonly cidrs: readonly string[]
  /** Sources accepted from it, the same on every rung: its prefixes and its gateway's own addresses. */
  readonly allowedIps: readonly string[]
  readonly announcement: Announcement
  /** Where it may be reached: what it announced, and what its pool's Gateway object says. */
  readonly candidates: readonly Candidate[]
}

export type PeerPlan = {
  readonly pool: string
  /** False where another node of the pool is the active gateway: then there are no peers. */
  readonly active: boolean
  readonly peers: readonly Peer[]
  /** Pools whose gateway has not announced itself: no path yet. */
  readonly waiting: readonly Waiting[]
}

export type Waiting = {
  readonly pool: string
  readonly node: string
  readonly cidrs: readonly string[]
  /** Whose WireGuard key it announces. A device has a key once: it stays with the gateway that had it first. */
  readonly keyOf?: string
}

/**
 * @param announcements by node, in the order in which each came to its key.
 * @returns undefined while the cluster does not know our node.
 */
export function planPeers(
  node: string,
  pools: readonly Pool[],
  announcements: ReadonlyMap<string, Announcement>,
): PeerPlan | undefined {
  const own = pools.find((pool) => pool.nodes.some(({ name }) => name === node))
  if (own === undefined) return undefined
  const others = pools.flatMap((pool) => {
    const [gateway] = pool.gateways
    return pool === own || gateway === undefined ? [] : [{ pool, node: gateway, cidrs: cidrsOf(pool) }]
  })
  const active = own.gateways[0] === node
  if (!active) return { pool: own.name, active, peers: [], waiting: [] }
  const isInside = insideOf(pools.flatMap(cidrsOf))
  const owners = keyOwners(announcements, new Set(others.map(({ node }) => node)))
  const ownerOf = (node: string) => owners.get(announcements.get(node)?.wireguardKey ?? '')
  return {
    pool: own.name,
    active,
    peers: others.flatMap(({ pool, node, cidrs }) => {
      const announcement = announcements.get(node)
      if (announcement === undefined || ownerOf(node) !== node) return []
      const { wireguardKey, candidates: announced } = announcement
      const allowedIps = [...cidrs, `${linkLocalOf(node)}/128`, `${ulaOf(node)}/128`]
      const candidates = peerCandidates(announced, fixedAddresses(pool, announcement), isInside)
      return [{ pool: pool.name, node, cidrs, wireguardKey, allowedIps, announcement, candidates }]
    }),
    waiting: others.flatMap(({ pool, node, cidrs }) => {
      const owner = ownerOf(node)
      if (owner === node) return []
      return [{ pool: pool.name, node, cidrs, ...(owner !== undefined && { keyOf: owner }) }]
    }),
  }
}

/** @returns by key, the first of these gateways that came to it. */
function keyOwners(announcements: ReadonlyMap<string, Announcement>, gateways: ReadonlySet<string>) {
  const owners = new Map<string, string>()
  for (const [node, { wireguardKey }] of announcements)
    if (gateways.has(node) && !owners.has(wireguardKey)) owners.set(wireguardKey, node)
  return owners
}

/** Where the Gateway object says that the peer is. Without a port: on the one that it listens on itself, as 1:1 NATs have it. */
function fixedAddresses({ endpoints = [] }: Pool, { node, candidates }: Announcement): readonly SocketAddress[] {
  const declared = endpoints.find((endpoint) => endpoint.node === node)?.public
  const port = declared?.port ?? candidates.find(({ kind }) => kind === 'host')?.address.port
  const address = declared && port !== undefined ? socketAddress(declared.address, port) : undefined
  return address === undefined ? [] : [address]
}

export const cidrsOf = (pool: Pool): readonly string[] => pool.nodes.flatMap(({ podCidrs }) => podCidrs).toSorted()

/** Where the Gateway object of its pool has a node listen. */
export const listenPortOf = (pools: readonly Pool[], node: string): number | undefined =>
  pools.flatMap(({ endpoints = [] }) => endpoints.filter((endpoint) => endpoint.node === node))[0]?.listenPort
