// What the agent's DNS answers for the cluster's names: a pure function of the snapshot, after the Kubernetes DNS
// specification 1.1. Headless services answer with the ready endpoints that topology leaves from here.

import type { DnsRecord, DnsResponse, Rcode } from '../lib/wire/dns.ts'
import type { Cluster, ClusterService } from './cluster.ts'
import type { Here } from './topology.ts'
import { endpointLabel, ready, reverseNames, unDash } from './dns-names.ts'

export type Zone = {
  /** In lower case, without dots at its ends, such as `cluster.local`. */
  readonly domain: string
  /** The agent's own addresses, which the zone names as its servers. */
  readonly servers: readonly string[]
  readonly here: Here
  /** False until services and endpoints are known: an unknown name must not be denied. */
  readonly synced: boolean
  readonly services: ReadonlyMap<string, ClusterService>
  readonly namespaces: ReadonlySet<string>
  /** Reverse names to the names of services and endpoints; made when first asked for. */
  readonly reverse: () => ReadonlyMap<string, string>
}

export type DnsAnswer =
  | ({ readonly kind: 'answer' } & Omit<DnsResponse, 'authoritative'>)
  /** `answers` end at a name of another zone: its records are to be asked for and put behind them. */
  | { readonly kind: 'alias'; readonly answers: readonly DnsRecord[]; readonly target: string }
  /** No name of ours. */
  | { readonly kind: 'forward' }

/** Seconds; kubelet and CoreDNS have the same. */
export const TTL = 5
const TTL_VERSION = 28_800
/** Aliases of aliases that are followed within the cluster. */
const ALIASES_MAX = 8

export type ZoneInput = {
  readonly cluster: Cluster | undefined
  readonly here: Here
  readonly domain: string
  readonly servers: readonly string[]
}

export function zoneOf({ cluster, here, domain, servers }: ZoneInput): Zone {
  const services = cluster?.services ?? []
  let reverse: ReadonlyMap<string, string> | undefined
  return {
    domain,
    servers,
    here,
    synced: cluster !== undefined,
    services: new Map(services.map((service) => [`${service.name}.${service.namespace}`, service])),
    namespaces: new Set(services.map(({ namespace }) => namespace)),
    reverse: () => (reverse ??= reverseNames(services, here, domain)),
  }
}

/**
 * @param type a mnemonic; unknown ones find names without records.
 * @param random in [0, 1): the order of a headless service's endpoints.
 */
export function answer(zone: Zone, name: string, type: string, random: () => number): DnsAnswer {
  const lower = name.toLowerCase()
  if (lower === zone.domain || lower.endsWith(`.${zone.domain}`)) {
    if (!zone.synced) return failure('SERVFAIL')
    const labels = lower === zone.domain ? [] : lower.slice(0, -zone.domain.length - 1).split('.')
    return answerInZone(zone, name, labels, type, random, 0)
  }
  if (lower.endsWith('.arpa')) {
    const target = zone.reverse().get(lower)
    if (target === undefined) return { kind: 'forward' }
    return type === 'PTR' ? records(zone, [{ name, type: 'PTR', ttl: TTL, data: target }]) : records(zone, [])
  }
  return { kind: 'forward' }
}

function answerInZone(
  zone: Zone,
  name: string,
  labels: readonly string[],
  type: string,
  random: () => number,
  depth: number,
): DnsAnswer {
  const [last, second, third, ...rest] = labels.toReversed()
  switch (last) {
    case undefined:
      return apex(zone, name, type)
    case 'dns-version':
      if (second !== undefined) return denied(zone)
      return records(zone, type === 'TXT' ? [{ name, type: 'TXT', ttl: TTL_VERSION, data: '1.1.0' }] : [])
    case 'dns':
      if (second === undefined) return records(zone, [])
      return second === 'ns' && third === undefined
        ? records(zone, addressRecords(name, type, zone.servers))
        : denied(zone)
    case 'pod':
      return second === undefined ? records(zone, []) : podAnswer(zone, name, type, second, third, rest)
    case 'svc': {
      if (second === undefined) return records(zone, [])
      if (third === undefined) return zone.namespaces.has(second) ? records(zone, []) : denied(zone)
      const service = zone.services.get(`${third}.${second}`)
      return service === undefined ? denied(zone) : serviceAnswer(zone, name, service, rest, type, random, depth)
    }
    default:
      return denied(zone)
  }
}

