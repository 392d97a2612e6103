// The part of the cluster that services and names are made from: an immutable, trimmed reading of whole Kubernetes
// objects, in a deterministic order. What is allowed from here is decided by topology.ts and balance.ts, what becomes of
// it by nft.ts and dns.ts.

import type { EndpointSlice, Node, NodePool, RavenGateway, Service } from '../lib/k8s/objects.ts'
import { LABEL_NODE_POOL, poolsOf, type Pool } from '../lib/k8s/pools.ts'
import { serviceOf, type ClusterService } from './services.ts'

export type { Address, Endpoint, Port, Protocol } from './endpoints.ts'
export type { ClusterService, ServicePort, ServiceSelection } from './services.ts'

export type Cluster = {
  /** By namespace and name. */
  readonly services: readonly ClusterService[]
  /** OpenYurt's NodePool of each node; nodes in none are absent. Topology goes by this, tunnels by `pools`. */
  readonly nodePools: ReadonlyMap<string, string>
  /** The label `topology.kubernetes.io/zone` of each node that has it. */
  readonly zones: ReadonlyMap<string, string>
  readonly pools: readonly Pool[]
  /** Objects, or parts of them, that were left out, and the remedy. */
  readonly problems: readonly string[]
}

export type ClusterObjects = {
  readonly services: readonly Service[]
  readonly slices: readonly EndpointSlice[]
  readonly nodes: readonly Node[]
  readonly nodePools: readonly NodePool[]
  readonly gateways: readonly RavenGateway[]
}

const LABEL_SERVICE_NAME = 'kubernetes.io/service-name'
const LABEL_ZONE = 'topology.kubernetes.io/zone'
const NO_SLICES: readonly EndpointSlice[] = []

/** Objects need no order; what cannot be read is left out and named in `problems`. */
export function clusterOf(objects: ClusterObjects): Cluster {
  const { pools, problems: poolProblems } = poolsOf(objects.nodes, objects.nodePools, objects.gateways)
  const slices = Map.groupBy(
    objects.slices.filter(({ addressType }) => addressType === 'IPv4' || addressType === 'IPv6'),
    ({ metadata }) => `${metadata?.namespace}/${metadata?.labels?.[LABEL_SERVICE_NAME]}`,
  )
  const read = objects.services
    .map((service) => serviceOf(service, slices.get(keyOf(service)) ?? NO_SLICES))
    .sort((a, b) => compare(a.service.namespace, b.service.namespace) || compare(a.service.name, b.service.name))
  return {
    services: read.map(({ service }) => service),
    nodePools: nodePoolsOf(objects.nodes, objects.nodePools),
    zones: zonesOf(objects.nodes),
    pools,
    problems: [...poolProblems, ...read.flatMap(({ problems }) => problems)],
  }
}

/** A node's own label counts; the list in the NodePool's status is made from labels, later. */
function nodePoolsOf(nodes: readonly Node[], nodePools: readonly NodePool[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const { metadata, status } of nodePools)
    for (const node of status?.nodes ?? []) found.set(node, metadata?.name ?? '')
  for (const { metadata } of nodes) {
    const pool = metadata?.labels?.[LABEL_NODE_POOL]
    if (pool) found.set(metadata?.name ?? '', pool)
  }
  return found
}

function zonesOf(nodes: readonly Node[]): ReadonlyMap<string, string> {
  const zones = new Map<string, string>()
  for (const { metadata } of nodes) {
    const zone = metadata?.labels?.[LABEL_ZONE]
    if (zone) zones.set(metadata?.name ?? '', zone)
  }
  return zones
}

/** Over all services; one that serves two of them counts twice. */
export const endpointCount = (services: readonly ClusterService[]): number =>
  services.reduce((sum, { endpoints }) => sum + endpoints.length, 0)

const keyOf = ({ metadata }: Service) => `${metadata?.namespace}/${metadata?.name}`
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
