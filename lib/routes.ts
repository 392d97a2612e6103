// Routes, nexthop objects and rules as values, and the difference between what a kernel has and what is wanted of it.
// Agent and gateway share one table; the protocol number says whose a route is, and each touches only its own.

import { parseCidr, type Cidr, type Family } from './cidr.ts'

export type Route = {
  readonly family: Family
  readonly table: number
  readonly protocol: number
  /** Canonical prefix. */
  readonly destination: string
  readonly metric: number
  /** `unreachable` answers with an ICMP error, so that nothing falls through to the default route. */
  readonly kind: 'unicast' | 'unreachable'
  /** Id of a nexthop object; excludes `via` and, when written, `device`. */
  readonly nexthop?: number
  readonly via?: string
  /** Interface index. */
  readonly device?: number
  /** The address that the node itself sends from. */
  readonly source?: string
  readonly mtu?: number
}

export type Nexthop = {
  readonly id: number
  readonly family: Family
  readonly device: number
  readonly protocol: number
}

/** A rule that looks up `table` for packets whose mark, masked, is `mark` (or is not, inverted), a mask of 0 for all. */
export type Rule = {
  readonly family: Family
  readonly priority: number
  readonly table: number
  readonly invert: boolean
  readonly mark: number
  readonly mask: number
  /** The name of the device on which they came. */
  readonly arrivedOn?: string
}

export type RouteState = { readonly nexthops: readonly Nexthop[]; readonly routes: readonly Route[] }

export type RouteStep =
  | { readonly kind: 'replace-nexthop'; readonly nexthop: Nexthop }
  | { readonly kind: 'replace-route'; readonly route: Route }
  | { readonly kind: 'remove-route'; readonly route: Route }
  | { readonly kind: 'remove-nexthop'; readonly nexthop: Nexthop }

/**
 * The steps from one state to the other. Unreachable routes come first, so that nothing leaks meanwhile; additions before
 * removals, so that nothing is without a route meanwhile; nexthops before the routes that use them, and the other way
 * round when they go.
 */
export function planRouteSteps(observed: RouteState, wanted: RouteState): readonly RouteStep[] {
  const steps: RouteStep[] = []
  const nexthops = new Map(observed.nexthops.map((nexthop) => [nexthop.id, nexthop]))
  for (const nexthop of wanted.nexthops)
    if (!sameNexthop(nexthops.get(nexthop.id), nexthop)) steps.push({ kind: 'replace-nexthop', nexthop })

  const routes = new Map(observed.routes.map((route) => [keyOf(route), route]))
  const missing = wanted.routes.filter((route) => !sameRoute(routes.get(keyOf(route)), route))
  const replacements = missing.map((route) => ({ kind: 'replace-route' as const, route }))
  steps.unshift(...replacements.filter(({ route }) => route.kind === 'unreachable'))
  steps.push(...replacements.filter(({ route }) => route.kind !== 'unreachable'))

  const keys = new Set(wanted.routes.map(keyOf))
  for (const route of observed.routes) if (!keys.has(keyOf(route))) steps.push({ kind: 'remove-route', route })
  const ids = new Set(wanted.nexthops.map(({ id }) => id))
  for (const nexthop of observed.nexthops) if (!ids.has(nexthop.id)) steps.push({ kind: 'remove-nexthop', nexthop })
  return steps
}

/** A route in the words of `ip route`, for logs and errors. */
export function routeText(route: Route): string {
  const { kind, destination, via, device, nexthop, source, table, metric } = route
  return [
    ...(kind === 'unreachable' ? ['unreachable'] : []),
    destination,
    ...(via === undefined ? [] : [`via ${via}`]),
    ...(nexthop === undefined ? [] : [`nhid ${nexthop}`]),
    ...(device === undefined || nexthop !== undefined ? [] : [`dev #${device}`]),
    ...(source === undefined ? [] : [`src ${source}`]),
    `table ${table} metric ${metric}`,
  ].join(' ')
}

/** What makes two routes one in the kernel: a later one replaces the earlier. */
const keyOf = ({ family, table, destination, metric }: Route) => `${family} ${table} ${destination} ${metric}`

const sameNexthop = (a: Nexthop | undefined, b: Nexthop) =>
  a !== undefined && a.device === b.device && a.family === b.family

/** A route over a nexthop object also reports the device of that object, which is not the route's own. */
function sameRoute(a: Route | undefined, b: Route): boolean {
  if (a === undefined) return false
  const ownDevice = b.nexthop === undefined && b.kind === 'unicast'
  return (
    a.protocol === b.protocol &&
    a.kind === b.kind &&
    a.nexthop === b.nexthop &&
    a.via === b.via &&
    a.source === b.source &&
    a.mtu === b.mtu &&
    (!ownDevice || a.device === b.device)
  )
}

/** @throws Error for what is no prefix: whoever asks has parsed it before. */
export function prefixOf(text: string): Cidr {
  const cidr = parseCidr(text)
  if (cidr === undefined) throw new Error(`${JSON.stringify(text)} is no prefix such as 10.244.1.0/24`)
  return cidr
}
