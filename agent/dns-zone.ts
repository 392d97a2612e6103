// What the agent's DNS answers from: the services of a snapshot, found by namespace and name, and by address.

import { compareNames } from '../lib/order.ts'
import { EMPTY, type SortedList } from '../lib/sorted-list.ts'
import type { Health } from './choice.ts'
import type { Cluster, ClusterService } from './cluster.ts'
import { membersOf, namedAddresses, type Members, type Named } from './dns-names.ts'
import type { Here } from './topology.ts'

/** Whether `10-244-1-5.shop.pod` is answered: never, or as the label says wherever the namespace is known. */
export type PodNames = 'disabled' | 'insecure'

export type Zone = {
  /** In lower case, without dots at their ends, such as `cluster.local`. Reverse names lead to the first. */
  readonly domains: readonly string[]
  /** The agent's own addresses, which the zone names as its servers. */
  readonly servers: readonly string[]
  readonly pods: PodNames
  readonly here: Here
  /** False until services and endpoints are known: an unknown name must not be denied. */
  readonly synced: boolean
  /** By namespace and name. */
  readonly services: SortedList<ClusterService>
  /** Made when first asked for. */
  readonly byAddress: () => ReadonlyMap<string, readonly Named[]>
  /** Remembered, since a service may have thousands of endpoints. */
  readonly members: (service: ClusterService) => Members
}

export type ZoneInput = {
  readonly cluster: Pick<Cluster, 'services'> | undefined
  readonly here: Here
  readonly domains: readonly string[]
  readonly servers: readonly string[]
  readonly pods?: PodNames
  readonly health?: Health | undefined
}

export function zoneOf({ cluster, here, domains, servers, pods = 'insecure', health }: ZoneInput): Zone {
  const services = cluster?.services ?? EMPTY
  let named: ReadonlyMap<string, readonly Named[]> | undefined
  const known = new Map<ClusterService, Members>()
  const members = (service: ClusterService): Members => {
    const found = known.get(service) ?? membersOf(service, here, health)
    known.set(service, found)
    return found
  }
  return {
    domains,
    servers,
    pods,
    here,
    synced: cluster !== undefined,
    services,
    byAddress: () => (named ??= namedAddresses(services, here)),
    members,
  }
}

/** The nearest of our domains. */
export function domainOf({ domains }: Zone, lower: string): string | undefined {
  let nearest: string | undefined
  for (const domain of domains)
    if (
      (lower === domain || (lower.endsWith(domain) && lower[lower.length - domain.length - 1] === '.')) &&
      domain.length > (nearest?.length ?? 0)
    )
      nearest = domain
  return nearest
}

export const findService = (
  services: SortedList<ClusterService>,
  namespace: string,
  name: string,
): ClusterService | undefined => services.find((service) => compareNames(service, { namespace, name }))

export const hasNamespace = (services: SortedList<ClusterService>, namespace: string): boolean =>
  services.find((service) => compareNames({ namespace: service.namespace }, { namespace })) !== undefined
