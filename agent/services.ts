// One service, read from its Service object and its EndpointSlices.

import { parseCidr } from '../lib/cidr.ts'
import { keptMetadata, oneOfEach, trimmed, type KeptMetadata } from '../lib/k8s/kept.ts'
import type { Service } from '../lib/k8s/objects.ts'
import { addressOf, endpointsOf, isPort, portsOf } from './endpoints.ts'
import type { Address, AnySlice, Endpoint, Port } from './endpoints.ts'
import { preferenceOf, type Preference } from './preference.ts'

export type ServicePort = Port & {
  /** 0 where there is none. */
  readonly nodePort: number
}
/** Which services are served: all but those left to other proxies, or only those that are left to us. */
export type ServiceSelection = 'all' | 'labelled'

export type ClusterService = {
  readonly namespace: string
  readonly name: string
  /** `virtual` has ClusterIPs, `headless` has none, `external` is an alias of another name. */
  readonly kind: 'virtual' | 'headless' | 'external'
  /** In the order of the object; empty unless virtual. */
  readonly clusterIps: readonly Address[]
  readonly externalIps: readonly Address[]
  /** Ingress addresses that nodes answer for: those with ipMode Proxy are the load balancer's own. */
  readonly loadBalancerIps: readonly Address[]
  /** Prefixes that callers of `loadBalancerIps` must come from; undefined where they may come from everywhere. */
  readonly sourceRanges: readonly string[] | undefined
  readonly externalName: string
  readonly ports: readonly ServicePort[]
  /** By address; one entry for each address of each slice. */
  readonly endpoints: readonly Endpoint[]
  /** The annotation `openyurt.io/topologyKeys`. */
  readonly topologyKeys: string | undefined
  /** The annotation `fulmar.dev/topology`. */
  readonly preference: Preference | undefined
  /** internalTrafficPolicy: Local: only endpoints on the caller's node. */
  readonly localOnly: boolean
  /** externalTrafficPolicy: Local: calls from outside only reach endpoints on the node that they come to. */
  readonly externalLocal: boolean
  /** Where a load balancer asks whether this node has endpoints. */
  readonly healthCheckPort: number | undefined
  /** sessionAffinity: ClientIP: seconds since the last use. */
  readonly affinitySeconds: number | undefined
  /** The annotation `nodeport.openyurt.io/listen`: the pools whose nodes have the NodePorts. */
  readonly nodePortPools: string | undefined
  readonly served: Readonly<Record<ServiceSelection, boolean>>
}

const LABEL_PROXY_NAME = 'service.kubernetes.io/service-proxy-name'
/** The value of that label that means us. */
const PROXY_NAME = 'fulmar'
const LABEL_HEADLESS = 'service.kubernetes.io/headless'
/** EdgeMesh leaves out whatever has this label, or where told so serves nothing else. */
const LABEL_EDGEMESH = 'service.edgemesh.kubeedge.io/service-proxy-name'
const ANNOTATION_TOPOLOGY_KEYS = 'openyurt.io/topologyKeys'
const ANNOTATION_TOPOLOGY = 'fulmar.dev/topology'
const ANNOTATION_LISTEN = 'nodeport.openyurt.io/listen'
const ANNOTATION_DISCARD = 'svc.openyurt.io/discard'
/** The API server's default for sessionAffinityConfig.clientIP.timeoutSeconds, and the most that it takes. */
const AFFINITY_SECONDS = 10_800
const AFFINITY_SECONDS_MAX = 86_400
const NOTHING: readonly never[] = []

export type ServiceRead = { readonly service: ClusterService; readonly problems: readonly string[] }
/** A Service of which nothing is kept but what was read; without endpoints. */
export type KeptService = {
  readonly metadata: KeptMetadata
  readonly read: {
    /** As it was read last: the next reading has other endpoints, and there is no room for one without any. */
    service: ClusterService
    readonly problems: readonly string[]
    readonly publishNotReady: boolean
  }
}
export type AnyService = Service | KeptService

/** Very many services have few different lists of ports. */
const onePortList = oneOfEach<readonly ServicePort[]>()

export const keptService = (service: Service): KeptService => ({
  metadata: keptMetadata(service),
  read: readService(service),
})

export function serviceOf(service: AnyService, slices: readonly AnySlice[]): ServiceRead {
  const last = 'read' in service ? service.read : readService(service)
  const { service: before, problems, publishNotReady } = last
  const read = endpointsOf(slices, publishNotReady)
  const whole = { ...before, endpoints: read.endpoints }
  last.service = whole
  const unnamed = unnamedPorts(whole)
  if (read.problems.length + unnamed.length === 0) return { service: whole, problems }
  return { service: whole, problems: [...problems, ...read.problems, ...unnamed] }
}

function readService(service: Service): KeptService['read'] {
  const { metadata: { namespace = '', name = '', annotations = {} } = {}, spec = {} } = service
  const problems: string[] = []
  const { kind, clusterIps, externalIps, loadBalancerIps, sourceRanges } = addressesOf(service, problems)
  return {
    service: {
      namespace,
      name,
      kind,
      clusterIps: trimmed(clusterIps),
      externalIps,
      loadBalancerIps: trimmed(loadBalancerIps),
      sourceRanges,
      externalName: spec.type === 'ExternalName' ? (spec.externalName ?? '').replace(/\.$/, '') : '',
      ports: servicePorts(service),
      endpoints: NOTHING,
      topologyKeys: annotations[ANNOTATION_TOPOLOGY_KEYS],
      preference: preferred(service, problems),
      localOnly: spec.internalTrafficPolicy === 'Local',
      externalLocal: spec.externalTrafficPolicy === 'Local',
      healthCheckPort: healthCheckPortOf(service),
      affinitySeconds: affinityOf(service),
      nodePortPools: annotations[ANNOTATION_LISTEN],
      served: servedOf(service),
    },
    publishNotReady: spec.publishNotReadyAddresses === true,
    problems: problems.length === 0 ? NOTHING : problems,
  }
}

