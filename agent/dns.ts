// What the agent's DNS answers for the cluster's names: a pure function of the snapshot, after the Kubernetes DNS
// specification 1.1, and as CoreDNS does where that leaves room. Headless services answer with the ready endpoints that
// topology leaves from here.

import { isIP } from 'node:net'
import type { DnsRecord } from '../lib/wire/dns.ts'
import { isName } from '../lib/wire/dns-name.ts'
import type { Cluster, ClusterService, Endpoint, Port } from './cluster.ts'
import { endpointLabel, nameOf, namedAddresses, readReverse, unDash, type Named } from './dns-names.ts'
import {
  addressRecords,
  bothFamilies,
  denied,
  failure,
  found,
  minimalAny,
  shuffled,
  soa,
  srvRecords,
  TTL,
  type ZoneAnswer,
} from './dns-records.ts'
import { readyEndpoints, type Here } from './topology.ts'

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
  readonly services: readonly ClusterService[]
  /** Made when first asked for. */
  readonly byAddress: () => ReadonlyMap<string, readonly Named[]>
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
  readonly cluster: Pick<Cluster, 'services'> | undefined
  readonly here: Here
  readonly domains: readonly string[]
  readonly servers: readonly string[]
  readonly pods?: PodNames
}

export function zoneOf({ cluster, here, domains, servers, pods = 'insecure' }: ZoneInput): Zone {
  const services = cluster?.services ?? []
  let named: ReadonlyMap<string, readonly Named[]> | undefined
  return {
    domains,
    servers,
    pods,
    here,
    synced: cluster !== undefined,
    services,
    byAddress: () => (named ??= namedAddresses(services, here)),
  }
}

/**
 * @param type a mnemonic; unknown ones find names without records.
 * @param random in [0, 1): the order of a headless service's endpoints.
 */
export function answer(zone: Zone, name: string, type: string, random: () => number): DnsAnswer {
  const lower = name.toLowerCase()
  const domain = domainOf(zone, lower)
  if (domain === undefined) return answerReverse(zone, name, lower, type)
  if (!zone.synced) return failure('SERVFAIL')
  const answered = answerInZone({ zone, domain, name, lower, type, random, aliases: 0 })
  const isBare = answered.kind === 'answer' && answered.rcode === 'NOERROR' && answered.answers.length === 0
  return type === 'ANY' && isBare ? found(domain, [minimalAny(name)]) : answered
}

/** The nearest of our domains. */
function domainOf({ domains }: Zone, lower: string): string | undefined {
  let nearest: string | undefined
  for (const domain of domains)
    if (
      (lower === domain || (lower.endsWith(domain) && lower[lower.length - domain.length - 1] === '.')) &&
      domain.length > (nearest?.length ?? 0)
    )
      nearest = domain
  return nearest
}

/** Addresses that nobody in the cluster has are asked of others. */
function answerReverse(zone: Zone, name: string, lower: string, type: string): DnsAnswer {
  const reverse = readReverse(lower)
  if (reverse?.address === undefined) return { kind: 'forward' }
  if (!zone.synced) return failure('SERVFAIL')
  const named = zone.byAddress().get(reverse.address)
  if (named === undefined) return { kind: 'forward' }
  const records = named.map((each): DnsRecord => ({
    name,
    type: 'PTR',
    ttl: TTL,
    data: nameOf(each, zone.domains[0]!),
  }))
  return found(reverse.zone, type === 'PTR' ? records : [])
}

type Question = {
  readonly zone: Zone
  /** The one of its domains that the name lies in. */
  readonly domain: string
  /** As it was asked, which is how it is answered. */
  readonly name: string
  readonly lower: string
  readonly type: string
  readonly random: () => number
  /** How many led here. */
  readonly aliases: number
}

function answerInZone(question: Question): DnsAnswer {
  const { zone, domain, name, lower, type } = question
  const below = lower.length === domain.length ? [] : lower.slice(0, -domain.length - 1).split('.')
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
      if (third === undefined) return hasNamespace(zone.services, second) ? found(domain, []) : denied(domain)
      const service = findService(zone.services, second, third)
      return service === undefined ? denied(domain) : serviceAnswer(question, service, rest)
    }
    default:
      return denied(domain)
  }
}

function apex({ zone: { servers }, domain, name, type }: Question): ZoneAnswer {
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
  const { zone, domain } = question
  if (zone.pods === 'disabled' || !hasNamespace(zone.services, namespace) || deeper.length > 0) return denied(domain)
  if (label === undefined) return found(domain, [])
  const address = unDash(label)
  return address === undefined ? denied(domain) : addresses(question, [address])
}

