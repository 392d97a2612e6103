// What answers at each address and port of a service, seen from this node: the list that nft and the socket load balancer
// are made from. They decide nothing themselves.

import type { Family } from '../lib/cidr.ts'
import type { Cluster, ClusterService, Endpoint, Port, Protocol } from './cluster.ts'
import { reachable, type Here } from './topology.ts'

/** One endpoint that a frontend may use. */
export type Target = {
  readonly address: string
  readonly port: number
  readonly node: string | undefined
  /** Its share of new connections, relative to the others'; a whole number from 1. */
  readonly weight: number
}

/** What answers at one address and port, seen from this node. */
export type Frontend = {
  /** `namespace/name`: for people, and with `portName` and `protocol` the key of affinity, which all addresses share. */
  readonly service: string
  readonly portName: string
  readonly family: Family
  readonly protocol: Protocol
  readonly kind: 'cluster-ip' | 'node-port' | 'external-ip' | 'load-balancer'
  /** undefined for node-port: any of the node's own addresses that serve NodePorts. */
  readonly address: string | undefined
  readonly port: number
  /** In a fixed order; none means that new connections are refused or dropped. */
  readonly targets: readonly Target[]
  /** For this node and its pods, where they may use more than callers from outside (externalTrafficPolicy: Local). */
  readonly insideTargets?: readonly Target[]
  /** What happens to a new connection when there is no target. */
  readonly whenEmpty: 'reject' | 'drop'
  /** ClientIP affinity: seconds since the last use. */
  readonly affinitySeconds?: number
  /** Only from these prefixes may clients come (loadBalancerSourceRanges); absent: from everywhere. */
  readonly sourceRanges?: readonly string[]
  /** False: callers from outside of the cluster are masqueraded. */
  readonly keepsSource: boolean
}

/** One service's frontends: the very same value for as long as nothing that concerns them changes. */
export type ServiceFrontends = { readonly service: string; readonly frontends: readonly Frontend[] }
export type Balance = {
  /** By name of service; services that are not served from here are absent. */
  readonly services: readonly ServiceFrontends[]
}
export type BalanceInput = { readonly cluster: Cluster; readonly here: Here }

export function balanceOf({ cluster, here }: BalanceInput): Balance {
  const services = cluster.services.filter(({ kind, proxied }) => kind === 'virtual' && proxied)
  return { services: services.map((service) => serviceFrontends(service, here)) }
}

const made = new WeakMap<ClusterService, { readonly here: Here; readonly frontends: ServiceFrontends }>()

function serviceFrontends(service: ClusterService, here: Here): ServiceFrontends {
  const known = made.get(service)
  if (known?.here === here) return known.frontends
  const key = `${service.namespace}/${service.name}`
  const usable = usableFrom(service, here)
  const frontends = {
    service: key,
    frontends: service.clusterIps.flatMap(({ family, address }) =>
      service.ports.map((port): Frontend => ({
        service: key,
        portName: port.name,
        family,
        protocol: port.protocol,
        kind: 'cluster-ip',
        address,
        port: port.port,
        targets: targetsOf(usable, family, port),
        whenEmpty: service.localOnly ? 'drop' : 'reject',
        keepsSource: false,
      })),
    ),
  }
  made.set(service, { here, frontends })
  return frontends
}

/** Ready endpoints, else those that drain, among what topology and the service's own policy leave. */
function usableFrom(service: ClusterService, here: Here): readonly Endpoint[] {
  const allowed = reachable(service, here).filter(({ node }) => !service.localOnly || node === here.node)
  const ready = allowed.filter((endpoint) => endpoint.ready)
  return ready.length > 0 ? ready : allowed.filter((endpoint) => endpoint.draining)
}

function targetsOf(endpoints: readonly Endpoint[], family: Family, { name, protocol }: Port): readonly Target[] {
  const targets = new Map<string, Target>()
  for (const endpoint of endpoints) {
    if (endpoint.family !== family) continue
    const port = endpoint.ports.find((port) => port.name === name && port.protocol === protocol)?.port
    if (port === undefined) continue
    const { address, node } = endpoint
    targets.set(`${address} ${port}`, { address, port, node, weight: 1 })
  }
  return [...targets.values()]
}
