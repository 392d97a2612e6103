// The routes of a gateway to other pools: nexthop objects, routes and the rule, kept in the kernel as wanted.

import type { Rung } from '../lib/status.ts'
import type { Log } from '../lib/log.ts'
import type { PoolRoute } from './routes.ts'

export type { PoolRoute } from './routes.ts'

export type Routes = {
  /** Level-triggered: nexthops, routes and the rule become exactly what is wanted (ours only, by table and protocol). */
  apply(wanted: readonly PoolRoute[]): Promise<void>
  /** Moves one pool's traffic to another rung: one message per family, no route touched. */
  move(pool: string, rung: Rung): Promise<void>
  /** Which rung each pool's nexthop points to in the kernel now, so that a restarted gateway keeps what is there. */
  observe(pools: readonly string[]): Promise<ReadonlyMap<string, Rung>>
}

export type RoutesOptions = {
  /** Addresses on this node that the peers' AllowedIPs cover: what the node itself sends into the mesh comes from there. */
  readonly source4?: string | undefined
  readonly source6?: string | undefined
  readonly log: Log
}

export async function openRoutes(_options: RoutesOptions, _signal: AbortSignal): Promise<Routes> {
  throw new Error('not written yet')
}