/** @param rest the labels below the service's name, the nearest first. */
function serviceAnswer(
  zone: Zone,
  name: string,
  service: ClusterService,
  rest: readonly string[],
  type: string,
  random: () => number,
  depth: number,
): DnsAnswer {
  const [nearest, farther, ...deeper] = rest
  if (service.kind === 'external')
    return nearest === undefined ? external(zone, name, service, type, random, depth) : denied(zone)
  const endpoints = ready(service, zone.here)
  if (nearest === undefined) {
    if (service.kind === 'virtual')
      return service.clusterIps.length > 0
        ? records(
            zone,
            addressRecords(
              name,
              type,
              service.clusterIps.map(({ address }) => address),
            ),
          )
        : denied(zone)
    const addresses = [...new Set(endpoints.map(({ address }) => address))]
    return addresses.length > 0 ? records(zone, shuffled(addressRecords(name, type, addresses), random)) : denied(zone)
  }
  if (!nearest.startsWith('_')) {
    if (farther !== undefined) return denied(zone)
    const named = endpoints.filter((endpoint) => endpointLabel(endpoint) === nearest)
    const addresses = [...new Set(named.map(({ address }) => address))]
    return addresses.length > 0 ? records(zone, shuffled(addressRecords(name, type, addresses), random)) : denied(zone)
  }
  const ports = service.ports.filter((port) => port.name !== '' && `_${port.protocol.toLowerCase()}` === nearest)
  if (farther === undefined) return ports.length > 0 ? records(zone, []) : denied(zone)
  const port = deeper.length > 0 ? undefined : ports.find((candidate) => `_${candidate.name}` === farther)
  if (port === undefined) return denied(zone)
  const base = `${service.name}.${service.namespace}.svc.${zone.domain}`
  if (service.kind === 'virtual') {
    const srv: DnsRecord = {
      name,
      type: 'SRV',
      ttl: TTL,
      data: { priority: 0, weight: 100, port: port.port, target: base },
    }
    const glue = bothFamilies(
      base,
      service.clusterIps.map(({ address }) => address),
    )
    return type === 'SRV' ? { ...records(zone, [srv]), additionals: glue } : records(zone, [])
  }
  const targets = endpoints.flatMap((endpoint) =>
    endpoint.ports
      .filter((candidate) => candidate.name === port.name && candidate.protocol === port.protocol)
      .map((candidate) => ({
        target: `${endpointLabel(endpoint)}.${base}`,
        port: candidate.port,
        address: endpoint.address,
      })),
  )
  if (targets.length === 0) return denied(zone)
  if (type !== 'SRV') return records(zone, [])
  // One record for a target and port, with an address record for each family behind it.
  const unique = [...new Map(targets.map((target) => [`${target.target} ${target.port}`, target])).values()]
  const weight = Math.max(1, Math.floor(100 / unique.length))
  const srvs = unique.map(({ target, port }): DnsRecord => ({
    name,
    type: 'SRV',
    ttl: TTL,
    data: { priority: 0, weight, port, target },
  }))
  return {
    ...records(zone, shuffled(srvs, random)),
    additionals: targets.flatMap(({ target, address }) => bothFamilies(target, [address])),
  }
}

function external(
  zone: Zone,
  name: string,
  { externalName }: ClusterService,
  type: string,
  random: () => number,
  depth: number,
): DnsAnswer {
  if (externalName === '') return denied(zone)
  const alias: DnsRecord = { name, type: 'CNAME', ttl: TTL, data: externalName }
  if (type === 'CNAME') return records(zone, [alias])
  const lower = externalName.toLowerCase()
  if (!lower.endsWith(`.${zone.domain}`)) return { kind: 'alias', answers: [alias], target: externalName }
  if (depth >= ALIASES_MAX) return failure('SERVFAIL')
  const labels = lower.slice(0, -zone.domain.length - 1).split('.')
  const inner = answerInZone(zone, externalName, labels, type, random, depth + 1)
  const failed = inner.kind === 'answer' && inner.rcode === 'SERVFAIL'
  return inner.kind === 'forward' || failed ? inner : { ...inner, answers: [alias, ...inner.answers] }
}

/** `10-244-1-5.shop.pod`: what the label says, for namespaces that exist (CoreDNS: `pods insecure`). */
function podAnswer(
  zone: Zone,
  name: string,
  type: string,
  namespace: string,
  label: string | undefined,
  rest: readonly string[],
): DnsAnswer {
  if (!zone.namespaces.has(namespace) || rest.length > 0) return denied(zone)
  if (label === undefined) return records(zone, [])
  const address = unDash(label)
  return address === undefined ? denied(zone) : records(zone, addressRecords(name, type, [address]))
}

function apex(zone: Zone, name: string, type: string): DnsAnswer {
  if (type === 'SOA') return records(zone, [soa(zone, name)])
  if (type !== 'NS') return records(zone, [])
  const server = `ns.dns.${zone.domain}`
  return {
    ...records(zone, [{ name, type: 'NS', ttl: TTL, data: server }]),
    additionals: bothFamilies(server, zone.servers),
  }
}

// === records ===

/** Names without records of the type say so with the zone's SOA, which caches need (RFC 2308). */
function records(zone: Zone, answers: readonly DnsRecord[]): DnsAnswer & { kind: 'answer' } {
  return {
    kind: 'answer',
    rcode: 'NOERROR',
    answers,
    authorities: answers.length > 0 ? [] : [soa(zone)],
    additionals: [],
  }
}

const denied = (zone: Zone): DnsAnswer => ({
  kind: 'answer',
  rcode: 'NXDOMAIN',
  answers: [],
  authorities: [soa(zone)],
  additionals: [],
})
const failure = (rcode: Rcode): DnsAnswer => ({ kind: 'answer', rcode, answers: [], authorities: [], additionals: [] })

function soa({ domain }: Zone, name = domain): DnsRecord {
  const mname = `ns.dns.${domain}`
  const data = {
    mname,
    rname: `hostmaster.${domain}`,
    serial: 1,
    refresh: 7200,
    retry: 1800,
    expire: 86_400,
    minimum: TTL,
  }
  return { name, type: 'SOA', ttl: TTL, data }
}

function addressRecords(name: string, type: string, addresses: readonly string[]): readonly DnsRecord[] {
  if (type !== 'A' && type !== 'AAAA') return []
  return addresses
    .filter((address) => address.includes(':') === (type === 'AAAA'))
    .map((data) => ({ name, type, ttl: TTL, data }))
}

const bothFamilies = (name: string, addresses: readonly string[]): readonly DnsRecord[] => [
  ...addressRecords(name, 'A', addresses),
  ...addressRecords(name, 'AAAA', addresses),
]

function shuffled<T>(items: readonly T[], random: () => number): readonly T[] {
  const copy = [...items]
  for (let i = copy.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    ;[copy[i], copy[j]] = [copy[j]!, copy[i]!]
  }
  return copy
}
