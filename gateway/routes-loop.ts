// The routes of a gateway to other pools, kept in the kernel as wanted. Nothing is removed at the end: packets go on while
// the gateway restarts, which then finds by `observe` what it left.

import { normalise } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { NetlinkError, type Link } from '../lib/net/netlink.ts'
import { isMeshNexthop, openRouteTable, RoutesError } from '../lib/net/route-table.ts'
import { ensureForwarding, ensureMtuProbing } from '../lib/net/sysctl.ts'
import { CARRIERS, PROTOCOL_AGENT, PROTOCOL_GATEWAY, ROUTE_TABLE, type Carrier, type Numbers } from '../lib/owned.ts'
import type { Route } from '../lib/routes.ts'
import { METRIC_GATEWAY, changedRoutes, nexthopIds, planRoutes, samePoolRoutes, type PoolRoute } from './routes.ts'

export type Routes = {
  /** Level-triggered: nexthops, routes and the rule become exactly what is wanted (ours only, by table and protocol). */
  apply(wanted: readonly PoolRoute[]): Promise<void>
  /** Moves one pool's traffic to another rung: one message per family, and no route touched unless the MTU is another. */
  move(pool: string, rung: Carrier, mtu?: number): Promise<void>
  /** Where each pool's nexthop points to in the kernel now, so that a restarted gateway keeps what is there. */
  observe(pools: readonly string[]): Promise<ReadonlyMap<string, Carrier>>
}
export type RoutesOfNode = Routes & {
  /** Whether the node's agent sends what goes to other pools elsewhere: to the gateway that it heard is active. */
  isOverruled(): Promise<boolean>
  /** Takes away what an agent left that does not run any more: to be called by the active gateway alone. */
  overrule(): Promise<void>
}

export type RoutesOptions = {
  /** Addresses on this node that the peers' AllowedIPs cover: what the node itself sends into the mesh comes from there. */
  readonly source4?: string | undefined
  readonly source6?: string | undefined
  readonly numbers?: Numbers | undefined
  readonly log: Log
}

const DEVICES = Object.entries(CARRIERS) as readonly (readonly [Carrier, string])[]

