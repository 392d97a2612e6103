// The routes that a gateway wants to other pools. Per pool and family one nexthop object, which names the device of the
// rung in use; all prefixes of the pool share it, so that one message switches all of them. Below each route lies an
// `unreachable` one, so that pod traffic never leaks to the Internet while a pool has no path.

import { createHash } from 'node:crypto'
import { prefixOf, type Nexthop, type Route, type RouteState } from '../lib/routes.ts'
import { DEVICE_MTU, NEXTHOP_BASE, NEXTHOP_RANGE, PROTOCOL_GATEWAY, ROUTE_TABLE, type Carrier } from '../lib/owned.ts'
import { FAMILIES, type Family } from '../lib/cidr.ts'

export type PoolRoute = {
  readonly pool: string
  readonly cidrs: readonly string[]
  /** undefined: no path yet, so what is sent there is answered with an ICMP error. */
  readonly rung: Carrier | undefined
  /** What the path carries, bytes, where that is less than the devices' MTU. */
  readonly mtu?: number | undefined
}

/** Metrics differ from the agent's, so that on a node that changes its role neither daemon replaces the other's route. */
export const METRIC_GATEWAY = 100
const METRIC_GATEWAY_UNREACHABLE = 10_000

export type RoutesInput = {
  readonly wanted: readonly PoolRoute[]
  readonly ids: ReadonlyMap<string, number>
  /** Interface indexes of the devices that exist and are up. */
  readonly devices: ReadonlyMap<Carrier, number>
  readonly source4?: string | undefined
  readonly source6?: string | undefined
}

/** A pool whose device is missing is unreachable until the device is back. */
export function planRoutes({ wanted, ids, devices, source4, source6 }: RoutesInput): RouteState {
  const nexthops: Nexthop[] = []
  const routes: Route[] = []
  for (const { pool, cidrs, rung, mtu = DEVICE_MTU } of wanted) {
    const device = rung && devices.get(rung)
    for (const family of FAMILIES) {
      const prefixes = cidrs.map(prefixOf).filter((prefix) => prefix.family === family)
      if (prefixes.length === 0) continue
      const nexthop = nexthopId(ids, pool, family)
      const source = family === 4 ? source4 : source6
      if (device !== undefined) nexthops.push({ id: nexthop, family, device, protocol: PROTOCOL_GATEWAY })
      for (const { text: destination } of prefixes) {
        const common = { family, table: ROUTE_TABLE, protocol: PROTOCOL_GATEWAY, destination }
        routes.push({ ...common, kind: 'unreachable', metric: METRIC_GATEWAY_UNREACHABLE })
        if (device === undefined) continue
        routes.push({
          ...common,
          kind: 'unicast',
          metric: METRIC_GATEWAY,
          nexthop,
          mtu,
          ...(source !== undefined && { source }),
        })
      }
    }
  }
  return { nexthops, routes }
}

/** Whether a kernel that has the one has the other. */
export const samePoolRoutes = (a: readonly PoolRoute[], b: readonly PoolRoute[]): boolean =>
  a.length === b.length && a.every((route, i) => samePoolRoute(route, b[i]!))

/** @returns those of either list that the other has not, or has otherwise. */
export function changedRoutes(
  before: readonly PoolRoute[],
  after: readonly PoolRoute[],
): readonly [gone: readonly PoolRoute[], come: readonly PoolRoute[]] {
  const without = (some: readonly PoolRoute[], others: readonly PoolRoute[]) => {
    const byPool = new Map(others.map((route) => [route.pool, route]))
    return some.filter((route) => {
      const other = byPool.get(route.pool)
      return other === undefined || !samePoolRoute(route, other)
    })
  }
  return [without(before, after), without(after, before)]
}

const samePoolRoute = (a: PoolRoute, b: PoolRoute): boolean =>
  a.pool === b.pool &&
  a.rung === b.rung &&
  a.mtu === b.mtu &&
  a.cidrs.length === b.cidrs.length &&
  a.cidrs.every((cidr, i) => cidr === b.cidrs[i])

/** Two ids per pool, IPv4's even, IPv6's odd. */
const SLOTS = NEXTHOP_RANGE / 2

/**
 * The first nexthop id of each pool: a hash of its name, so that a restarted gateway finds its own again. Of two names
 * with one hash the later in the alphabet moves on to the next free slot; the same names give the same ids.
 */
export function nexthopIds(pools: Iterable<string>): ReadonlyMap<string, number> {
  const taken = new Set<number>()
  const ids = new Map<string, number>()
  for (const pool of [...new Set(pools)].toSorted()) {
    let slot = createHash('sha256').update(pool).digest().readUInt32BE(0) % SLOTS
    while (taken.has(slot)) slot = (slot + 1) % SLOTS
    taken.add(slot)
    ids.set(pool, NEXTHOP_BASE + slot * 2)
  }
  return ids
}

function nexthopId(ids: ReadonlyMap<string, number>, pool: string, family: Family): number {
  const id = ids.get(pool)
  if (id === undefined) throw new Error(`pool ${pool} has no nexthop id: it is not among the pools wanted`)
  return family === 4 ? id : id + 1
}
