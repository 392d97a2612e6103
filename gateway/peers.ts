// Whom this gateway has tunnels to: the active gateway of every other pool, if it has announced itself. Pure. What a
// pool is and which prefixes it has comes from the Kubernetes objects, never from what a gateway claims.

import type { Pool } from '../lib/k8s/pools.ts'
import { linkLocalOf, ulaOf } from './addresses.ts'
import type { Announcement } from './announcement.ts'

export type Peer = {
  readonly pool: string
  readonly node: string
  readonly wireguardKey: string
  /** Prefixes to route to it. */
  readonly cidrs: readonly string[]
  /** Sources accepted from it, the same on every rung: its prefixes and its gateway's own addresses. */
  readonly allowedIps: readonly string[]
  readonly announcement: Announcement
}

export type PeerPlan = {
  readonly pool: string
  /** False where another node of the pool is the active gateway: then there are no peers. */
  readonly active: boolean
  readonly peers: readonly Peer[]
  /** Pools whose gateway has not announced itself: no path yet. */
  readonly waiting: readonly { readonly pool: string; readonly node: string; readonly cidrs: readonly string[] }[]
}

/** @returns undefined while the cluster does not know our node. */
export function planPeers(
  node: string,
  pools: readonly Pool[],
  announcements: ReadonlyMap<string, Announcement>,
): PeerPlan | undefined {
  const own = pools.find((pool) => pool.nodes.some(({ name }) => name === node))
  if (own === undefined) return undefined
  const others = pools
    .filter((pool) => pool !== own)
    .map((pool) => ({ pool: pool.name, node: pool.gateways[0]!, cidrs: cidrsOf(pool) }))
  const active = own.gateways[0] === node
  if (!active) return { pool: own.name, active, peers: [], waiting: [] }
  return {
    pool: own.name,
    active,
    peers: others.flatMap((other) => {
      const announcement = announcements.get(other.node)
      if (announcement === undefined) return []
      const allowedIps = [...other.cidrs, `${linkLocalOf(other.node)}/128`, `${ulaOf(other.node)}/128`]
      return [{ ...other, wireguardKey: announcement.wireguardKey, allowedIps, announcement }]
    }),
    waiting: others.filter((other) => !announcements.has(other.node)),
  }
}

export const cidrsOf = (pool: Pool): readonly string[] => pool.nodes.flatMap(({ podCidrs }) => podCidrs).toSorted()
