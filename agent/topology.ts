// Which endpoints of a service may be used from a node, and which of them first. OpenYurt's `openyurt.io/topologyKeys` as
// YurtHub filters by it: one whole string, a hard filter without fallback, so that an empty result stays empty. Within
// that our own `fulmar.dev/topology`, else the hints of the slices. Services and DNS both ask here.

import type { Cluster, ClusterService, Endpoint } from './cluster.ts'
import type { PreferredLevel } from './preference.ts'

export type Here = {
  readonly node: string
  /** OpenYurt's NodePool. */
  readonly pool: string | undefined
  readonly zone: string | undefined
  /** The nodes of the same NodePool, this one included; this one alone where it is in none. */
  readonly neighbours: ReadonlySet<string>
  /** The nodes of the same zone, this one included; this one alone where it is in none. */
  readonly zoneNodes: ReadonlySet<string>
  /** This node's InternalIPs, in the order of the Node object. */
  readonly addresses: readonly string[]
}

export function hereOf(cluster: Partial<Pick<Cluster, 'nodePools' | 'zones' | 'pools'>>, node: string): Here {
  const { nodePools = new Map<string, string>(), zones = new Map<string, string>(), pools = [] } = cluster
  const members = (groups: ReadonlyMap<string, string>): ReadonlySet<string> => {
    const group = groups.get(node)
    const others = group === undefined ? [] : [...groups].filter(([, other]) => other === group)
    return new Set([node, ...others.map(([name]) => name)])
  }
  const own = pools.flatMap(({ nodes }) => nodes).find(({ name }) => name === node)
  return {
    node,
    pool: nodePools.get(node),
    zone: zones.get(node),
    neighbours: members(nodePools),
    zoneNodes: members(zones),
    addresses: own?.addresses ?? [],
  }
}

/** Whether choices made for the one hold for the other. */
export const sameHere = (a: Here, b: Here): boolean =>
  a.node === b.node &&
  a.pool === b.pool &&
  a.zone === b.zone &&
  sameMembers(a.neighbours, b.neighbours) &&
  sameMembers(a.zoneNodes, b.zoneNodes) &&
  a.addresses.join() === b.addresses.join()

const sameMembers = (a: ReadonlySet<string>, b: ReadonlySet<string>) =>
  a.size === b.size && [...a].every((member) => b.has(member))

/** The endpoints that OpenYurt's annotation leaves, ready or not. An unknown value filters nothing, as in YurtHub. */
export function reachable(
  { topologyKeys, endpoints }: ClusterService,
  { node, neighbours }: Here,
): readonly Endpoint[] {
  switch (topologyKeys) {
    case 'kubernetes.io/hostname':
      return endpoints.filter((endpoint) => endpoint.node === node)
    case 'openyurt.io/nodepool':
    case 'kubernetes.io/zone':
      return endpoints.filter((endpoint) => endpoint.node !== undefined && neighbours.has(endpoint.node))
    default:
      return endpoints
  }
}

/**
 * Those that names lead to, which have no fallback to endpoints that drain: of the first level where one looks alive those
 * that do; where none does on any, the first that has any.
 */
export function readyEndpoints(
  service: ClusterService,
  here: Here,
  looksDead: (endpoint: Endpoint) => boolean = () => false,
): readonly Endpoint[] {
  const ready = reachable(service, here).filter(({ ready }) => ready)
  const levels = service.preference === undefined ? [ready] : preferredLevels(ready, service.preference, here)
  for (const level of levels) {
    const alive = level.filter((endpoint) => !looksDead(endpoint))
    if (alive.length > 0) return alive
  }
  return levels.find((level) => level.length > 0) ?? []
}

/** The endpoints of each level of our annotation, the nearest first; all of them at the end unless it is strict. */
export function preferredLevels(
  endpoints: readonly Endpoint[],
  { levels, strict }: NonNullable<ClusterService['preference']>,
  here: Here,
): readonly (readonly Endpoint[])[] {
  const near = levels.map((level) => endpoints.filter((endpoint) => isOn(level, endpoint, here)))
  return strict ? near : [...near, endpoints]
}

function isOn(level: PreferredLevel, { node, zone }: Endpoint, here: Here): boolean {
  switch (level) {
    case 'node':
      return node === here.node
    case 'pool':
      return node !== undefined && here.neighbours.has(node)
    case 'zone':
      return (zone !== undefined && zone === here.zone) || (node !== undefined && here.zoneNodes.has(node))
  }
}

/**
 * The endpoints that hints name for this node, then for its zone, then all. Hints count where every ready endpoint has
 * them and one names us, and for zones where this node's zone is known (KEP-2433, KEP-3015).
 * @param ready all ready endpoints that may be used.
 */
export function hintedLevels(ready: readonly Endpoint[], { node, zone }: Here): readonly (readonly Endpoint[])[] {
  const named = (of: (endpoint: Endpoint) => readonly string[], name: string | undefined): readonly Endpoint[] =>
    name !== undefined && ready.every((endpoint) => of(endpoint).length > 0)
      ? ready.filter((endpoint) => of(endpoint).includes(name))
      : []
  return [named(({ forNodes }) => forNodes, node), named(({ forZones }) => forZones, zone), ready]
}