export async function openRoutes(options: RoutesOptions, signal: AbortSignal): Promise<RoutesOfNode> {
  const { log } = options
  const [source4, source6] = [options.source4, options.source6].map((address) => address && normalise(address))
  let wanted: readonly PoolRoute[] | undefined
  /** What the kernel has for sure: the table's own upkeep sees to it that it stays so. */
  let applied: readonly PoolRoute[] | undefined
  let ids: ReadonlyMap<string, number> = new Map()
  let devices: ReadonlyMap<Carrier, number> = new Map()

  const table = openRouteTable(
    {
      protocol: PROTOCOL_GATEWAY,
      numbers: options.numbers,
      plan(links) {
        devices = devicesUp(links)
        return wanted && planRoutes({ wanted, ids, devices, source4, source6 })
      },
      concerns: (event) =>
        event.kind === 'link' ? changes(devices, event.link, event.removed) : isSource(event.address.address),
      log,
    },
    signal,
  )
  /** Of the pools that changed, however many there are. @returns false where the kernel must be looked at. */
  const change = async (
    before: readonly PoolRoute[],
    idsBefore: ReadonlyMap<string, number>,
    after: readonly PoolRoute[],
  ): Promise<boolean> => {
    const [gone, come] = changedRoutes(before, after)
    const moved = after.some(({ pool }) => idsBefore.has(pool) && idsBefore.get(pool) !== ids.get(pool))
    if (moved || come.some(({ rung }) => rung !== undefined && !devices.has(rung))) return false
    const planned = (wanted: readonly PoolRoute[], ids: ReadonlyMap<string, number>) =>
      planRoutes({ wanted, ids, devices, source4, source6 })
    return table.change(planned(gone, idsBefore), planned(come, ids))
  }
  const isSource = (address: string) => address === source4 || address === source6
  await ensureForwarding(table.netlink, log)
  await ensureMtuProbing(log)

  return {
    async apply(pools) {
      const known = applied === wanted ? applied : undefined
      if (known !== undefined && samePoolRoutes(known, pools)) return
      const idsBefore = ids
      wanted = pools
      ids = nexthopIds(pools.map(({ pool }) => pool))
      if (known === undefined || !(await change(known, idsBefore, pools))) await table.apply()
      applied = pools
    },

    async move(pool, rung, mtu) {
      const current = wanted?.find((candidate) => candidate.pool === pool)
      if (wanted === undefined || current === undefined)
        throw new RoutesError(`no routes to pool ${pool}: give them to apply first`)
      if (!devices.has(rung)) devices = devicesUp(await table.netlink.links())
      if (!devices.has(rung))
        throw new RoutesError(`pool ${pool} stays: device ${CARRIERS[rung]} of ${rung} is missing or down`)
      const moved = { ...current, rung, mtu }
      const next = wanted.map((route) => (route.pool === pool ? moved : route))
      const known = applied === wanted
      wanted = next

      table.interrupt()
      const { nexthops, routes } = planRoutes({ wanted: [moved], ids, devices, source4, source6 })
      try {
        await Promise.all(nexthops.map((nexthop) => table.netlink.replaceNexthop(nexthop)))
        // A pool that had no path has no routes over its nexthops yet. A whole pass would look at everything first.
        if (current.rung === undefined || current.mtu !== mtu)
          await Promise.all(
            routes.filter(({ kind }) => kind === 'unicast').map((route) => table.netlink.replaceRoute(route)),
          )
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error
        // The device was made anew a moment ago, say: look again.
        await table.apply()
      }
      if (known && wanted === next) applied = next
    },

    async observe(pools) {
      const rungs = new Map([...devicesUp(await table.netlink.links())].map(([rung, index]) => [index, rung]))
      const nexthops = (await table.netlink.nexthops()).filter(isMeshNexthop)
      const found = new Map<string, Carrier>()
      for (const [pool, id] of nexthopIds(pools)) {
        const nexthop = nexthops.find((candidate) => candidate.id === id || candidate.id === id + 1)
        const rung = nexthop && rungs.get(nexthop.device)
        if (rung !== undefined) found.set(pool, rung)
      }
      return found
    },

    isOverruled: async () => (await overruling()).length > 0,
    async overrule() {
      for (const route of await overruling()) {
        log.warn({ to: route.destination }, 'no agent runs here, and its route led away from this gateway; removed')
        await table.netlink.removeRoute(route)
      }
    },
  }

  /** Routes of the agent that come before ours. */
  async function overruling(): Promise<readonly Route[]> {
    const ours = new Set(wanted?.flatMap(({ cidrs }) => cidrs.map((cidr) => normalise(cidr))))
    return (await table.netlink.routes([PROTOCOL_AGENT])).filter(
      ({ table, kind, metric, destination }) =>
        table === ROUTE_TABLE &&
        kind === 'unicast' &&
        metric < METRIC_GATEWAY &&
        (wanted === undefined || ours.has(destination)),
    )
  }
}

function devicesUp(links: readonly Link[]): ReadonlyMap<Carrier, number> {
  return new Map(
    DEVICES.flatMap(([rung, name]) => {
      const link = links.find((candidate) => candidate.name === name && candidate.up)
      return link === undefined ? [] : [[rung, link.index] as const]
    }),
  )
}

/** Whether a notice about a link says something new about our devices: gone, down, or there with another index. */
function changes(devices: ReadonlyMap<Carrier, number>, { name, index, up }: Link, removed: boolean): boolean {
  const rung = DEVICES.find(([, device]) => device === name)?.[0]
  if (rung === undefined) return false
  const known = devices.get(rung) === index
  return removed || !up ? known : !known
}
