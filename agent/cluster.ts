// The part of the cluster that services and names are made from: an immutable, trimmed reading of whole Kubernetes
// objects, in a deterministic order. What is allowed from here is decided by topology.ts, what becomes of it by nft.ts
// and dns.ts.

import { isIPv4 } from 'node:net'
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

/** Objects need no order; what cannot be read is left out and named in `problems`. */
export function clusterOf(objects: ClusterObjects): Cluster {
  const { pools, problems: poolProblems } = poolsOf(objects.nodes, objects.nodePools, objects.gateways)
  const problems = [...poolProblems]
  const slices = Map.groupBy(
    objects.slices.filter(({ addressType }) => addressType === 'IPv4' || addressType === 'IPv6'),
    ({ metadata }) => `${metadata?.namespace}/${metadata?.labels?.[LABEL_SERVICE_NAME]}`,
  )
  const services = objects.services
    .map((service) => serviceOf(service, slices.get(keyOf(service)) ?? [], problems))
    .sort((a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name))
  return { services, nodePools: nodePoolsOf(objects.nodes, objects.nodePools), pools, problems: [...problems, ...sharedIps(services)] }
}

function serviceOf(service: Service, slices: readonly EndpointSlice[], problems: string[]): ClusterService {
  const { spec = {}, metadata = {} } = service
  const kind = spec.type === 'ExternalName' ? 'external' : spec.clusterIP === 'None' ? 'headless' : 'virtual'
  const ips = spec.clusterIPs?.length ? spec.clusterIPs : [spec.clusterIP ?? '']
  return {
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
  }
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

/** An endpoint that moves from one slice to another stands in both for a moment: the ready entry counts. */
function endpointsOf(slices: readonly EndpointSlice[], publishNotReady: boolean): readonly Endpoint[] {
  const found = new Map<string, Endpoint>()
  for (const slice of slices) {
    const ports = portsOf(slice.ports ?? [])
    const portsKey = ports.map(({ name, protocol, port }) => `${name}/${protocol}/${port}`).join()
    for (const { addresses = [], conditions, nodeName, hostname, zone } of slice.endpoints ?? []) {
      // Consumers use the first address only; the others are equal to it (discovery/v1).
      const address = addressOf(addresses[0] ?? '')
      if (address === undefined || (address.family === 4) !== (slice.addressType === 'IPv4')) continue
      const ready = publishNotReady || (conditions?.ready ?? true)
      const draining = !ready && (conditions?.serving ?? true) && (conditions?.terminating ?? false)
      const key = `${address.address} ${portsKey}`
      const known = found.get(key)
      if (known?.ready || (known?.draining && !ready)) continue
      found.set(key, {
        family: address.family,
        address: address.address,
        node: nodeName || undefined,
        hostname: hostname || undefined,
        zone: zone || undefined,
        ready,
        draining,
        ports,
      })
    }
  }
  return [...found].sort(([a], [b]) => compare(a, b)).map(([, endpoint]) => endpoint)
}

/** A node's own label counts; the list in the NodePool's status is made from labels, later. */
function nodePoolsOf(nodes: readonly Node[], nodePools: readonly NodePool[]): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  for (const { metadata, status } of nodePools) for (const node of status?.nodes ?? []) found.set(node, metadata?.name ?? '')
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

/** IPv4 text that passes isIPv4 is canonical already; most addresses of a large cluster go this way. */
function addressOf(text: string): Address | undefined {
  if (isIPv4(text)) return { family: 4, address: text }
  const address = text.includes(':') ? normalise(text) : undefined
  return address === undefined || address.includes('/') ? undefined : { family: 6, address }
}

export const keyOfService = ({ namespace, name }: ClusterService): string => `${namespace}/${name}`
const keyOf = ({ metadata }: Service) => `${metadata?.namespace}/${metadata?.name}`
const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
