// The routes that an agent wants: through the pool's gateway to the pods of other pools, back from them to the pods of its
// own pool, and to the pods of its neighbours where nobody else routes those. On the gateway itself the gateway daemon sees
// to other pools; until it does they are unreachable, so that pod traffic never leaks to the Internet.

import { contains, parseCidr, type Family } from '../lib/cidr.ts'
import type { Pool, PoolNode } from '../lib/k8s/pools.ts'
import { DEVICE_MTU, PROTOCOL_AGENT, RETURN_TABLE, ROUTE_TABLE } from '../lib/owned.ts'
import { prefixOf, type Route } from '../lib/routes.ts'
import { transportTo, type LocalAddress, type Surroundings, type Transport } from './transport.ts'

export type AgentRoutesInput = {
  readonly node: string
  readonly pools: readonly Pool[]
  /** The active gateway as heard on the LAN; without, the order of the objects counts. */
  readonly active?: string | undefined
  /** Whether the overlay also carries what pods of this pool say to each other, where nobody else routes it. */
  readonly podsInPool?: boolean | undefined
}
export type AgentRoutesPlan = {
  readonly routes: readonly Route[]
  /** Pods that no route leads to, and why. */
  readonly problems: readonly string[]
  /** Where traffic to other pools goes, and how; undefined on the gateway itself, and where none is reachable. */
  readonly gateway:
    | { readonly node: string; readonly address: string; readonly transport: Transport['kind'] }
    | undefined
}

/** Metrics differ from the gateway daemon's, so that on a node that changes its role neither replaces the other's route. */
const METRIC_AGENT = 200
/**
 * To other pools, once it was heard that another node is the active gateway: before the routes of a gateway daemon on this
 * node, which may be dead and have left them.
 */
const METRIC_AGENT_HEARD = 50
const METRIC_AGENT_UNREACHABLE = 10_001

export function planAgentRoutes(input: AgentRoutesInput, around: Surroundings): AgentRoutesPlan {
  const { node, pools, active, podsInPool = false } = input
  const own = pools.find(({ nodes }) => nodes.some(({ name }) => name === node))
  const self = own?.nodes.find(({ name }) => name === node)
  if (own === undefined || self === undefined)
    return {
      routes: [],
      problems: [`node ${node}: no Node object of that name is known yet, so no pods of others are routed`],
      gateway: undefined,
    }

  const to = (neighbour: PoolNode, family: Family) => transportTo(neighbour, family, self, around)
  const others = own.nodes.filter(({ name }) => name !== node)
  const chosen = active ?? own.gateways[0]
  const gateway = chosen === node ? undefined : others.find(({ name }) => name === chosen)
  const overOverlay = podsInPool || chosen === node
  const neighbours = others.map((neighbour) => neighbourRoutes(neighbour, to, around, overOverlay))
  const back = own.gateways.includes(node) ? others.flatMap((neighbour) => returnRoutes(neighbour, to)) : []
  const destinations = pools
    .filter((pool) => pool !== own)
    .flatMap(({ nodes }) => nodes.flatMap(({ podCidrs }) => podCidrs))
  const metric = active === undefined ? METRIC_AGENT : METRIC_AGENT_HEARD
  const remote = gateway && remoteRoutes({ destinations, gateway, metric, self, links: around.links, to })
  const first = gateway && (to(gateway, 4) ?? to(gateway, 6))
  return {
    routes: [
      ...neighbours.flatMap(({ routes }) => routes),
      ...back,
      ...destinations.map((destination): Route => ({
        ...common(destination),
        kind: 'unreachable',
        metric: METRIC_AGENT_UNREACHABLE,
      })),
      ...(remote?.routes ?? []),
    ],
    problems: [...neighbours.flatMap(({ problems }) => problems), ...(remote?.problems ?? [])],
    gateway: gateway && first && { node: gateway.name, address: first.address, transport: first.kind },
  }
}

type Part = { readonly routes: readonly Route[]; readonly problems: readonly string[] }
type To = (neighbour: PoolNode, family: Family) => Transport | undefined

