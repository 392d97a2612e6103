// The agent's routes, kept in the kernel as wanted. Nothing is removed at the end, and nothing before the first update: an
// agent that restarts without the cloud goes on with what is there.

import type { Pool } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { openRouteTable } from '../lib/net/route-table.ts'
import { ensureForwarding, ensureMtuProbing } from '../lib/net/sysctl.ts'
import { PROTOCOL_AGENT } from '../lib/owned.ts'
import { planAgentRoutes, type AgentRoutesPlan } from './routes.ts'

export type AgentRoutes = {
  /** Makes the routes those that follow from these pools. @throws RoutesError; it is tried again by itself. */
  update(input: {
    readonly node: string
    readonly pools: readonly Pool[]
    /** See AgentRoutesInput. */
    readonly active?: string | undefined
  }): Promise<void>
  /** The plan in force, for the status; undefined before the first update. */
  readonly plan: AgentRoutesPlan | undefined
}

export async function runRoutes({ log }: { readonly log: Log }, signal: AbortSignal): Promise<AgentRoutes> {
  let input: Parameters<AgentRoutes['update']>[0] | undefined
  let plan: AgentRoutesPlan | undefined
  let networks: ReadonlySet<number> = new Set()

  const table = openRouteTable(
    {
      protocol: PROTOCOL_AGENT,
      plan(links, addresses) {
        if (input === undefined) return undefined
        const up = new Set(links.flatMap((link) => (link.up ? [link.index] : [])))
        plan = planAgentRoutes({ ...input, links: addresses.filter(({ device }) => up.has(device)) })
        networks = new Set(addresses.flatMap(({ device, address }) => (isLinkLocal(address) ? [] : [device])))
        return { nexthops: [], routes: plan.routes }
      },
      // A pod that comes or goes is no concern: its device has a link-local address at most.
      concerns: (event) =>
        event.kind === 'link' ? networks.has(event.link.index) : !isLinkLocal(event.address.address),
      log,
    },
    signal,
  )
  await ensureForwarding(table.netlink, log)
  await ensureMtuProbing(log)

  return {
    get plan() {
      return plan
    },
    async update(pools) {
      input = pools
      await table.apply()
    },
  }
}

const isLinkLocal = (address: string) => address.startsWith('fe80:')
