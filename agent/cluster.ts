// The part of the cluster that services and names are made from: an immutable, trimmed reading of whole Kubernetes
// objects, in a deterministic order. What is allowed from here is decided by topology.ts and balance.ts, what becomes of
// it by nft.ts and dns.ts.

import type { Node, NodePool, RavenGateway } from '../lib/k8s/objects.ts'
import { LABEL_NODE_POOL, poolsOf, type Pool } from '../lib/k8s/pools.ts'
import { sliceRead, type AnySlice } from './endpoints.ts'
import { serviceOf, type AnyService, type ClusterService } from './services.ts'
import { sortedPairs } from './sorted-pairs.ts'

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
  readonly services: readonly AnyService[]
  readonly slices: readonly AnySlice[]
  readonly nodes: readonly Node[]
  readonly nodePools: readonly NodePool[]
  readonly gateways: readonly RavenGateway[]
}

const LABEL_ZONE = 'topology.kubernetes.io/zone'
const NO_SLICES: readonly AnySlice[] = []
const NOTHING: ReadonlySet<string> = new Set()

/** Objects need no order; what cannot be read is left out and named in `problems`. */
export const clusterOf = (objects: ClusterObjects): Cluster => createClusterReader()(objects)

/**
 * Reads one state after another: lists that are the same value are not looked into, and of others only what changed is
 * read, which takes lists that are in the order of namespace and name.
 */
export function createClusterReader(): (objects: ClusterObjects) => Cluster {
  const slicesOf = new Map<string, readonly AnySlice[]>()
  let slices: readonly AnySlice[] = []
  let services: readonly AnyService[] = []
  /** In the order of `services`. */
  let found: readonly ClusterService[] = []
  const problems = new Map<ClusterService, readonly string[]>()
  let sorted = true
  let nodes: NodesRead | undefined

  const regroup = (now: readonly AnySlice[]): ReadonlySet<string> => {
    const touched = new Set<string>()
    for (const [had, slice] of sortedPairs(slices, now, byKey)) {
      const [before, after] = [had && sliceRead(had).service, slice && sliceRead(slice).service]
      if (before !== undefined) {
        const list = slicesOf.get(before) ?? NO_SLICES
        slicesOf.set(before, list.toSpliced(list.indexOf(had!), 1))
        touched.add(before)
      }
      if (after !== undefined) {
        const list = slicesOf.get(after)
        slicesOf.set(after, list === undefined ? [slice!] : [...list, slice!])
        touched.add(after)
      }
    }
    for (const key of touched) if (slicesOf.get(key)?.length === 0) slicesOf.delete(key)
    slices = now
    return touched
  }

  const read = (service: AnyService, before: ClusterService | undefined): ClusterService => {
    const read = serviceOf(service, slicesOf.get(keyOf(service)) ?? NO_SLICES)
    if (before !== undefined) problems.delete(before)
    if (read.problems.length > 0) problems.set(read.service, read.problems)
    return read.service
  }
  const replace = (now: readonly AnyService[]): void => {
    const next: ClusterService[] = []
    const keep = (index: number, count: number): void => {
      for (let n = index; n < index + count; n++) next.push(found[n]!)
    }
    for (const [had, service, index] of sortedPairs(services, now, byKey, keep)) {
      const before = had === undefined ? undefined : found[index]!
      if (service === undefined) problems.delete(before!)
      else {
        const neighbours = [now[next.length - 1], service, now[next.length + 1]]
        sorted &&= isInOrder(neighbours.filter((each) => each !== undefined))
        next.push(read(service, before))
      }
    }
    services = now
    found = next
  }
  const indexOfService = (key: string): number => {
    if (!sorted) return services.findIndex((service) => keyOf(service) === key)
    const wanted = key.replace('/', '\0')
    let [low, high] = [0, services.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if (orderOf(services[middle]!) < wanted) low = middle + 1
      else high = middle
    }
    return low < services.length && keyOf(services[low]!) === key ? low : -1
  }

  return (objects) => {
    const touched = objects.slices === slices ? NOTHING : regroup(objects.slices)
    if (objects.services !== services) replace(objects.services)
    const changed = [...touched].map(indexOfService).filter((index) => index >= 0)
    if (changed.length > 0) {
      const next = [...found]
      for (const index of changed) next[index] = read(services[index]!, next[index])
      found = next
    }
    nodes = nodesOf(objects, nodes)
    const { nodePools, zones, pools } = nodes
    const troubled = [...problems].sort(([a], [b]) => byName(a, b)).flatMap(([, each]) => each)
    return {
      services: sorted ? found : found.toSorted(byName),
      nodePools,
      zones,
      pools,
      problems: [...nodes.problems, ...troubled],
    }
  }
}

const isInOrder = (services: readonly AnyService[]) =>
  services.every((service, i) => i === 0 || byKey(services[i - 1]!, service) < 0)

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
export const endpointCount = (services: readonly ClusterService[]): number =>
  services.reduce((sum, { endpoints }) => sum + endpoints.length, 0)

const keyOf = ({ metadata }: AnyService) => `${metadata?.namespace}/${metadata?.name}`
const orderOf = ({ metadata }: AnyService | AnySlice) => `${metadata?.namespace}\0${metadata?.name}`
const byName = (a: ClusterService, b: ClusterService) => compare(a.namespace, b.namespace) || compare(a.name, b.name)
const byKey = (a: AnyService | AnySlice, b: AnyService | AnySlice) => compare(orderOf(a), orderOf(b))
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
