// The mesh as this gateway should have it, applied: from pools and announcements to WireGuard peers, relay sockets,
// routes and paths. Level-triggered: it may run at any time, and twice equals once.

import type { SocketAddress } from '../lib/address.ts'
import { formatSocketAddress } from '../lib/address.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { RUNGS, type Rung } from '../lib/status.ts'
import { ulaOf } from './addresses.ts'
import type { Announcement } from './announcement.ts'
import type { PacketClient } from './packet-client.ts'
import type { Paths } from './path-loop.ts'
import { planPeers, type Peer, type PeerPlan } from './peers.ts'
import type { Routes } from './routes-loop.ts'
import type { WireGuard } from './wireguard-loop.ts'

export type Mesh = {
  readonly trigger: () => void
  /** Resolves when a pass that began after this call is done. */
  readonly apply: () => Promise<void>
  readonly plan: () => PeerPlan | undefined
  /** Since when a pool is wanted whose gateway has not announced itself, Unix milliseconds. */
  readonly waitingSince: ReadonlyMap<string, number>
  /** Where WireGuard had each peer's direct endpoint when its path became direct, by node. */
  readonly endpoints: ReadonlyMap<string, string>
  /** What a path decided; see PathEffects. */
  readonly setEndpoint: (rung: 'direct' | 'relay-udp', peer: Peer, to: SocketAddress) => Promise<void>
  readonly move: (peer: Peer, rung: Rung | 'cold', mtu: number | undefined) => void
}

/** WireGuard's own keepalive, on rungs that have carried a packet: it holds the session and the NAT's mapping. */
const KEEPALIVE_SECONDS = 25
/** Objects and announcements come in bursts; a new peer should not wait for more than the burst. */
const COALESCE_MS = 2
const FIRST_RUNGS: readonly Rung[] = ['direct', 'relay-tcp']

