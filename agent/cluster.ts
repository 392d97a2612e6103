// The part of the cluster that services and names are made from: an immutable, trimmed reading of whole Kubernetes
// objects, in a deterministic order. What is allowed from here is decided by topology.ts, what becomes of it by nft.ts
// and dns.ts.

import { isIPv4, isIPv6 } from 'node:net'
import { normalise, type Family } from '../lib/cidr.ts'
import type { EndpointPort, EndpointSlice, Node, NodePool, RavenGateway, Service } from '../lib/k8s/objects.ts'
import { LABEL_NODE_POOL, poolsOf, type Pool } from '../lib/k8s/pools.ts'

export type Protocol = 'TCP' | 'UDP' | 'SCTP'
export type Address = { readonly family: Family; readonly address: string }
export type Port = { readonly name: string; readonly protocol: Protocol; readonly port: number }

export type Endpoint = Address & {
  readonly node: string | undefined
  readonly hostname: string | undefined
  readonly zone: string | undefined
  readonly ready: boolean
  /** Terminating, but still answering: used where nothing is ready (KEP-1669). */
  readonly draining: boolean
  /** What it listens on; named like the Service's ports, with the pod's own numbers. */
  readonly ports: readonly Port[]
}

export type ClusterService = {
  readonly namespace: string
  readonly name: string
  /** `virtual` has ClusterIPs, `headless` has none, `external` is an alias of another name. */
  readonly kind: 'virtual' | 'headless' | 'external'
  /** In the order of the object; empty unless virtual. */
  readonly clusterIps: readonly Address[]
  readonly externalName: string
  readonly ports: readonly Port[]
  /** By address; one entry for each address of each slice. */
  readonly endpoints: readonly Endpoint[]
  /** The annotation `openyurt.io/topologyKeys`. */
  readonly topologyKeys: string | undefined
  /** internalTrafficPolicy: Local: only endpoints on the caller's node. */
  readonly localOnly: boolean
  /** False where another proxy was asked to serve the ClusterIP, or nobody. */
  readonly proxied: boolean
}

