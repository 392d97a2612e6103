// The part of the cluster that services and names are made from: an immutable, trimmed reading of whole Kubernetes
// objects, in a deterministic order. What is allowed from here is decided by topology.ts and balance.ts, what becomes of
// it by nft.ts and dns.ts.

import type { Node, NodePool, RavenGateway } from '../lib/k8s/objects.ts'
import { LABEL_NODE_POOL, poolsOf, type Pool } from '../lib/k8s/pools.ts'
import { compareNames, compareObjects } from '../lib/order.ts'
import { changesBetween, EMPTY, SortedItems, SortedList, sortedList } from '../lib/sorted-list.ts'
import { sliceRead, type AnySlice } from './endpoints.ts'
import { serviceOf, type AnyService, type ClusterService } from './services.ts'

export type { Address, Endpoint, Port, Protocol } from './endpoints.ts'
export type { ClusterService, ServicePort, ServiceSelection } from './services.ts'

export type Cluster = {
  /** By namespace and name. */
  readonly services: SortedList<ClusterService>
  /** OpenYurt's NodePool of each node; nodes in none are absent. Topology goes by this, tunnels by `pools`. */
  readonly nodePools: ReadonlyMap<string, string>
  /** The label `topology.kubernetes.io/zone` of each node that has it. */
  readonly zones: ReadonlyMap<string, string>
  readonly pools: readonly Pool[]
  /** Objects, or parts of them, that were left out, and the remedy. */
  readonly problems: readonly string[]
}

export type ClusterObjects = {
  /** Those of a store are in order already, which makes what changed easy to find. */
  readonly services: Iterable<AnyService>
  readonly slices: Iterable<AnySlice>
  readonly nodes: readonly Node[]
  readonly nodePools: readonly NodePool[]
  readonly gateways: readonly RavenGateway[]
}

const LABEL_ZONE = 'topology.kubernetes.io/zone'
const NO_SLICES: readonly AnySlice[] = []

/** What cannot be read is left out and named in `problems`. */
export const clusterOf = (objects: ClusterObjects): Cluster => createClusterReader()(objects)

/** Reads one state after another, and of each only what changed. */
export function createClusterReader(): (objects: ClusterObjects) => Cluster {
  let services: SortedList<AnyService> = EMPTY
  let slices: SortedList<AnySlice> = EMPTY
  /** Few services have more than one. */
  const slicesOf = new Map<string, AnySlice | readonly AnySlice[]>()
  const found = new SortedItems<Pick<ClusterService, 'namespace' | 'name'>, ClusterService>(compareNames)
  const problems = new Map<string, readonly string[]>()
  let nodes: NodesRead | undefined

  const own = (key: string): readonly AnySlice[] => {
    const of = slicesOf.get(key) ?? NO_SLICES
    return 'length' in of ? of : [of]
  }
  /** @returns the services whose slices are others now. */
  const regroup = (now: SortedList<AnySlice>): Set<string> => {
    const touched = new Set<string>()
    const change = (key: string | undefined, of: (own: readonly AnySlice[]) => readonly AnySlice[]): void => {
      if (key === undefined) return
      touched.add(key)
      const [first, ...others] = of(own(key))
      if (first === undefined) slicesOf.delete(key)
      else slicesOf.set(key, others.length === 0 ? first : [first, ...others])
    }
    for (const [had, slice] of changesBetween(slices, now, compareObjects)) {
      change(had && sliceRead(had).service, (own) => own.filter((other) => other !== had))
      change(slice && sliceRead(slice).service, (own) => [...own, slice!])
    }
    slices = now
    return touched
  }
  const read = (service: AnyService): void => {
    const key = keyOf(service)
    const read = serviceOf(service, own(key))
    found.set(read.service)
    if (read.problems.length > 0) problems.set(key, read.problems)
    else problems.delete(key)
  }
  const forget = (service: AnyService): void => {
    const { namespace = '', name = '' } = service.metadata ?? {}
    found.delete({ namespace, name })
    problems.delete(keyOf(service))
  }

  return (objects) => {
    const touched = regroup(inOrder(objects.slices))
    const before = services
    services = inOrder(objects.services)
    for (const [had, service] of changesBetween(before, services, compareObjects)) {
      touched.delete(keyOf((service ?? had)!))
      if (service !== undefined) read(service)
      else forget(had!)
    }
    for (const key of touched) {
      const [namespace = '', name = ''] = key.split('/')
      const service = services.find(({ metadata }) => compareNames(metadata, { namespace, name }))
      if (service !== undefined) read(service)
    }
    nodes = nodesOf(objects, nodes)
    const { nodePools, zones, pools } = nodes
    const troubled = [...problems].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, each]) => each)
    return { services: found.list(), nodePools, zones, pools, problems: [...nodes.problems, ...troubled] }
  }
}

const inOrder = <T extends AnyService | AnySlice>(objects: Iterable<T>): SortedList<T> =>
  objects instanceof SortedList ? objects : sortedList(objects, compareObjects)

type NodesRead = Pick<Cluster, 'nodePools' | 'zones' | 'pools' | 'problems'> & { readonly objects: ClusterObjects }

/** The same values while none of the lists that they are made of is another. */
function nodesOf(objects: ClusterObjects, known: NodesRead | undefined): NodesRead {
  const { nodes, nodePools, gateways } = objects
  const same =
    known?.objects.nodes === nodes && known.objects.nodePools === nodePools && known.objects.gateways === gateways
  if (known !== undefined && same) return known
  return {
    objects,
    ...poolsOf(nodes, nodePools, gateways),
    nodePools: nodePoolsOf(nodes, nodePools),
    zones: zonesOf(nodes),
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
export function endpointCount(services: Iterable<ClusterService>): number {
  let count = 0
  for (const { endpoints } of services) count += endpoints.length
  return count
}

const keyOf = ({ metadata }: AnyService) => `${metadata?.namespace}/${metadata?.name}`
