// Which endpoints of a service may be used from a node. OpenYurt's `openyurt.io/topologyKeys`, as YurtHub filters by
// it: one whole string, a hard filter without fallback, so that an empty result stays empty. Services and DNS both ask
// here.

import type { Cluster, ClusterService, Endpoint } from './cluster.ts'

export type Here = {
  readonly node: string
  /** The nodes of the same NodePool, this one included; this one alone where it is in none. */
  readonly neighbours: ReadonlySet<string>
}

export function hereOf({ nodePools }: Pick<Cluster, 'nodePools'>, node: string): Here {
  const pool = nodePools.get(node)
  const neighbours =
    pool === undefined ? [] : [...nodePools].filter(([, other]) => other === pool).map(([name]) => name)
  return { node, neighbours: new Set([node, ...neighbours]) }
}

/** The endpoints that the annotation leaves, ready or not. An unknown value filters nothing, as in YurtHub. */
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

/** Those of them that are ready: names have no fallback to endpoints that drain. */
export const readyEndpoints = (service: ClusterService, here: Here): readonly Endpoint[] =>
  reachable(service, here).filter(({ ready }) => ready)