type Addresses = Pick<ClusterService, 'kind' | 'clusterIps' | 'externalIps' | 'loadBalancerIps' | 'sourceRanges'>

function addressesOf(service: Service, problems: string[]): Addresses {
  const { spec = {}, status } = service
  const none = { clusterIps: NOTHING, externalIps: NOTHING, loadBalancerIps: NOTHING, sourceRanges: undefined }
  if (spec.type === 'ExternalName') return { kind: 'external', ...none }
  if (spec.clusterIP === 'None') return { kind: 'headless', ...none }
  const read = (text: string, field: string): readonly Address[] => {
    const address = addressOf(text)
    if (address === undefined) problems.push(mistake(service, field, `${JSON.stringify(text)} is no IP address`))
    return address === undefined ? [] : [address]
  }
  const clusterIps = spec.clusterIPs?.length ? spec.clusterIPs : [spec.clusterIP ?? '']
  const ingress = spec.type === 'LoadBalancer' ? (status?.loadBalancer?.ingress ?? []) : []
  return {
    kind: 'virtual',
    clusterIps: clusterIps.flatMap((text) => {
      // An API server fills in an address before anybody sees the object; a folder of manifests does not.
      if (text !== '') return read(text, 'spec.clusterIPs')
      problems.push(
        `service ${keyOf(service)} has no ClusterIP: it is left out; set spec.clusterIP to an address or to None`,
      )
      return []
    }),
    externalIps: spec.externalIPs?.flatMap((text) => read(text, 'spec.externalIPs')) ?? NOTHING,
    loadBalancerIps: ingress
      .filter(({ ip, ipMode }) => ip !== undefined && ip !== '' && ipMode !== 'Proxy')
      .flatMap(({ ip }) => read(ip!, 'status.loadBalancer.ingress')),
    sourceRanges: spec.loadBalancerSourceRanges?.length
      ? spec.loadBalancerSourceRanges.flatMap((text) => {
          const range = parseCidr(text.trim())
          if (range === undefined)
            problems.push(mistake(service, 'spec.loadBalancerSourceRanges', `${JSON.stringify(text)} is no prefix`))
          return range === undefined ? [] : [range.text]
        })
      : undefined,
  }
}

const mistake = (service: Service, field: string, what: string) =>
  `service ${keyOf(service)}: ${what}: it is left out; correct ${field}`

function servicePorts({ spec }: Service): readonly ServicePort[] {
  const ports = (spec?.ports ?? []).flatMap((port) =>
    portsOf([port]).map((read) => ({ ...read, nodePort: isPort(port.nodePort) ? port.nodePort : 0 })),
  )
  const key = ports.map(({ name, protocol, port, nodePort }) => `${name}/${protocol}/${port}/${nodePort}`).join()
  return onePortList(key, ports)
}

function preferred(service: Service, problems: string[]): Preference | undefined {
  const text = service.metadata?.annotations?.[ANNOTATION_TOPOLOGY]
  if (text === undefined) return undefined
  const preference = preferenceOf(text)
  if (!('mistake' in preference)) return preference
  problems.push(
    `service ${keyOf(service)}: annotation ${ANNOTATION_TOPOLOGY} ${JSON.stringify(text)}: ${preference.mistake}: ` +
      'it is ignored; write for example "node, pool: prefer" or "pool: strict"',
  )
  return undefined
}

const healthCheckPortOf = ({ spec }: Service): number | undefined =>
  spec?.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local' && isPort(spec.healthCheckNodePort)
    ? spec.healthCheckNodePort
    : undefined

function affinityOf({ spec }: Service): number | undefined {
  if (spec?.sessionAffinity !== 'ClientIP') return undefined
  const seconds = spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? AFFINITY_SECONDS
  return Math.min(Math.max(Math.trunc(seconds), 1), AFFINITY_SECONDS_MAX)
}

function servedOf({ metadata: { labels = {}, annotations = {} } = {}, spec }: Service): ClusterService['served'] {
  const proxy = labels[LABEL_PROXY_NAME]
  const edgemesh = labels[LABEL_EDGEMESH] !== undefined
  const never =
    labels[LABEL_HEADLESS] !== undefined ||
    (spec?.type === 'LoadBalancer' && annotations[ANNOTATION_DISCARD] === 'true')
  const all = !never && (proxy === PROXY_NAME || (proxy === undefined && !edgemesh))
  const labelled = !never && (proxy === PROXY_NAME || (proxy === undefined && edgemesh))
  return all ? (labelled ? SERVED.both : SERVED.all) : labelled ? SERVED.labelled : SERVED.never
}
const SERVED = {
  both: { all: true, labelled: true },
  all: { all: true, labelled: false },
  labelled: { all: false, labelled: true },
  never: { all: false, labelled: false },
} as const

/** Endpoints meet the Service by the names of ports: one without a name, where the Service has names, is never met. */
function unnamedPorts({ namespace, name, ports, endpoints }: ClusterService): readonly string[] {
  if (ports.length === 0 || ports.some(({ name }) => name === '')) return NOTHING
  const unnamed = endpoints.find(({ ports }) => ports.some(({ name }) => name === ''))
  return unnamed === undefined
    ? NOTHING
    : [
        `service ${namespace}/${name}: endpoint ${unnamed.address} has a port without a name, which is no port of the service: ` +
          'it is left out; name the ports of its EndpointSlices like those of the Service',
      ]
}

const keyOf = ({ metadata }: Service) => `${metadata?.namespace}/${metadata?.name}`
