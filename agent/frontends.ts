// What answers at each address and port of one service, seen from this node.

import { contains, parseCidr, type Family } from '../lib/cidr.ts'
import { trimmed } from '../lib/k8s/kept.ts'
import { clusterChoice, hasAny, localChoice, targetsOf, type Health, type Paths, type Target } from './choice.ts'
import type { ClusterService, Endpoint, Protocol, ServicePort } from './cluster.ts'
import { reachable, type Here } from './topology.ts'

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
  /** What happens to a new connection when there is no target; without one in `insideTargets` it is refused. */
  readonly whenEmpty: 'reject' | 'drop'
  /** ClientIP affinity: seconds since the last use. */
  readonly affinitySeconds?: number
  /** Only from these prefixes may clients come (loadBalancerSourceRanges); absent: from everywhere. */
  readonly sourceRanges?: readonly string[]
  /** False: callers from outside of the cluster are masqueraded. */
  readonly keepsSource: boolean
}

/** An endpoint that the API calls ready and that looks dead from here. */
export type Suspect = {
  readonly service: string
  readonly portName: string
  readonly address: string
  readonly port: number
  readonly node: string | undefined
  readonly reason: string
  /** True where it is used none the less, since there is no better one. */
  readonly used: boolean
}

/** What a load balancer asks for at `port` of this node. */
export type HealthCheck = {
  readonly namespace: string
  readonly name: string
  readonly port: number
  readonly localEndpoints: number
}

/** One service's frontends: the very same value for as long as nothing that concerns them changes. */
export type ServiceFrontends = { readonly service: string; readonly frontends: readonly Frontend[] }
export type ServiceBalance = ServiceFrontends & {
  readonly suspects: readonly Suspect[]
  readonly healthCheck: HealthCheck | undefined
  /** This node's addresses of its own endpoints that are targets: they may call themselves by way of the service. */
  readonly localTargets: readonly string[]
  readonly problems: readonly string[]
}

export type Surroundings = {
  readonly here: Here
  readonly health: Health | undefined
  readonly paths: Paths | undefined
}

export function frontendsOf(service: ClusterService, { here, health, paths }: Surroundings): ServiceBalance {
  const key = `${service.namespace}/${service.name}`
  const allowed = reachable(service, here)
  const frontends: Frontend[] = []
  const suspects: Suspect[] = []
  const problems = new Set<string>()
  const targets = (chosen: readonly Endpoint[], port: ServicePort): readonly Target[] => {
    const { targets, left } = targetsOf(chosen, port, here, paths)
    if (left > 0)
      problems.add(
        `service ${key}: ${targets.length + left} endpoints serve port ${port.port}: ${targets.length} of them are used from this node; ` +
          'split the service, or limit it to near endpoints by the annotation fulmar.dev/topology',
      )
    return targets
  }

  for (const family of new Set(service.clusterIps.map(({ family }) => family))) {
    const external = externalAddresses(service, family, here)
    const hasNodePorts = listensHere(service, here)
    for (const port of service.ports) {
      const serving = allowed.filter(
        (endpoint) =>
          endpoint.family === family &&
          endpoint.ports.some(({ name, protocol }) => name === port.name && protocol === port.protocol),
      )
      const reasonOf = (endpoint: Endpoint): string | undefined =>
        health?.(endpoint.address, numberOf(endpoint, port), endpoint.node, port.protocol)
      const whole = targets(clusterChoice(service, serving, here, reasonOf), port)
      const needsLocal = service.localOnly || service.externalLocal
      const local = needsLocal ? targets(localChoice(serving, here, reasonOf), port) : []
      const whenEmptyHere: Frontend['whenEmpty'] = hasAny(serving) ? 'drop' : 'reject'

      const add = (at: Pick<Frontend, 'kind' | 'address' | 'port'>, uses: Uses, more: Partial<Frontend> = {}): void => {
        const { kind, address, port: number } = at
        const { targets, whenEmpty, keepsSource } = uses
        const { name: portName, protocol } = port
        // Written out, since a node has tens of thousands: what is spread has no fixed place in an object.
        const plain: Frontend = {
          service: key,
          portName,
          family,
          protocol,
          kind,
          address,
          port: number,
          targets,
          whenEmpty,
          keepsSource,
        }
        const { affinitySeconds } = service
        if (affinitySeconds !== undefined) frontends.push({ ...plain, ...more, affinitySeconds })
        else frontends.push(Object.keys(more).length === 0 ? plain : { ...plain, ...more })
      }
      const inside: Uses = service.localOnly
        ? { targets: local, whenEmpty: whenEmptyHere, keepsSource: false }
        : { targets: whole, whenEmpty: 'reject', keepsSource: false }
      const outside: Uses = service.externalLocal
        ? { targets: local, whenEmpty: whenEmptyHere, keepsSource: true }
        : { targets: whole, whenEmpty: 'reject', keepsSource: false }
      const fromInside = service.externalLocal ? { insideTargets: whole } : {}
      for (const { family: own, address } of service.clusterIps)
        if (own === family) add({ kind: 'cluster-ip', address, port: port.port }, inside)
      for (const { kind, address, sourceRanges } of external)
        add({ kind, address, port: port.port }, outside, {
          ...fromInside,
          ...(sourceRanges !== undefined && { sourceRanges }),
        })
      if (port.nodePort > 0 && hasNodePorts)
        add({ kind: 'node-port', address: undefined, port: port.nodePort }, outside, fromInside)

      for (const endpoint of serving) {
        const reason = endpoint.ready ? reasonOf(endpoint) : undefined
        if (reason === undefined) continue
        const { address, node } = endpoint
        const number = numberOf(endpoint, port)
        const used = [...whole, ...local].some((target) => target.address === address && target.port === number)
        suspects.push({ service: key, portName: port.name, address, port: number, node, reason, used })
      }
    }
  }
  return {
    service: key,
    frontends: trimmed(frontends),
    suspects: trimmed(suspects),
    healthCheck: healthCheckOf(service, allowed, here),
    localTargets: trimmed(localTargets(frontends, here)),
    problems: trimmed([...problems]),
  }
}

