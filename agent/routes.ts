// The routes that an agent wants: to the pods of its neighbours on the LAN, and through the pool's gateway to the pods of
// other pools. On the gateway itself the gateway daemon sees to other pools; until it does they are unreachable, so that
// pod traffic never leaks to the Internet.

import { contains, familyOf, parseCidr, type Cidr, type Family } from '../lib/cidr.ts'
import type { Pool, PoolNode } from '../lib/k8s/pools.ts'
import { DEVICE_MTU, PROTOCOL_AGENT, ROUTE_TABLE } from '../lib/owned.ts'
import { prefixOf, type Route } from '../lib/routes.ts'

/** An address of this node, with the prefix that its device is on. */
export type LocalAddress = {
  /** Interface index. */
  readonly device: number
  readonly address: string
  readonly length: number
}
export type AgentRoutesInput = {
  readonly node: string
  readonly pools: readonly Pool[]
  readonly links: readonly LocalAddress[]
  /** The active gateway as heard on the LAN; without, the order of the objects counts. */
  readonly active?: string | undefined
}
export type AgentRoutesPlan = {
  readonly routes: readonly Route[]
  /** Pods that no route leads to, and why. */
  readonly problems: readonly string[]
  /** Where traffic to other pools goes; undefined on the gateway itself, and where none is reachable. */
  readonly gateway: { readonly node: string; readonly address: string } | undefined
}

/** Metrics differ from the gateway daemon's, so that on a node that changes its role neither replaces the other's route. */
export const METRIC_AGENT = 200
/**
 * To other pools, once it was heard that another node is the active gateway: before the routes of a gateway daemon on this
 * node, which may be dead and have left them.
 */
export const METRIC_AGENT_HEARD = 50
export const METRIC_AGENT_UNREACHABLE = 10_001

export function planAgentRoutes({ node, pools, links, active }: AgentRoutesInput): AgentRoutesPlan {
  const own = pools.find(({ nodes }) => nodes.some(({ name }) => name === node))
  const self = own?.nodes.find(({ name }) => name === node)
  if (own === undefined || self === undefined)
    return {
      routes: [],
      problems: [`node ${node}: no Node object of that name is known yet, so no pods of others are routed`],
      gateway: undefined,
    }

  const lan = onLinkFinder(links)
  const neighbours = own.nodes.filter(({ name }) => name !== node).map((neighbour) => neighbourRoutes(neighbour, lan))
  const chosen = active ?? own.gateways[0]
  const gateway = chosen === node ? undefined : own.nodes.find(({ name }) => name === chosen)
  const destinations = pools
    .filter((pool) => pool !== own)
    .flatMap(({ nodes }) => nodes.flatMap(({ podCidrs }) => podCidrs))
  const metric = active === undefined ? METRIC_AGENT : METRIC_AGENT_HEARD
  const remote = gateway && remoteRoutes({ destinations, gateway, metric, self, links, lan })
  const address = gateway && (hopTo(gateway, 4, lan) ?? hopTo(gateway, 6, lan))?.via
  return {
    routes: [
      ...neighbours.flatMap(({ routes }) => routes),
      ...destinations.map((destination): Route => ({
        ...common(destination),
        kind: 'unreachable',
        metric: METRIC_AGENT_UNREACHABLE,
      })),
      ...(remote?.routes ?? []),
    ],
    problems: [...neighbours.flatMap(({ problems }) => problems), ...(remote?.problems ?? [])],
    gateway: gateway && address !== undefined ? { node: gateway.name, address } : undefined,
  }
}

type Part = { readonly routes: readonly Route[]; readonly problems: readonly string[] }

/** No `unreachable` below these: without a route of ours the CNI's own to the same node counts. */
function neighbourRoutes(neighbour: PoolNode, lan: OnLink): Part {
  const routes: Route[] = []
  const lost: string[] = []
  for (const destination of neighbour.podCidrs) {
    const hop = hopTo(neighbour, prefixOf(destination).family, lan)
    if (hop === undefined) lost.push(destination)
    else routes.push({ ...common(destination), kind: 'unicast', metric: METRIC_AGENT, ...hop })
  }
  return { routes, problems: lost.length === 0 ? [] : [problemOf(neighbour, lost)] }
}

function remoteRoutes({
  destinations,
  gateway,
  metric,
  self,
  links,
  lan,
}: {
  readonly destinations: readonly string[]
  readonly gateway: PoolNode
  readonly metric: number
  readonly self: PoolNode
  readonly links: readonly LocalAddress[]
  readonly lan: OnLink
}): Part {
  const routes: Route[] = []
  const lost: string[] = []
  for (const destination of destinations) {
    const family = prefixOf(destination).family
    const hop = hopTo(gateway, family, lan)
    const source = sourceOf(self, family, links)
    if (hop === undefined) lost.push(destination)
    else
      routes.push({
        ...common(destination),
        kind: 'unicast',
        metric,
        ...hop,
        mtu: DEVICE_MTU,
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

/** The interface that an address is on-link on; undefined where it is not, or is this node's own. */
type OnLink = (address: string) => number | undefined

function onLinkFinder(links: readonly LocalAddress[]): OnLink {
  const own = new Set(links.map(({ address }) => address))
  const networks = links
    .flatMap(({ address, length, device }) => ({ cidr: parseCidr(`${address}/${length}`), device }))
    .filter(
      (network): network is { cidr: Cidr; device: number } => network.cidr !== undefined && !isSingle(network.cidr),
    )
    .toSorted((a, b) => b.cidr.length - a.cidr.length)
  return (address) => (own.has(address) ? undefined : networks.find(({ cidr }) => contains(cidr, address))?.device)
}

const isSingle = ({ family, length }: Cidr) => length === (family === 4 ? 32 : 128)

/** Link-local addresses are on every link: as InternalIP they say nothing. */
function hopTo(node: PoolNode, family: Family, lan: OnLink): { via: string; device: number } | undefined {
  for (const via of node.addresses) {
    if (familyOf(via) !== family || via.startsWith('fe80:')) continue
    const device = lan(via)
    if (device !== undefined) return { via, device }
  }
  return undefined
}

/** This node's address among its own pods' (the CNI's bridge has one), which peers of the mesh know the way back to. */
function sourceOf(self: PoolNode, family: Family, links: readonly LocalAddress[]): string | undefined {
  const own = self.podCidrs.flatMap((text) => parseCidr(text) ?? []).filter((cidr) => cidr.family === family)
  return links
    .map(({ address }) => address)
    .toSorted()
    .find((address) => own.some((cidr) => contains(cidr, address)))
}

function problemOf({ name, addresses }: PoolNode, lost: readonly string[]): string {
  const families = [...new Set(lost.map((prefix) => prefixOf(prefix).family))]
    .map((family) => `IPv${family}`)
    .join(' or ')
  const has = addresses.length === 0 ? 'none' : addresses.join(', ')
  return (
    `node ${name}: no ${families} InternalIP of it is on a network of this node (it has ${has}), so nothing is routed to ` +
    `${listed(lost)}; give both nodes an address of that family on one LAN`
  )
}

const LISTED_MAX = 4

function listed(items: readonly string[]): string {
  const rest = items.length - LISTED_MAX
  return `${items.slice(0, LISTED_MAX).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`
}