/**
 * Where somebody else routes to them, a CNI say, this is theirs. No `unreachable` below these: what others do later counts.
 * @param overOverlay also where no link is shared.
 */
function neighbourRoutes(neighbour: PoolNode, to: To, { carried }: Surroundings, overOverlay: boolean): Part {
  const routes: Route[] = []
  const lost: string[] = []
  const apart: string[] = []
  for (const destination of neighbour.podCidrs.filter((cidr) => !carried.get(cidr)?.length)) {
    const transport = to(neighbour, prefixOf(destination).family)
    if (transport === undefined) lost.push(destination)
    else if (transport.kind === 'vxlan' && !overOverlay) apart.push(destination)
    else routes.push(routeOver(transport, destination, METRIC_AGENT))
  }
  const told =
    `node ${neighbour.name}: it shares no link with this node and nobody routes to ${listed(apart)}, so pods here do not ` +
    'reach pods there; let your CNI see to it, or start the agents of this pool with --overlay-pods'
  return {
    routes,
    problems: [...(lost.length === 0 ? [] : [problemOf(neighbour, lost)]), ...(apart.length === 0 ? [] : [told])],
  }
}

/** For what comes in over the mesh, whatever way others have to these pods. */
function returnRoutes(neighbour: PoolNode, to: To): readonly Route[] {
  return neighbour.podCidrs.flatMap((destination) => {
    const transport = to(neighbour, prefixOf(destination).family)
    return transport === undefined ? [] : [{ ...routeOver(transport, destination, METRIC_AGENT), table: RETURN_TABLE }]
  })
}

function remoteRoutes({
  destinations,
  gateway,
  metric,
  self,
  links,
  to,
}: {
  readonly destinations: readonly string[]
  readonly gateway: PoolNode
  readonly metric: number
  readonly self: PoolNode
  readonly links: readonly LocalAddress[]
  readonly to: To
}): Part {
  const routes: Route[] = []
  const lost: string[] = []
  for (const destination of destinations) {
    const family = prefixOf(destination).family
    const transport = to(gateway, family)
    const source = sourceOf(self, family, links)
    if (transport === undefined) lost.push(destination)
    else
      routes.push({
        ...routeOver(transport, destination, metric),
        mtu: Math.min(DEVICE_MTU, transport.kind === 'vxlan' ? transport.mtu : DEVICE_MTU),
        ...(source !== undefined && { source }),
      })
  }
  return { routes, problems: lost.length === 0 ? [] : [problemOf(gateway, lost)] }
}

const common = (destination: string) => ({
  family: prefixOf(destination).family,
  table: ROUTE_TABLE,
  protocol: PROTOCOL_AGENT,
  destination,
})

const routeOver = ({ via, device }: Transport, destination: string, metric: number): Route => ({
  ...common(destination),
  kind: 'unicast',
  metric,
  via,
  device,
})

/** This node's address among its own pods' (the CNI's bridge has one), which peers of the mesh know the way back to. */
function sourceOf(self: PoolNode, family: Family, links: readonly LocalAddress[]): string | undefined {
  const own = self.podCidrs.flatMap((text) => parseCidr(text) ?? []).filter((cidr) => cidr.family === family)
  return links
    .map(({ address }) => address)
    .toSorted()
    .find((address) => own.some((cidr) => contains(cidr, address)))
}

function problemOf({ name, addresses }: PoolNode, lost: readonly string[]): string {
  const has = addresses.length === 0 ? 'none' : addresses.join(', ')
  return (
    `node ${name}: this node has no way to any InternalIP of it (it has ${has}), so nothing is routed to ${listed(lost)}; ` +
    'see that the link to it is up (ip route get ADDRESS), or give both nodes an InternalIP of one family'
  )
}

const LISTED_MAX = 4

function listed(items: readonly string[]): string {
  const rest = items.length - LISTED_MAX
  return `${items.slice(0, LISTED_MAX).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`
}
