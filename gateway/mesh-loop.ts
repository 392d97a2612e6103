// The mesh as this gateway should have it, applied: from pools and announcements to WireGuard peers, relay sockets,
// routes and paths. Level-triggered: it may run at any time, and twice equals once.
//
// A standby has devices and peers like the active gateway, and no routes: its agent sends what goes to other pools to the
// active one. A tunnel is a node's; a pool's route takes that of its active gateway.

import type { SocketAddress } from '../lib/address.ts'
import { formatSocketAddress } from '../lib/address.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import type { Carrier } from '../lib/owned.ts'
import { RUNGS, type Rung } from '../lib/status.ts'
import type { Announcement } from './announcement.ts'
import type { PacketClient } from './packet-client.ts'
import type { Paths } from './path-loop.ts'
import { partingIps, planPeers, type Peer, type PeerPlan, type RoleView } from './peers.ts'
import type { Routes } from './routes-loop.ts'
import type { WireGuard } from './wireguard-loop.ts'

/**
 * `routed`: whether packets for other pools may come here: we are active, or were a moment ago. `kept`: we are not, and what
 * a predecessor left in the kernel stays as it is for the moment.
 */
export type MeshRoles = RoleView & { readonly routed: boolean; readonly kept?: boolean }

export type Mesh = {
  readonly trigger: () => void
  /** Resolves when a pass that began after this call is done. */
  readonly apply: () => Promise<void>
  /** We became active: resolves when packets for other pools find their way, before all else is as it should be. */
  readonly take: () => Promise<void>
  /** What carries a peer's traffic; undefined while it is cold, or not reached. */
  readonly rungOf: (node: string) => Rung | undefined
  /** What goes to a peer goes through fm-leave from now on, until we end. */
  readonly detour: (peer: Peer) => Promise<void>
  readonly plan: () => PeerPlan | undefined
  /** Since when a pool is waited for, Unix milliseconds; see PeerPlan. */
  readonly waitingSince: (pool: string) => number | undefined
  /** Where WireGuard had a peer's direct endpoint when its path became direct. */
  readonly endpointOf: (node: string) => string | undefined
  /** What a path decided; see PathEffects. */
  readonly setEndpoint: (rung: 'direct' | 'relay-udp', peer: Peer, to: SocketAddress) => Promise<void>
  readonly move: (peer: Peer, rung: Rung | 'cold', mtu: number | undefined) => void
}

/** WireGuard's own keepalive, on rungs that have carried a packet: it holds the session and the NAT's mapping. */
const KEEPALIVE_SECONDS = 25
/** Objects and announcements come in bursts; a new peer should not wait for more than the burst. */
const COALESCE_MS = 2
/** Where all sites come back at once, each announces several times, and every pass looks at all of them. */
const REST = 4

/** What is kept of a peer from one pass to the next. */
type Tunnel = {
  readonly wireguardKey: string
  /** What carries its traffic; undefined while it is cold or not reached yet: then fm-tcp takes the packets. */
  rung: Rung | undefined
  mtu: number | undefined
  /** Rungs that were validated: they keep their session alive from then on. */
  readonly alive: Set<Rung>
  /** Its route leads through fm-leave. */
  detoured: boolean
  /** `onConfigured` was called. */
  configured: boolean
  endpoint: string | undefined
}