export async function runMesh(
  options: {
    readonly node: string
    readonly pools: () => readonly Pool[]
    readonly announcements: ReadonlyMap<string, Announcement>
    readonly wireguard: WireGuard
    /** The device of relay-udp, once there is one. */
    readonly wireguardUdp: () => WireGuard | undefined
    readonly routes: Routes
    readonly packets: PacketClient
    readonly paths: () => Paths
    /** A peer's keys are set on our devices: it may send. */
    readonly onConfigured: (peer: Peer) => void
    readonly log: Log
  },
  signal: AbortSignal,
): Promise<Mesh> {
  const { node, wireguard, routes, packets, log } = options
  let plan: PeerPlan | undefined
  const endpoints = new Map<string, string>()
  const configured = new Map<string, string>()
  const waitingSince = new Map<string, number>()
  /** Rungs that were validated to a peer's key; they keep their session alive from then on. */
  const alive = new Set<string>()
  for (const rung of FIRST_RUNGS)
    for (const peer of await wireguard.observe(rung))
      if (peer.keepaliveSeconds > 0) alive.add(`${rung} ${peer.publicKey}`)
  const rest = (key: string): void => {
    for (const rung of RUNGS) alive.delete(`${rung} ${key}`)
  }
  const keepalive = (rung: Rung, key: string): number => (alive.has(`${rung} ${key}`) ? KEEPALIVE_SECONDS : 0)
  /** What carries each pool's traffic. Of a pool that is missing, cold or not reached yet, fm-tcp takes the packets. */
  let rungs: Map<string, Rung> | undefined
  const mtus = new Map<string, number>()

  const run = async (): Promise<void> => {
    plan = planPeers(node, options.pools(), options.announcements)
    if (plan === undefined) return
    const { peers, waiting } = plan
    for (const { pool } of waiting) if (!waitingSince.has(pool)) waitingSince.set(pool, Date.now())
    for (const { pool } of peers) waitingSince.delete(pool)
    const names = [...peers, ...waiting].map(({ pool }) => pool)
    // Whoever was over the relay as our predecessor ended is woken by the next packet, if there is one.
    rungs ??= new Map([...(await routes.observe(names))].filter(([, rung]) => rung !== 'relay-tcp'))
    // A path is a node's: it stays when the node's pool gets another name.
    for (const { pool, node } of peers) {
      const rung = options.paths().rungOf(node)
      if (rung !== undefined) rungs.set(pool, rung)
    }

    const endpoints = await Promise.all(peers.map(async (peer) => packets.add(peer.node, peer.wireguardKey)))
    for (const { pool, wireguardKey } of peers)
      if (rungs.has(pool)) alive.add(`${rungs.get(pool)} ${wireguardKey}`)
      else rest(wireguardKey)
    const peersOn = (rung: Rung) =>
      peers.map(({ wireguardKey: publicKey, allowedIps }) => ({
        publicKey,
        allowedIps,
        keepaliveSeconds: keepalive(rung, publicKey),
      }))
    await Promise.all([
      wireguard.setPeers('direct', peersOn('direct')),
      wireguard.setPeers(
        'relay-tcp',
        peersOn('relay-tcp').map((peer, i) => ({ ...peer, endpoint: endpoints[i]! })),
      ),
      options.wireguardUdp()?.setPeers('relay-udp', peersOn('relay-udp')),
    ])
    await routes.apply([
      ...peers.map(({ pool, cidrs, node }) => ({
        pool,
        cidrs: [...cidrs, `${ulaOf(node)}/128`],
        rung: rungs!.get(pool) ?? 'relay-tcp',
        mtu: mtus.get(pool),
      })),
      ...waiting.map(({ pool, cidrs }) => ({ pool, cidrs, rung: rungs!.get(pool) })),
    ])
    options.paths().setPeers(peers, rungs)

    for (const [node] of configured) {
      if (peers.some((peer) => peer.node === node)) continue
      packets.remove(node)
      configured.delete(node)
    }
    for (const peer of peers) {
      if (configured.get(peer.node) === peer.wireguardKey) continue
      configured.set(peer.node, peer.wireguardKey)
      if (rungs.get(peer.pool) === 'direct') void noteEndpoint(peer)
      options.onConfigured(peer)
    }
  }
  const reconciler = createUpkeep(
    {
      pass: run,
      onError: (err) => log.error({ err }, 'the mesh could not be applied; trying again'),
      coalesceMs: COALESCE_MS,
    },
    signal,
  )

  return {
    trigger: reconciler.trigger,
    apply: reconciler.now,
    plan: () => plan,
    endpoints,
    waitingSince,
    setEndpoint: async (rung, { wireguardKey }, to) => {
      const device = rung === 'direct' ? wireguard : options.wireguardUdp()
      await device?.setEndpoint(rung, wireguardKey, formatSocketAddress(to), keepalive(rung, wireguardKey))
    },
    move: (peer, to, mtu) => {
      const rung = to === 'cold' ? 'relay-tcp' : to
      if (to === 'cold') {
        rungs?.delete(peer.pool)
        rest(peer.wireguardKey)
      } else {
        rungs?.set(peer.pool, to)
        alive.add(`${to} ${peer.wireguardKey}`)
      }
      if (mtu === undefined) mtus.delete(peer.pool)
      else mtus.set(peer.pool, mtu)
      packets.setAwake(peer.node, to !== 'cold')
      routes.move(peer.pool, rung, mtu).catch((err: unknown) => {
        log.error({ err, pool: peer.pool, path: rung }, 'the route of a pool could not be moved')
        reconciler.trigger()
      })
      reconciler.trigger()
      if (rung === 'direct') void noteEndpoint(peer)
    },
  }

  /** The side that did not choose learns from WireGuard which address the peer's packets come from. */
  async function noteEndpoint({ node, wireguardKey }: Peer): Promise<void> {
    try {
      const seen = (await wireguard.observe('direct')).find(({ publicKey }) => publicKey === wireguardKey)
      if (seen?.endpoint !== undefined) endpoints.set(node, seen.endpoint)
    } catch (err) {
      log.debug({ err, peer: node }, 'WireGuard did not say where a peer is')
    }
  }
}