export type Cluster = {
  /** By namespace and name. */
  readonly services: readonly ClusterService[]
  /** OpenYurt's NodePool of each node; nodes in none are absent. Topology goes by this, tunnels by `pools`. */
  readonly nodePools: ReadonlyMap<string, string>
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
const LABEL_PROXY_NAME = 'service.kubernetes.io/service-proxy-name'
const LABEL_HEADLESS = 'service.kubernetes.io/headless'
const ANNOTATION_TOPOLOGY = 'openyurt.io/topologyKeys'
const NO_SLICES: readonly EndpointSlice[] = []

/** Objects need no order; what cannot be read is left out and named in `problems`. */
export function clusterOf(objects: ClusterObjects): Cluster {
  const { pools, problems: poolProblems } = poolsOf(objects.nodes, objects.nodePools, objects.gateways)
  const problems = [...poolProblems]
  const slices = Map.groupBy(
    objects.slices.filter(({ addressType }) => addressType === 'IPv4' || addressType === 'IPv6'),
    ({ metadata }) => `${metadata?.namespace}/${metadata?.labels?.[LABEL_SERVICE_NAME]}`,
  )
  const read = objects.services
    .map((service) => serviceOf(service, slices.get(keyOf(service)) ?? NO_SLICES))
    .sort((a, b) => compare(a.service.namespace, b.service.namespace) || compare(a.service.name, b.service.name))
  const services = read.map(({ service }) => service)
  problems.push(...read.flatMap(({ problems }) => problems))
  return {
    services,
    nodePools: nodePoolsOf(objects.nodes, objects.nodePools),
    pools,
    problems: [...problems, ...sharedIps(services)],
  }
}

type ServiceRead = {
  readonly slices: readonly EndpointSlice[]
  readonly service: ClusterService
  readonly problems: readonly string[]
}
const servicesRead = new WeakMap<Service, ServiceRead>()

/** The same value as before where neither the Service nor its slices changed, so that others may remember by it. */
function serviceOf(service: Service, slices: readonly EndpointSlice[]): ServiceRead {
  const known = servicesRead.get(service)
  if (known?.slices.length === slices.length && known.slices.every((slice, i) => slice === slices[i])) return known
  const { spec = {}, metadata = {} } = service
  const problems: string[] = []
  const kind = spec.type === 'ExternalName' ? 'external' : spec.clusterIP === 'None' ? 'headless' : 'virtual'
  const ips = spec.clusterIPs?.length ? spec.clusterIPs : [spec.clusterIP ?? '']
  const read: ServiceRead = {
    slices,
    problems,
    service: {
      namespace: metadata.namespace ?? '',
      name: metadata.name ?? '',
      kind,
      clusterIps: kind === 'virtual' ? ips.flatMap((ip) => clusterIp(service, ip, problems)) : [],
      externalName: kind === 'external' ? (spec.externalName ?? '').replace(/\.$/, '') : '',
      ports: portsOf(spec.ports ?? []),
      endpoints: endpointsOf(slices, spec.publishNotReadyAddresses === true),
      topologyKeys: metadata.annotations?.[ANNOTATION_TOPOLOGY],
      localOnly: spec.internalTrafficPolicy === 'Local',
      proxied: metadata.labels?.[LABEL_PROXY_NAME] === undefined && metadata.labels?.[LABEL_HEADLESS] === undefined,
    },
  }
  servicesRead.set(service, read)
  return read
}

function clusterIp(service: Service, text: string, problems: string[]): readonly Address[] {
  const address = addressOf(text)
  if (address !== undefined) return [address]
  // An API server fills in an address before anybody sees the object; a folder of manifests does not.
  problems.push(
    text === ''
      ? `service ${keyOf(service)} has no ClusterIP: it is left out; set spec.clusterIP to an address or to None`
      : `service ${keyOf(service)}: ClusterIP ${JSON.stringify(text)} is no IP address: it is left out; correct spec.clusterIPs`,
  )
  return []
}

/** Without a name or protocol the defaults of the API server hold, which a folder of manifests does not fill in. */
function portsOf(ports: readonly Pick<EndpointPort, 'name' | 'protocol' | 'port'>[]): readonly Port[] {
  return ports.flatMap(({ name = '', protocol = 'TCP', port }) =>
    port !== undefined && port > 0 && port < 65536 && (protocol === 'TCP' || protocol === 'UDP' || protocol === 'SCTP')
      ? [{ name: name ?? '', protocol, port }]
      : [],
  )
}

type SliceEndpoint = Endpoint & { readonly key: string }
/** Objects of the store are replaced and never changed, so what was read of one holds for as long as it is there. */
const slicesRead = new WeakMap<EndpointSlice, readonly SliceEndpoint[]>()

function endpointsOfSlice(slice: EndpointSlice): readonly SliceEndpoint[] {
  const known = slicesRead.get(slice)
  if (known !== undefined) return known
  const ports = portsOf(slice.ports ?? [])
  const portsKey = ports.map(({ name, protocol, port }) => `${name}/${protocol}/${port}`).join()
  const family = slice.addressType === 'IPv4' ? 4 : 6
  const found = (slice.endpoints ?? []).flatMap(
    ({ addresses, conditions, nodeName, hostname, zone }): SliceEndpoint[] => {
      // Consumers use the first address only; the others are equal to it (discovery/v1).
      const address = addressOf(addresses?.[0] ?? '')
      if (address?.family !== family) return []
      const ready = conditions?.ready ?? true
      return [
        {
          family,
          address: address.address,
          node: nodeName || undefined,
          hostname: hostname || undefined,
          zone: zone || undefined,
          ready,
          draining: !ready && (conditions?.serving ?? true) && (conditions?.terminating ?? false),
          ports,
          key: `${address.address} ${portsKey}`,
        },
      ]
    },
  )
  slicesRead.set(slice, found)
  return found
}

/** An endpoint that moves from one slice to another stands in both for a moment: the ready entry counts. */
function endpointsOf(slices: readonly EndpointSlice[], publishNotReady: boolean): readonly Endpoint[] {
  const found = new Map<string, Endpoint>()
  for (const slice of slices)
    for (const { key, ...read } of endpointsOfSlice(slice)) {
      const endpoint = publishNotReady ? { ...read, ready: true, draining: false } : read
      const known = found.get(key)
      if (known === undefined || (endpoint.ready && !known.ready) || (endpoint.draining && !known.ready))
        found.set(key, endpoint)
    }
  return [...found].sort(([a], [b]) => compare(a, b)).map(([, endpoint]) => endpoint)
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

/** Two Services on one ClusterIP and port: whose endpoints would answer is chance, so it is said. */
function sharedIps(services: readonly ClusterService[]): readonly string[] {
  const owners = new Map<string, ClusterService>()
  const problems: string[] = []
  for (const service of services)
    for (const { address } of service.clusterIps) {
      const owner = owners.get(address)
      if (owner === undefined) owners.set(address, service)
      else
        problems.push(
          `ClusterIP ${address} is claimed by services ${keyOfService(owner)} and ${keyOfService(service)}: ` +
            'the first gets it; give each Service its own',
        )
    }
  return problems
}

/** Most addresses are written canonically already, which is seen without reading them in full. */
function addressOf(text: string): Address | undefined {
  if (isIPv4(text)) return { family: 4, address: text }
  if (!text.includes(':')) return undefined
  if (isIPv6(text) && isPlainlyCanonical(text)) return { family: 6, address: text }
  const address = normalise(text)
  return address === undefined || address.includes('/') ? undefined : { family: 6, address }
}

/** One `::` for two or more groups of zeros, no zero group beside it, no leading zeros, lower case. */
function isPlainlyCanonical(ipv6: string): boolean {
  const groups = ipv6.split(':').filter((group) => group !== '')
  return ipv6.includes('::') && groups.length <= 6 && groups.every((group) => /^[1-9a-f][0-9a-f]*$/.test(group))
}

/** Over all services; one that serves two of them counts twice. */
export const endpointCount = (services: readonly ClusterService[]): number =>
  services.reduce((sum, { endpoints }) => sum + endpoints.length, 0)

const keyOfService = ({ namespace, name }: ClusterService): string => `${namespace}/${name}`
const keyOf = ({ metadata }: Service) => `${metadata?.namespace}/${metadata?.name}`
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
