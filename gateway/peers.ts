// Whom this gateway has tunnels to: the active gateway of every other pool, if it has announced itself, and where we are
// active ourselves its standbys too, so that either side may change its gateway at any time. Pure. What a pool is, which
// prefixes it has and who may be its gateway comes from the Kubernetes objects, never from what a gateway claims.
//
//   we        the other pool's active           its standbys
//   active    peer with all of its prefixes     peer with its own two addresses: kept warm while there is traffic
//   standby   peer with all of its prefixes     -        (nothing is routed there before we are active)

import { isDeepStrictEqual } from 'node:util'
import { socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import type { Rung } from '../lib/status.ts'
import { linkLocalOf, ulaOf } from './addresses.ts'
import type { Announcement, Candidate } from './announcement.ts'
import { insideOf, peerCandidates, type IsInside } from './candidates.ts'
import type { Roles } from './roles.ts'

export type Peer = {
  readonly pool: string
  readonly node: string
  readonly wireguardKey: string
  /** Of its node in the tunnels (addresses.ts), both. */
  readonly linkLocal: string
  readonly ula: string
  /** Prefixes to route to it. */
  readonly cidrs: readonly string[]
  /** Sources accepted from it, the same on every rung: its prefixes and its gateway's own addresses. */
  readonly allowedIps: readonly string[]
  /** It is not the active gateway of its pool: nothing is routed to it. */
  readonly standby: boolean
  readonly announcement: Announcement
  /** Where it may be reached: what it announced, and what its pool's Gateway object says. */
  readonly candidates: readonly Candidate[]
}

export type PeerPlan = {
  readonly pool: string
  /** Whether this gateway carries its pool's traffic. */
  readonly active: boolean
  readonly peers: readonly Peer[]
  /** Pools whose gateway has not announced itself: no path yet. */
  readonly waiting: readonly Waiting[]
  /** What it was made from. */
  readonly pools: readonly Pool[]
  readonly isInside: IsInside
}

export type Waiting = {
  readonly pool: string
  readonly node: string
  readonly cidrs: readonly string[]
  /** Whose WireGuard key it announces. A device has a key once: it stays with the gateway that had it first. */
  readonly keyOf?: string
}

export type RoleView = {
  /** Whether we are our pool's active gateway. */
  readonly active: boolean
  readonly activeOf: Roles['activeOf']
  readonly hasJustLeft?: Roles['hasJustLeft']
}

/** Of each other pool; the first in the order of its objects. */
const MAX_STANDBYS = 2

/**
 * @param announcements by node, in the order in which each came to its key.
 * @param previous the plan before, if there is one: peers of which nothing changed are the same values in the new one.
 * @returns undefined while the cluster does not know our node.
 */
export function planPeers(
  node: string,
  pools: readonly Pool[],
  announcements: ReadonlyMap<string, Announcement>,
  { active, activeOf, hasJustLeft }: RoleView,
  previous?: PeerPlan,
): PeerPlan | undefined {
  const own = pools.find((pool) => pool.nodes.some(({ name }) => name === node))
  if (own === undefined) return undefined
  const isInside = previous?.pools === pools ? previous.isInside : insideOf(pools.flatMap(cidrsOf))
  if (!own.gateways.includes(node)) return { pool: own.name, active: false, peers: [], waiting: [], pools, isInside }
  const before = new Map(previous?.peers.map((peer) => [peer.node, peer]))
  const poolsBefore = new Set(previous?.pools)
  const others = pools.flatMap((pool) => {
    const [first] = pool.gateways
    if (pool === own || first === undefined) return []
    const chosen = activeOf(pool, (name) => announcements.has(name)) ?? first
    const standbys = pool.gateways
      .filter((name) => name !== chosen && announcements.has(name))
      .toSorted((a, b) => Number(hasJustLeft?.(b) === true) - Number(hasJustLeft?.(a) === true))
    return [{ pool, chosen, standbys: active ? standbys.slice(0, MAX_STANDBYS) : [] }]
  })
  const owners = keyOwners(announcements, new Set(others.flatMap(({ chosen, standbys }) => [chosen, ...standbys])))
  const ownerOf = (node: string) => owners.get(announcements.get(node)?.wireguardKey ?? '')
  const peerOf = (pool: Pool, node: string, standby: boolean): readonly Peer[] => {
    const announcement = announcements.get(node)
    if (announcement === undefined || ownerOf(node) !== node) return []
    const { wireguardKey, candidates: announced } = announcement
    const known = before.get(node)
    const same = known?.announcement === announcement && known.standby === standby && poolsBefore.has(pool)
    if (same && isInside === previous?.isInside) return [known]
    const candidates = peerCandidates(announced, fixedAddresses(pool, announcement), isInside)
    if (same && isDeepStrictEqual(candidates, known.candidates)) return [known]
    const cidrs = standby ? [] : cidrsOf(pool)
    const [linkLocal, ula] = known === undefined ? [linkLocalOf(node), ulaOf(node)] : [known.linkLocal, known.ula]
    const allowedIps = [...cidrs, `${linkLocal}/128`, `${ula}/128`]
    return [
      { pool: pool.name, node, cidrs, wireguardKey, linkLocal, ula, allowedIps, standby, announcement, candidates },
    ]
  }
  return {
    pool: own.name,
    active,
    pools,
    isInside,
    // Who gets prefixes comes before those who lose them: for the kernel they move, and are at no time on neither.
    peers: [
      ...others.flatMap(({ pool, chosen }) => peerOf(pool, chosen, false)),
      ...others.flatMap(({ pool, standbys }) => standbys.flatMap((name) => peerOf(pool, name, true))),
    ],
    waiting: others.flatMap(({ pool, chosen: node }) => {
      const owner = ownerOf(node)
      if (owner === node) return []
      return [{ pool: pool.name, node, cidrs: cidrsOf(pool), ...(owner !== undefined && { keyOf: owner }) }]
    }),
  }
}

/** A pool's traffic moves from one gateway to another, which is on another rung. */
export type Parting = {
  readonly from: Peer
  readonly to: Peer
  /** Which the route is about to leave. */
  readonly rung: Rung
}

/** @returns what a peer is to have on a device while the pool's route still leads there: the prefixes have not moved. */
export function partingIps(peer: Peer, rung: Rung, partings: readonly Parting[]): readonly string[] {
  const parting = partings.find(({ from, to }) => peer.node === from.node || peer.node === to.node)
  if (parting?.rung !== rung) return peer.allowedIps
  if (peer.node === parting.from.node) return [...parting.to.cidrs, ...peer.allowedIps]
  return peer.allowedIps.filter((prefix) => !peer.cidrs.includes(prefix))
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

const cidrsOf = (pool: Pool): readonly string[] => pool.nodes.flatMap(({ podCidrs }) => podCidrs).toSorted()

/** Where the Gateway object of its pool has a node listen. */
export const listenPortOf = (pools: readonly Pool[], node: string): number | undefined =>
  pools.flatMap(({ endpoints = [] }) => endpoints.filter((endpoint) => endpoint.node === node))[0]?.listenPort
