// What the agent's DNS answers for the cluster's names: a pure function of the snapshot, after the Kubernetes DNS
// specification 1.1, and as CoreDNS does where that leaves room. Headless services answer with the ready endpoints that
// topology leaves from here.

import { isIP } from 'node:net'
import type { DnsRecord } from '../lib/wire/dns.ts'
import { isName } from '../lib/wire/dns-name.ts'
import type { ClusterService, Endpoint, Port } from './cluster.ts'
import { nameOf, readReverse, unDash, type Members } from './dns-names.ts'
import {
  addressRecords,
  bothFamilies,
  denied,
  failure,
  found,
  minimalAny,
  sample,
  soa,
  srvRecords,
  TTL,
  type ZoneAnswer,
} from './dns-records.ts'
import { domainOf, findService, hasNamespace, type Zone } from './dns-zone.ts'

export type DnsAnswer =
  | ZoneAnswer
  /** `answers` end at a name of another zone: its records are to be asked for and put behind them. */
  | { readonly kind: 'alias'; readonly answers: readonly DnsRecord[]; readonly target: string }
  /** No name of ours. */
  | { readonly kind: 'forward' }

const VERSION_TTL = 28_800
/** Aliases of aliases that are followed within the cluster. */
const ALIASES_MAX = 8

/**
 * @param type a mnemonic; unknown ones find names without records.
 * @param random in [0, 1): the order of a headless service's endpoints.
 * @param room bytes of the message: of thousands of endpoints so many are taken that it overflows, and no more.
 */
export function answer(zone: Zone, name: string, type: string, random: () => number, room = Infinity): DnsAnswer {
  const lower = name.toLowerCase()
  const domain = domainOf(zone, lower)
  if (domain === undefined) return answerReverse(zone, name, lower, type)
  if (!zone.synced) return failure('SERVFAIL')
  const answered = answerInZone({ zone, domain, name, lower, type, random, room, aliases: 0 })
  const isBare = answered.kind === 'answer' && answered.rcode === 'NOERROR' && answered.answers.length === 0
  return type === 'ANY' && isBare ? found(domain, [minimalAny(name)]) : answered
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
  readonly room: number
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
  if (nearest === undefined && service.kind === 'virtual')
    return question.type === 'SRV'
      ? srvAnswer(question, service, 'service')
      : addresses(question, textOf(service.clusterIps))
  const members = zone.members(service)
  if (nearest === undefined)
    return question.type === 'SRV' ? srvAnswer(question, service, members.all) : memberAddresses(question, members)
  if (!nearest.startsWith('_')) {
    const named = farther === undefined ? members.byLabel().get(nearest) : undefined
    if (named === undefined) return denied(domain)
    return question.type === 'SRV' ? srvAnswer(question, service, named) : addresses(question, textOf(named))
  }
  const ports = service.ports.filter(({ name, protocol }) => name !== '' && `_${protocol.toLowerCase()}` === nearest)
  if (farther === undefined) return ports.length > 0 ? found(domain, []) : denied(domain)
  const port = deeper.length > 0 ? undefined : ports.find(({ name }) => `_${name.toLowerCase()}` === farther)
  if (port === undefined) return denied(domain)
  if (service.kind === 'virtual') {
    if (question.type === 'SRV') return srvAnswer(question, service, 'service', port)
    return addresses(question, textOf(service.clusterIps))
  }
  const serving = members.all.filter(({ ports }) => ports.some((served) => isSame(served, port)))
  if (serving.length === 0) return denied(domain)
  return question.type === 'SRV'
    ? srvAnswer(question, service, serving, port)
    : addresses(question, sample(textOf(serving), fitting(question, ADDRESS_BYTES), question.random))
}

const isSame = (a: Port, b: Port): boolean => a.name === b.name && a.protocol === b.protocol

/** The least that records take, with a pointer for their name, and an SRV record beside the name of the service. */
const ADDRESS_BYTES = 16
const SRV_BYTES = 20
const fitting = ({ room }: Question, recordBytes: number): number => Math.ceil(room / recordBytes)

/** A headless service by its own name. */
function memberAddresses(question: Question, { v4, v6 }: Members): ZoneAnswer {
  const { domain, type, random } = question
  if (v4.length + v6.length === 0) return denied(domain)
  const all = type === 'A' ? v4 : type === 'AAAA' ? v6 : []
  return found(domain, addressRecords(question.name, type, sample(all, fitting(question, ADDRESS_BYTES), random)))
}

/**
 * Where ports are served, with an address record for each family behind them. All ports, named or not, where none is
 * asked for, as with CoreDNS.
 * @param owners the service's own address, or these endpoints by their own names; none is a name that is not there.
 */
function srvAnswer(
  question: Question,
  service: ClusterService,
  owners: 'service' | readonly Endpoint[],
  only?: Port,
): ZoneAnswer {
  const { domain, name, random } = question
  const isMeant = (port: Port): boolean => only === undefined || isSame(port, only)
  if (owners === 'service') {
    const ports = service.ports.filter(isMeant)
    if (service.clusterIps.length === 0) return denied(domain)
    if (ports.length === 0) return found(domain, [])
    const target = nameOf({ service, endpoint: undefined }, domain)
    const targets = ports.map(({ port }) => ({ target, port }))
    return found(domain, srvRecords(name, targets, targets.length), bothFamilies(target, textOf(service.clusterIps)))
  }
  if (owners.length === 0) return denied(domain)
  const serving = owners.filter(({ ports }) => ports.some(isMeant))
  if (serving.length === 0) return found(domain, [])
  const bytes = SRV_BYTES + nameOf({ service, endpoint: undefined }, domain).length
  const some = sample(serving, fitting(question, bytes), random).map((endpoint) => ({
    target: nameOf({ service, endpoint }, domain),
    address: endpoint.address,
    ports: endpoint.ports.filter(isMeant),
  }))
  const targets = some.flatMap(({ target, ports }) => ports.map(({ port }) => ({ target, port })))
  const truncated = some.length < serving.length
  // Endpoints of one service have the same ports, mostly.
  const total = truncated ? Math.floor((targets.length * serving.length) / some.length) : 0
  const glue = truncated ? [] : [...new Map(some.map((each) => [`${each.target} ${each.address}`, each])).values()]
  const records = glue.flatMap(({ target, address }) => bothFamilies(target, [address]))
  return { ...found(domain, srvRecords(name, targets, total), records), truncated }
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