type Uses = Pick<Frontend, 'targets' | 'whenEmpty' | 'keepsSource'>

/** The pod's own number of a port of the service. */
const numberOf = (endpoint: Endpoint, { name, protocol }: ServicePort): number =>
  endpoint.ports.find((port) => port.name === name && port.protocol === protocol)?.port ?? 0

type ExternalAddress = Required<Pick<Frontend, 'kind'>> & {
  readonly address: string
  readonly sourceRanges: readonly string[] | undefined
}

/** An address that is both is the load balancer's: its clients may be restricted. */
function externalAddresses(service: ClusterService, family: Family, here: Here): readonly ExternalAddress[] {
  const ofFamily = (addresses: ClusterService['externalIps']) =>
    addresses.filter((address) => address.family === family).map(({ address }) => address)
  const found = new Map<string, ExternalAddress>()
  for (const address of ofFamily(service.loadBalancerIps))
    found.set(address, { kind: 'load-balancer', address, sourceRanges: rangesOf(service, family, address, here) })
  for (const address of ofFamily(service.externalIps))
    if (!found.has(address)) found.set(address, { kind: 'external-ip', address, sourceRanges: undefined })
  for (const { address } of service.clusterIps) found.delete(address)
  return [...found.values()]
}

/**
 * Prefixes of the other family leave nobody of this one. A node that has the load balancer's address on itself calls from
 * that address: where the node may call, so may it.
 */
function rangesOf(
  { sourceRanges }: ClusterService,
  family: Family,
  address: string,
  here: Here,
): readonly string[] | undefined {
  const ranges = sourceRanges?.flatMap((text) => parseCidr(text) ?? []).filter((range) => range.family === family)
  if (ranges === undefined) return undefined
  const nodeMay = ranges.some((range) => here.addresses.some((own) => contains(range, own)))
  const own =
    nodeMay && !ranges.some((range) => contains(range, address)) ? [`${address}/${family === 4 ? 32 : 128}`] : []
  return [...ranges.map(({ text }) => text), ...own]
}

/**
 * OpenYurt's `nodeport.openyurt.io/listen`: `pool`, `-pool` or `*`, the first word about a pool counts, and a pool that no
 * word is about does not listen. Nodes in no pool listen.
 */
function listensHere({ nodePortPools }: ClusterService, { pool }: Here): boolean {
  if (nodePortPools === undefined || pool === undefined) return true
  const words = nodePortPools.split(',').map((word) => word.trim())
  const own = words.find((word) => word === pool || word === `-${pool}`)
  return own === undefined ? words.includes('*') : own === pool
}

function healthCheckOf(
  { namespace, name, healthCheckPort: port }: ClusterService,
  allowed: readonly Endpoint[],
  { node }: Here,
): HealthCheck | undefined {
  if (port === undefined) return undefined
  const local = allowed.filter((endpoint) => endpoint.ready && endpoint.node === node)
  return { namespace, name, port, localEndpoints: new Set(local.map(({ address }) => address)).size }
}

function localTargets(frontends: readonly Frontend[], { node }: Here): readonly string[] {
  const local = new Set<string>()
  for (const { targets, insideTargets = [] } of frontends)
    for (const list of [targets, insideTargets])
      for (const target of list) if (target.node === node) local.add(target.address)
  return [...local]
}
