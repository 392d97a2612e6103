// What the agent's DNS answers for the cluster's names: a pure function of the snapshot, after the Kubernetes DNS
// specification 1.1. Headless services answer with the ready endpoints that topology leaves from here.

import type { DnsRecord } from '../lib/wire/dns.ts'
import type { Cluster, ClusterService, Endpoint, Port } from './cluster.ts'
import { endpointLabel, reverseNames, unDash } from './dns-names.ts'
import {
  addressRecords,
  bothFamilies,
  denied,
  failure,
  found,
  shuffled,
  soa,
  srvRecords,
  TTL,
  type ZoneAnswer,
} from './dns-records.ts'
import { readyEndpoints, type Here } from './topology.ts'

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
  | ZoneAnswer
  /** `answers` end at a name of another zone: its records are to be asked for and put behind them. */
  | { readonly kind: 'alias'; readonly answers: readonly DnsRecord[]; readonly target: string }
  /** No name of ours. */
  | { readonly kind: 'forward' }

const VERSION_TTL = 28_800
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
  if (isWithin(zone, lower))
    return zone.synced ? answerInZone({ zone, name, type, random, aliases: 0 }) : failure('SERVFAIL')
  const target = lower.endsWith('.arpa') ? zone.reverse().get(lower) : undefined
  if (target === undefined) return { kind: 'forward' }
  return found(zone.domain, type === 'PTR' ? [{ name, type: 'PTR', ttl: TTL, data: target }] : [])
}

const isWithin = ({ domain }: Zone, lower: string) => lower === domain || lower.endsWith(`.${domain}`)

type Question = {
  readonly zone: Zone
  /** As it was asked, which is how it is answered. */
  readonly name: string
  readonly type: string
  readonly random: () => number
  /** How many led here. */
  readonly aliases: number
}

function answerInZone(question: Question): DnsAnswer {
  const { zone, name, type } = question
  const { domain } = zone
  const below =
    name.length === domain.length
      ? []
      : name
          .slice(0, -domain.length - 1)
          .toLowerCase()
          .split('.')
  const [last, second, third, ...rest] = below.reverse()
  switch (last) {
    case undefined:
      return apex(question)
    case 'dns-version':
      if (second !== undefined) return denied(domain)
      return found(domain, type === 'TXT' ? [{ name, type: 'TXT', ttl: VERSION_TTL, data: '1.1.0' }] : [])
    case 'dns':
      if (second === undefined) return found(domain, [])
      return second === 'ns' && third === undefined
        ? found(domain, addressRecords(name, type, zone.servers))
        : denied(domain)
    case 'pod':
      return second === undefined ? found(domain, []) : podAnswer(question, second, third, rest)
    case 'svc': {
      if (second === undefined) return found(domain, [])
      if (third === undefined) return zone.namespaces.has(second) ? found(domain, []) : denied(domain)
      const service = zone.services.get(`${third}.${second}`)
      return service === undefined ? denied(domain) : serviceAnswer(question, service, rest)
    }
    default:
      return denied(domain)
  }
}

function apex({ zone: { domain, servers }, name, type }: Question): ZoneAnswer {
  if (type === 'SOA') return found(domain, [soa(domain, name)])
  if (type !== 'NS') return found(domain, [])
  const server = `ns.dns.${domain}`
  return found(domain, [{ name, type: 'NS', ttl: TTL, data: server }], bothFamilies(server, servers))
}

/** `10-244-1-5.shop.pod`: what the label says, for namespaces that exist (CoreDNS: `pods insecure`). */
function podAnswer(
  question: Question,
  namespace: string,
  label: string | undefined,
  deeper: readonly string[],
): ZoneAnswer {
  const { domain, namespaces } = question.zone
  if (!namespaces.has(namespace) || deeper.length > 0) return denied(domain)
  if (label === undefined) return found(domain, [])
  const address = unDash(label)
  return address === undefined ? denied(domain) : addresses(question, [address])
}

/** @param rest the labels below the service's name, the nearest first. */
function serviceAnswer(question: Question, service: ClusterService, rest: readonly string[]): DnsAnswer {
  const { domain, here } = question.zone
  const [nearest, farther, ...deeper] = rest
  if (service.kind === 'external') return nearest === undefined ? external(question, service) : denied(domain)
  const endpoints = readyEndpoints(service, here)
  if (nearest === undefined)
    return service.kind === 'virtual'
      ? addresses(
          question,
          service.clusterIps.map(({ address }) => address),
        )
      : addresses(question, shuffled(textOf(endpoints), question.random))
  if (!nearest.startsWith('_')) {
    if (farther !== undefined) return denied(domain)
    const named = endpoints.filter((endpoint) => endpointLabel(endpoint) === nearest)
    return addresses(question, shuffled(textOf(named), question.random))
  }
  const ports = service.ports.filter(({ name, protocol }) => name !== '' && `_${protocol.toLowerCase()}` === nearest)
  if (farther === undefined) return ports.length > 0 ? found(domain, []) : denied(domain)
  const port = deeper.length > 0 ? undefined : ports.find(({ name }) => `_${name}` === farther)
  return port === undefined ? denied(domain) : portAnswer(question, service, port, endpoints)
}

/** `_http._tcp.web.shop.svc`: where the port is served, with an address record for each family behind it. */
function portAnswer(
  { zone: { domain }, name, type, random }: Question,
  service: ClusterService,
  { name: portName, protocol, port }: Port,
  endpoints: readonly Endpoint[],
): ZoneAnswer {
  const base = `${service.name}.${service.namespace}.svc.${domain}`
  const targets =
    service.kind === 'virtual'
      ? [{ target: base, port, addresses: textOf(service.clusterIps) }]
      : endpoints.flatMap((endpoint) =>
          endpoint.ports
            .filter((served) => served.name === portName && served.protocol === protocol)
            .map((served) => ({
              target: `${endpointLabel(endpoint)}.${base}`,
              port: served.port,
              addresses: [endpoint.address],
            })),
        )
  if (targets.length === 0) return denied(domain)
  if (type !== 'SRV') return found(domain, [])
  return found(
    domain,
    shuffled(srvRecords(name, targets), random),
    targets.flatMap((each) => bothFamilies(each.target, each.addresses)),
  )
}

function external(question: Question, { externalName }: ClusterService): DnsAnswer {
  const { zone, name, type, aliases } = question
  if (externalName === '') return denied(zone.domain)
  const alias: DnsRecord = { name, type: 'CNAME', ttl: TTL, data: externalName }
  if (type === 'CNAME') return found(zone.domain, [alias])
  if (!isWithin(zone, externalName.toLowerCase())) return { kind: 'alias', answers: [alias], target: externalName }
  if (aliases >= ALIASES_MAX) return failure('SERVFAIL')
  const inner = answerInZone({ ...question, name: externalName, aliases: aliases + 1 })
  const failed = inner.kind === 'answer' && inner.rcode === 'SERVFAIL'
  return inner.kind === 'forward' || failed ? inner : { ...inner, answers: [alias, ...inner.answers] }
}

/** A name that has no address at all is not there; one that has some of the other family is, without records. */
function addresses({ zone: { domain }, name, type }: Question, all: readonly string[]): ZoneAnswer {
  return all.length > 0 ? found(domain, addressRecords(name, type, all)) : denied(domain)
}

const textOf = (list: readonly { readonly address: string }[]): readonly string[] => [
  ...new Set(list.map(({ address }) => address)),
]