export function runMesh(
  options: {
    readonly node: string
    readonly pools: () => readonly Pool[]
    readonly announcements: ReadonlyMap<string, Announcement>
    /** undefined while it is not decided what we are in our pool: the kernel stays as it is. */
    readonly roles: () => MeshRoles | undefined
    readonly wireguard: WireGuard
    /** The device of relay-udp, once there is one. */
    readonly wireguardUdp: () => WireGuard | undefined
    readonly routes: Routes
    readonly packets: Pick<PacketClient, 'add' | 'setAwake' | 'remove'>
    readonly paths: () => Paths
    /** A peer's keys are set on our devices: it may send. */
    readonly onConfigured: (peer: Peer) => void
    readonly log: Log
  },
  signal: AbortSignal,
): Mesh {
  const { node, wireguard, routes, packets, log } = options
  let plan: PeerPlan | undefined
  /** By node: a path stays when its node's pool gets another name. */
  const tunnels = new Map<string, Tunnel>()
  let waitingSince: ReadonlyMap<string, number> = new Map()
  /** Peers that routes lead to now. */
  let routedTo: ReadonlySet<string> = new Set()
  /** By pool: whom its route was last set to. */
  let led: ReadonlyMap<string, string> = new Map()
  /** What a predecessor left; it counts for the peers of the first pass. */
  let inherited: Inherited | undefined

  const tunnelOf = ({ node, pool, wireguardKey, standby }: Peer): Tunnel => {
    const known = tunnels.get(node)
    if (known?.wireguardKey === wireguardKey) return known
    const rung = standby ? undefined : inherited?.rungOf(pool, wireguardKey)
    const alive = rung === undefined ? [] : [rung, ...RUNGS.filter((kept) => inherited?.isAlive(kept, wireguardKey))]
    const tunnel = {
      wireguardKey,
      rung,
      mtu: undefined,
      alive: new Set(alive),
      detoured: false,
      configured: false,
      endpoint: undefined,
    }
    tunnels.set(node, tunnel)
    return tunnel
  }

  const run = async (): Promise<void> => {
    const pools = options.pools()
    const roles = options.roles()
    if (roles === undefined) return
    plan = planPeers(node, pools, options.announcements, roles, plan)
    if (plan === undefined) return
    const { peers, waiting } = plan
    waitingSince = new Map(waiting.map(({ pool }) => [pool, waitingSince.get(pool) ?? Date.now()]))
    const names = [...new Set([...peers, ...waiting].map(({ pool }) => pool))]
    inherited ??= await observeInherited(wireguard, routes, names)

    const loopback = new Map<string, string>()
    for (const peer of peers) loopback.set(peer.node, await packets.add(peer.node, peer.wireguardKey))
    const setPeers = (allowedIpsOn: (rung: Rung, peer: Peer) => readonly string[]) => {
      const peersOn = (rung: Rung) =>
        peers.map((peer) => ({
          publicKey: peer.wireguardKey,
          allowedIps: allowedIpsOn(rung, peer),
          keepaliveSeconds: keepalive(rung, tunnelOf(peer)),
          ...(rung === 'relay-tcp' && { endpoint: loopback.get(peer.node)! }),
        }))
      return Promise.all([
        wireguard.setPeers('direct', peersOn('direct')),
        wireguard.setPeers('relay-tcp', peersOn('relay-tcp')),
        options.wireguardUdp()?.setPeers('relay-udp', peersOn('relay-udp')),
      ])
    }
    const leading = peers.filter(({ standby }) => !standby)
    const carrierOf = (node: string) => tunnels.get(node)?.rung ?? 'relay-tcp'
    const partings = leading.flatMap((to) => {
      const node = led.get(to.pool) ?? to.node
      if (carrierOf(node) === carrierOf(to.node)) return []
      const from = peers.find((peer) => peer.node === node)
      return from === undefined ? [] : [{ from, to, rung: carrierOf(node) }]
    })
    await setPeers((rung, peer) => partingIps(peer, rung, partings))
    // The role may be another by now.
    await route(plan, options.roles() ?? roles)
    led = new Map(leading.map(({ pool, node }) => [pool, node]))
    if (partings.length > 0) await setPeers((_, { allowedIps }) => allowedIps)
    options.paths().setPeers(peers, (node) => tunnels.get(node)?.rung)
    inherited = NOTHING_INHERITED

    const present = new Set(peers.map(({ node }) => node))
    for (const node of [...tunnels.keys()].filter((node) => !present.has(node))) {
      packets.remove(node)
      tunnels.delete(node)
    }
    for (const peer of peers) {
      const tunnel = tunnelOf(peer)
      if (tunnel.configured) continue
      tunnel.configured = true
      if (tunnel.rung === 'direct') void noteEndpoint(peer)
      options.onConfigured(peer)
    }
  }
  const route = async ({ peers, waiting }: PeerPlan, { routed, kept }: MeshRoles): Promise<void> => {
    if (!routed && kept === true) return
    const leading = peers.filter(({ standby }) => !standby)
    routedTo = new Set(routed ? leading.map(({ node }) => node) : [])
    const wanted = [
      ...leading.map((peer) => {
        const { rung = 'relay-tcp', mtu, detoured } = tunnelOf(peer)
        const carrier: Carrier = detoured ? 'leave' : rung
        return { pool: peer.pool, cidrs: [...peer.cidrs, `${peer.ula}/128`], rung: carrier, mtu }
      }),
      ...waiting.map(({ pool, cidrs }) => ({ pool, cidrs, rung: undefined })),
    ]
    await routes.apply(routed ? wanted : [])
  }
  const reconciler = createUpkeep(
    {
      pass: run,
      onError: (err) => log.error({ err }, 'the mesh could not be applied; trying again'),
      coalesceMs: COALESCE_MS,
      rest: REST,
    },
    signal,
  )

  return {
    trigger: reconciler.trigger,
    apply: reconciler.now,
    take: async () => {
      const roles = options.roles()
      if (plan === undefined || roles === undefined) return reconciler.now()
      // Our devices know the peers from the time that we stood by; theirs follow as they hear of us.
      await route(plan, roles)
      reconciler.trigger()
    },
    rungOf: (node) => tunnels.get(node)?.rung,
    detour: async ({ node, pool }) => {
      const tunnel = tunnels.get(node)
      if (tunnel === undefined) return
      tunnel.detoured = true
      if (routedTo.has(node)) await routes.move(pool, 'leave', tunnel.mtu)
    },
    plan: () => plan,
    waitingSince: (pool) => waitingSince.get(pool),
    endpointOf: (node) => tunnels.get(node)?.endpoint,
    setEndpoint: async (rung, peer, to) => {
      const device = rung === 'direct' ? wireguard : options.wireguardUdp()
      const keepaliveSeconds = keepalive(rung, tunnels.get(peer.node))
      await device?.setEndpoint(rung, peer.wireguardKey, formatSocketAddress(to), keepaliveSeconds)
    },
    move: (peer, to, mtu) => {
      const tunnel = tunnels.get(peer.node)
      if (tunnel !== undefined) {
        tunnel.rung = to === 'cold' ? undefined : to
        tunnel.mtu = mtu
        if (to === 'cold') tunnel.alive.clear()
        else tunnel.alive.add(to)
      }
      packets.setAwake(peer.node, to !== 'cold')
      const rung = to === 'cold' ? 'relay-tcp' : to
      if (routedTo.has(peer.node) && tunnel?.detoured !== true)
        routes.move(peer.pool, rung, mtu).catch((err: unknown) => {
          log.error({ err, pool: peer.pool, path: rung }, 'the route of a pool could not be moved')
          reconciler.trigger()
        })
      reconciler.trigger()
      if (to === 'direct') void noteEndpoint(peer)
    },
  }

  /** The side that did not choose learns from WireGuard which address the peer's packets come from. */
  async function noteEndpoint({ node, wireguardKey }: Peer): Promise<void> {
    try {
      const seen = (await wireguard.observe('direct')).find(({ publicKey }) => publicKey === wireguardKey)
      const tunnel = tunnels.get(node)
      if (seen?.endpoint !== undefined && tunnel !== undefined) tunnel.endpoint = seen.endpoint
    } catch (err) {
      log.debug({ err, peer: node }, 'WireGuard did not say where a peer is')
    }
  }
}

