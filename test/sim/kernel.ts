// The kernel of a gateway's node in memory: WireGuard's peers and the routes to pools, changed by the product's own plans.
// It outlives the gateway, and tells which peers and pools each change touched.

import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { planRouteSteps, type RouteState, type RouteStep } from '../../lib/routes.ts'
import { RUNGS, type Rung } from '../../lib/status.ts'
import type { DevicePeer } from '../../lib/net/wireguard.ts'
import { nexthopIds, planRoutes, samePoolRoutes, type PoolRoute } from '../../gateway/routes.ts'
import type { Routes } from '../../gateway/routes-loop.ts'
import type { WireGuard } from '../../gateway/wireguard-loop.ts'
import { planPeers, samePeers, type PeerChange, type WireGuardPeer } from '../../gateway/wireguard.ts'

const INDEXES: ReadonlyMap<Rung, number> = new Map(RUNGS.map((rung, i) => [rung, 10 + i]))
const SOURCES = { source4: '10.0.0.1', source6: 'fd00::1' }

export type KernelWork = {
  /** WireGuard keys of peers that were set or removed. */
  readonly keys: Set<string>
  /** Prefixes whose routes were set or removed. */
  readonly prefixes: Set<string>
  /** How often a device's peers, or all routes, were looked at and compared. */
  looks: number
}

export class Kernel {
  work: KernelWork = newWork()
  readonly devices: Readonly<Record<Rung, Map<string, DevicePeer>>> = {
    direct: new Map(),
    'relay-udp': new Map(),
    'relay-tcp': new Map(),
  }
  #routes: RouteState = { nexthops: [], routes: [] }

  takeWork(): KernelWork {
    const { work } = this
    this.work = newWork()
    return work
  }

  get routes(): RouteState {
    return this.#routes
  }

  /** WireGuard as a gateway that starts now finds it. */
  openWireGuard(): WireGuard {
    const wanted = new Map<Rung, readonly WireGuardPeer[]>()
    return {
      implementation: 'kernel',
      setPeers: async (rung, peers) => {
        if (samePeers(wanted.get(rung) ?? [], peers)) return
        wanted.set(rung, peers)
        this.work.looks++
        const observed = [...this.devices[rung].values()]
        for (const change of planPeers(observed, peers, { last: new Map(), due: true })) this.#change(rung, change)
      },
      setEndpoint: async (rung, publicKey, endpoint, keepaliveSeconds) => {
        wanted.set(
          rung,
          wanted.get(rung)!.map((peer) => (peer.publicKey === publicKey ? { ...peer, keepaliveSeconds } : peer)),
        )
        this.#change(rung, { kind: 'set', publicKey, endpoint, keepaliveSeconds })
      },
      observe: async (rung) => [...this.devices[rung].values()],
      setPort: async () => {},
    }
  }

  openRoutes(): Routes {
    let wanted: readonly PoolRoute[] = []
    const planned = (pools: readonly PoolRoute[]) =>
      planRoutes({ wanted: pools, ids: nexthopIds(wanted.map(({ pool }) => pool)), devices: INDEXES, ...SOURCES })
    return {
      apply: async (pools) => {
        if (samePoolRoutes(wanted, pools)) return
        wanted = pools
        this.work.looks++
        const next = planned(pools)
        for (const step of planRouteSteps(this.#routes, next)) this.#step(step)
        this.#routes = next
      },
      move: async (pool, rung, mtu) => {
        wanted = wanted.map((route) => (route.pool === pool ? { ...route, rung, mtu } : route))
        const moved = planned(wanted.filter((route) => route.pool === pool))
        const ids = new Map(moved.nexthops.map((nexthop) => [nexthop.id, nexthop]))
        this.#routes = {
          ...this.#routes,
          nexthops: this.#routes.nexthops.map((nexthop) => ids.get(nexthop.id) ?? nexthop),
        }
        for (const { destination } of moved.routes) this.work.prefixes.add(destination)
      },
      observe: async (pools) => {
        const rungOf = new Map([...INDEXES].map(([rung, index]) => [index, rung]))
        const devices = new Map(this.#routes.nexthops.map(({ id, device }) => [id, device]))
        return new Map(
          [...nexthopIds(pools)].flatMap(([pool, id]) => {
            const rung = rungOf.get(devices.get(id) ?? devices.get(id + 1) ?? 0)
            return rung === undefined ? [] : [[pool, rung] as const]
          }),
        )
      },
    }
  }

  /** A packet that WireGuard could decrypt came from there. */
  roam(rung: Rung, publicKey: string, from: SocketAddress): void {
    const peer = this.devices[rung].get(publicKey)
    if (peer !== undefined) this.devices[rung].set(publicKey, { ...peer, endpoint: `${from.address}:${from.port}` })
  }

  endpointOf(rung: Rung, publicKey: string): SocketAddress | undefined {
    const [address, port] = this.devices[rung].get(publicKey)?.endpoint?.split(':') ?? []
    return address === undefined ? undefined : socketAddress(address, Number(port))
  }

  #change(rung: Rung, change: PeerChange): void {
    const device = this.devices[rung]
    this.work.keys.add(change.publicKey)
    if (change.kind === 'remove') device.delete(change.publicKey)
    else device.set(change.publicKey, { ...(device.get(change.publicKey) ?? NEW_PEER), ...change })
  }

  #step(step: RouteStep): void {
    if ('route' in step) this.work.prefixes.add(step.route.destination)
  }
}

const newWork = (): KernelWork => ({ keys: new Set(), prefixes: new Set(), looks: 0 })

const NEW_PEER: DevicePeer = {
  publicKey: '',
  endpoint: undefined,
  allowedIps: [],
  latestHandshake: undefined,
  rx: 0,
  tx: 0,
  keepaliveSeconds: 0,
}
