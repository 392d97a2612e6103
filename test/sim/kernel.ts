// The kernel of a gateway's node in memory: WireGuard's peers and the routes to pools, changed by the product's own plans.
// It outlives the gateway, and tells which peers and pools each change touched.

import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { planRouteSteps, type Nexthop, type Route, type RouteState, type RouteStep } from '../../lib/routes.ts'
import { RUNGS, type Rung } from '../../lib/status.ts'
import type { DevicePeer } from '../../lib/net/wireguard.ts'
import { changedRoutes, nexthopIds, planRoutes, samePoolRoutes, type PoolRoute } from '../../gateway/routes.ts'
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
  readonly #nexthops = new Map<number, Nexthop>()
  readonly #routes = new Map<string, Route>()

  takeWork(): KernelWork {
    const { work } = this
    this.work = newWork()
    return work
  }

  get routes(): RouteState {
    return { nexthops: [...this.#nexthops.values()], routes: [...this.#routes.values()] }
  }

  /** WireGuard as a gateway that starts now finds it. */
  openWireGuard(): WireGuard {
    const wanted = new Map<Rung, readonly WireGuardPeer[]>()
    return {
      implementation: 'kernel',
      setPeers: async (rung, peers) => {
        const before = wanted.get(rung)
        if (samePeers(before ?? [], peers)) return
        wanted.set(rung, peers)
        if (before === undefined) this.work.looks++
        const present = before ?? [...this.devices[rung].values()]
        for (const change of planPeers(present, peers, { last: new Map(), due: true })) this.#change(rung, change)
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
    let wanted: readonly PoolRoute[] | undefined
    let ids = nexthopIds([])
    const planned = (pools: readonly PoolRoute[], ids: ReadonlyMap<string, number>) =>
      planRoutes({ wanted: pools, ids, devices: INDEXES, ...SOURCES })
    return {
      apply: async (pools) => {
        if (wanted !== undefined && samePoolRoutes(wanted, pools)) return
        const [idsBefore, before] = [ids, wanted]
        ids = nexthopIds(pools.map(({ pool }) => pool))
        wanted = pools
        if (before === undefined) this.work.looks++
        const [gone, come] = changedRoutes(before ?? [], pools)
        const present = before === undefined ? this.routes : planned(gone, idsBefore)
        for (const step of planRouteSteps(present, planned(come, ids))) this.#step(step)
      },
      move: async (pool, rung, mtu) => {
        wanted = wanted?.map((route) => (route.pool === pool ? { ...route, rung, mtu } : route)) ?? []
        const { nexthops, routes } = planned(
          wanted.filter((route) => route.pool === pool),
          ids,
        )
        for (const nexthop of nexthops) this.#step({ kind: 'replace-nexthop', nexthop })
        for (const { destination } of routes) this.work.prefixes.add(destination)
      },
      observe: async (pools) => {
        const rungOf = new Map([...INDEXES].map(([rung, index]) => [index, rung]))
        const devices = new Map([...this.#nexthops.values()].map(({ id, device }) => [id, device]))
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
    switch (step.kind) {
      case 'replace-nexthop':
        return void this.#nexthops.set(step.nexthop.id, step.nexthop)
      case 'remove-nexthop':
        return void this.#nexthops.delete(step.nexthop.id)
      case 'replace-route':
        return void this.#routes.set(keyOf(step.route), step.route)
      case 'remove-route':
        return void this.#routes.delete(keyOf(step.route))
    }
  }
}

const keyOf = ({ family, destination, metric }: Route): string => `${family} ${destination} ${metric}`

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