/** @param rest the labels below the service's name, the nearest first. */
function serviceAnswer(question: Question, service: ClusterService, rest: readonly string[]): DnsAnswer {
  const { zone, domain } = question
  const [nearest, farther, ...deeper] = rest
  if (service.kind === 'external') return nearest === undefined ? external(question, service) : denied(domain)
  if (nearest === undefined) return hostAnswer(question, service, undefined)
  const endpoints = readyEndpoints(service, zone.here)
  if (!nearest.startsWith('_')) {
    if (farther !== undefined) return denied(domain)
    const named = endpoints.filter((endpoint) => endpointLabel(endpoint) === nearest)
    return named.length > 0 ? hostAnswer(question, service, named) : denied(domain)
  }
  const ports = service.ports.filter(({ name, protocol }) => name !== '' && `_${protocol.toLowerCase()}` === nearest)
  if (farther === undefined) return ports.length > 0 ? found(domain, []) : denied(domain)
  const port = deeper.length > 0 ? undefined : ports.find(({ name }) => `_${name.toLowerCase()}` === farther)
  return port === undefined ? denied(domain) : targetsAnswer(question, targetsOf(question, service, endpoints, port))
}

/** A service by its own name, or some of its endpoints by theirs. SRV then has all ports, as with CoreDNS. */
function hostAnswer(question: Question, service: ClusterService, named: readonly Endpoint[] | undefined): ZoneAnswer {
  const { zone, type, random } = question
  const endpoints = named ?? (service.kind === 'virtual' ? [] : readyEndpoints(service, zone.here))
  const own = named === undefined && service.kind === 'virtual' ? service.clusterIps : endpoints
  if (type !== 'SRV' || own.length === 0) return addresses(question, shuffled(textOf(own), random))
  const targets = targetsOf(question, named === undefined ? service : { ...service, kind: 'headless' }, endpoints)
  return targets.length > 0 ? targetsAnswer(question, targets) : found(question.domain, [])
}

type Target = { readonly target: string; readonly port: number; readonly addresses: readonly string[] }

/** @param only the one that is asked for; all where it is undefined. */
function targetsOf(
  { domain }: Question,
  service: ClusterService,
  endpoints: readonly Endpoint[],
  only?: Port,
): readonly Target[] {
  const isMeant = ({ name, protocol }: Port): boolean =>
    only === undefined || (only.name === name && only.protocol === protocol)
  if (service.kind === 'virtual') {
    const target = nameOf({ service, endpoint: undefined }, domain)
    const all = textOf(service.clusterIps)
    return service.ports.filter(isMeant).map(({ port }) => ({ target, port, addresses: all }))
  }
  return endpoints.flatMap((endpoint) => {
    const target = nameOf({ service, endpoint }, domain)
    return endpoint.ports.filter(isMeant).map(({ port }) => ({ target, port, addresses: [endpoint.address] }))
  })
}

/** `_http._tcp.web.shop.svc`: where the port is served, with an address record for each family behind it. */
function targetsAnswer(question: Question, targets: readonly Target[]): ZoneAnswer {
  const { domain, name, type, random } = question
  if (type !== 'SRV')
    return addresses(question, shuffled([...new Set(targets.flatMap((each) => each.addresses))], random))
  const glue = new Map(
    targets.flatMap(({ target, addresses }) => addresses.map((each) => [`${target} ${each}`, { target, each }])),
  )
  return targets.length === 0
    ? denied(domain)
    : found(
        domain,
        shuffled(srvRecords(name, targets), random),
        [...glue.values()].flatMap(({ target, each }) => bothFamilies(target, [each])),
      )
}

function external(question: Question, { externalName }: ClusterService): DnsAnswer {
  const { zone, domain, name, type, aliases } = question
  // An address is no name, though the API takes it for one.
  if (!isName(externalName) || isIP(externalName) !== 0) return denied(domain)
  const alias: DnsRecord = { name, type: 'CNAME', ttl: TTL, data: externalName }
  if (type === 'CNAME' || type === 'ANY') return found(domain, [alias])
  const lower = externalName.toLowerCase()
  const inner = domainOf(zone, lower)
  if (inner === undefined) return { kind: 'alias', answers: [alias], target: externalName }
  if (aliases >= ALIASES_MAX) return failure('SERVFAIL')
  const next = answerInZone({ ...question, domain: inner, name: externalName, lower, aliases: aliases + 1 })
  const failed = next.kind === 'answer' && next.rcode === 'SERVFAIL'
  return next.kind === 'forward' || failed ? next : { ...next, answers: [alias, ...next.answers] }
}

/** A name that has no address at all is not there; one that has some of the other family is, without records. */
function addresses({ domain, name, type }: Question, all: readonly string[]): ZoneAnswer {
  return all.length > 0 ? found(domain, addressRecords(name, type, all)) : denied(domain)
}

const textOf = (list: readonly { readonly address: string }[]): readonly string[] => [
  ...new Set(list.map(({ address }) => address)),
]

function findService(services: readonly ClusterService[], namespace: string, name: string): ClusterService | undefined {
  const found = services[lowerBound(services, namespace, name)]
  return found?.namespace === namespace && found.name === name ? found : undefined
}

const hasNamespace = (services: readonly ClusterService[], namespace: string): boolean =>
  services[lowerBound(services, namespace, '')]?.namespace === namespace

/** The first service that does not come before these. */
function lowerBound(services: readonly ClusterService[], namespace: string, name: string): number {
  let [low, high] = [0, services.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    const service = services[middle]!
    const before = service.namespace === namespace ? service.name < name : service.namespace < namespace
    if (before) low = middle + 1
    else high = middle
  }
  return low
}
