// One snapshot for all of the agent's loops: made from the store when it is asked for, once for each state of the store.

import { withoutManagedFields } from '../lib/k8s/kept.ts'
import { ENDPOINT_SLICES, NODE_POOLS, NODES, RAVEN_GATEWAYS, SERVICES } from '../lib/k8s/objects.ts'
import type { EndpointSlice, Node, Resource, Service } from '../lib/k8s/objects.ts'
import type { StoreOptions } from '../lib/k8s/store-loop.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import { EMPTY } from '../lib/sorted-list.ts'
import { createBalancer, type Balance, type Health, type Paths } from './balance.ts'
import { createClusterReader, type Cluster, type ServiceSelection } from './cluster.ts'
import { zoneOf, type Zone, type ZoneInput } from './dns-zone.ts'
import { keptSlice, type KeptSlice } from './endpoints.ts'
import { keptService, type KeptService } from './services.ts'
import { hereOf, sameHere, type Here } from './topology.ts'

/** What the agent follows. OpenYurt's kinds may be unknown to a cluster: then there are none. */
export const RESOURCES = [SERVICES, ENDPOINT_SLICES, NODES, NODE_POOLS, RAVEN_GATEWAYS] as const

/** What stays of them in memory: very much of an object is of no use here. */
export const KEPT: NonNullable<StoreOptions['kept']> = {
  [SERVICES.plural]: (object) => keptService(object as Service),
  [ENDPOINT_SLICES.plural]: (object) => keptSlice(object as EndpointSlice),
  [NODES.plural]: (object) => keptNode(object as Node),
}
const KEPT_SERVICES = SERVICES as Resource as Resource<KeptService>
const KEPT_SLICES = ENDPOINT_SLICES as Resource as Resource<KeptSlice>

/** Images are most of it. */
function keptNode(node: Node): Node {
  const { images: _, ...status } = node.status ?? {}
  return { ...withoutManagedFields(node), status }
}

export type Snapshot = {
  /** undefined until services, endpoints and nodes are known, from disk or from the API. */
  readonly cluster: Cluster | undefined
  readonly here: Here
  /** What answers at each address of a service; undefined like `cluster`. */
  readonly balance: Balance | undefined
  readonly zone: Zone
}
export type SnapshotOptions = {
  readonly node: string
  readonly zone: Pick<ZoneInput, 'domains' | 'servers' | 'pods'>
  readonly selection?: ServiceSelection
  /** What is known of endpoints and of the ways there, if anything. */
  readonly health?: () => Health | undefined
  readonly paths?: () => Paths | undefined
}

export function createSnapshots(store: StoreView, options: SnapshotOptions): () => Snapshot {
  const { node, zone: zoneOptions, selection = 'all' } = options
  const readCluster = createClusterReader()
  const balancer = createBalancer()
  let revision: number | undefined
  let synced = false
  let health: Health | undefined
  let paths: Paths | undefined
  let snapshot: Snapshot | undefined

  /** Both are the same values while nothing of them changed: what was made for a service here is remembered by them. */
  const read = (): Pick<Snapshot, 'cluster' | 'here'> => {
    const syncedNow = [SERVICES, ENDPOINT_SLICES, NODES].every((resource) => store.synced(resource))
    if (snapshot !== undefined && revision === store.revision && synced === syncedNow) return snapshot
    revision = store.revision
    synced = syncedNow
    const cluster = synced
      ? readCluster({
          services: store.sorted(KEPT_SERVICES),
          slices: store.sorted(KEPT_SLICES),
          nodes: store.list(NODES),
          nodePools: store.list(NODE_POOLS),
          gateways: store.list(RAVEN_GATEWAYS),
        })
      : undefined
    // There may be thousands of nodes, and services change all the time.
    if (cluster !== undefined && snapshot?.cluster?.pools === cluster.pools) return { cluster, here: snapshot.here }
    const here = hereOf(cluster ?? {}, node)
    return { cluster, here: snapshot !== undefined && sameHere(here, snapshot.here) ? snapshot.here : here }
  }

  return () => {
    const { cluster, here } = read()
    const [healthNow, pathsNow] = [options.health?.(), options.paths?.()]
    const sameHealth = health === healthNow
    if (snapshot?.cluster === cluster && snapshot?.here === here && sameHealth && paths === pathsNow) return snapshot
    ;[health, paths] = [healthNow, pathsNow]
    // The same value while no name changed: answers are remembered by it, and nodes change all the time.
    const zone = snapshot?.zone
    const sameNames =
      sameHealth && zone?.synced === synced && zone.here === here && zone.services === (cluster?.services ?? EMPTY)
    snapshot = {
      cluster,
      here,
      balance: cluster && balancer({ cluster, here, selection, health, paths }),
      zone: sameNames ? zone : zoneOf({ ...zoneOptions, cluster, here, health }),
    }
    return snapshot
  }
}