const keepalive = (rung: Rung, tunnel: Tunnel | undefined): number =>
  tunnel?.alive.has(rung) === true ? KEEPALIVE_SECONDS : 0

/** What the kernel has of a predecessor's paths. */
type Inherited = {
  /** What carries a pool's traffic. */
  readonly rungOf: (pool: string, wireguardKey: string) => Rung | undefined
  /** Whether a device keeps the session with a peer alive. */
  readonly isAlive: (rung: Rung, wireguardKey: string) => boolean
}
const NOTHING_INHERITED: Inherited = { rungOf: () => undefined, isAlive: () => false }

async function observeInherited(wireguard: WireGuard, routes: Routes, pools: readonly string[]): Promise<Inherited> {
  const alive = new Set<string>()
  for (const rung of ['direct', 'relay-tcp'] as const)
    for (const { publicKey, keepaliveSeconds } of await wireguard.observe(rung))
      if (keepaliveSeconds > 0) alive.add(`${rung} ${publicKey}`)
  const carriers = await routes.observe(pools)
  const isAlive = (rung: Rung, wireguardKey: string) => alive.has(`${rung} ${wireguardKey}`)
  return {
    rungOf: (pool, wireguardKey) => {
      const carrier = carriers.get(pool)
      // It handed over before it ended, inside its best rung.
      if (carrier === 'leave') return isAlive('direct', wireguardKey) ? 'direct' : undefined
      // Whoever was over the relay's TCP is woken by the next packet, if there is one.
      return carrier === 'relay-tcp' ? undefined : carrier
    },
    isAlive,
  }
}
