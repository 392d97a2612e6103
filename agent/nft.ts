// Services as nft maps: one table per family, whose few rules never change and whose elements are the services.
//
//   services     ClusterIP . protocol . port → goto class-N, where N endpoints serve it; goto refuse where none does
//   endpoints-N  ClusterIP . protocol . port . random number below N → endpoint . port, one element per endpoint
//   takeover     the same key → the agent's DNS; elements lapse unless the living agent renews them
//
// This file says what the maps hold; nft-changes.ts how they change, nft-text.ts writes it, nft-observed.ts reads what a
// kernel has.
//
// A packet of a new connection costs two lookups, a change of one service a few elements, however many services there
// are (a chain per endpoint, as kube-proxy has it, loads super-linearly). Priority −101 comes before kube-proxy.

import { compareCidrs, overlaps, parseCidr, type Cidr, type Family } from '../lib/cidr.ts'
import type { PoolNode } from '../lib/k8s/pools.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { Cluster, ClusterService, Endpoint, Port, Protocol } from './cluster.ts'
import { reachable, type Here } from './topology.ts'

/** Key → value, as nft prints both; the value of a set's element is empty. */
export type Elements = ReadonlyMap<string, string>
export type Ruleset = {
  readonly family: Family
  /** The address that mesh routes have as `src`, which the node's own calls to other pools must come from. */
  readonly source: string | undefined
  /** Where this node's podCIDRs are known, so that pods can be told from callers outside of the cluster. */
  readonly masqueradeOutsiders: boolean
  readonly objects: ReadonlyMap<string, Elements>
}

export type RulesetOptions = {
  readonly here: Here
  /** This node's own addresses inside its podCIDRs, at most one per family. */
  readonly sources: readonly { readonly family: Family; readonly address: string }[]
}

/** More endpoints than this are left out, the last by address: an object per distinct count must stay bounded. */
export const ENDPOINTS_MAX = 1000

export function rulesetOf(cluster: Cluster, family: Family, { here, sources }: RulesetOptions): Ruleset {
  const services = new Map<string, string>()
  const clusterIps = new Map<string, string>()
  const hairpin = new Map<string, string>()
  const classes = new Map<number, Map<string, string>>()
  const owners = new Map<string, ClusterService>()
  for (const service of cluster.services) {
    if (service.kind !== 'virtual' || !service.served.all) continue
    const { byIp, local } = elementsOf(service, family, here)
    for (const pair of local) hairpin.set(pair, '')
    for (const { address, ports } of byIp) {
      // Two services on one address are named as a problem; the first has it.
      if ((owners.get(address) ?? service) !== service) continue
      owners.set(address, service)
      clusterIps.set(address, '')
      for (const { key, verdict, slots } of ports) {
        services.set(key, verdict)
        if (slots.length === 0) continue
        const elements = classes.get(slots.length) ?? new Map<string, string>()
        classes.set(slots.length, elements)
        for (const [slot, target] of slots) elements.set(slot, target)
      }
    }
  }
  const own = cluster.pools.find(({ nodes }) => nodes.some(({ name }) => name === here.node))
  return {
    family,
    source: sources.find((source) => source.family === family)?.address,
    masqueradeOutsiders: podCidrsOf(own?.nodes.filter(({ name }) => name === here.node) ?? [], family).length > 0,
    objects: new Map([
      ['services', services],
      ['cluster-ips', clusterIps],
      ['hairpin', hairpin],
      ['mesh', prefixesOf(cluster, family, () => true)],
      ['remote', prefixesOf(cluster, family, (pool) => pool !== own?.name)],
      ...[...classes].sort(([a], [b]) => a - b).map(([count, slots]) => [`endpoints-${count}`, slots] as const),
    ]),
  }
}

type PortElements = {
  readonly key: string
  readonly verdict: string
  readonly slots: readonly (readonly [key: string, target: string])[]
}
type ServiceElements = {
  readonly byIp: readonly { readonly address: string; readonly ports: readonly PortElements[] }[]
  readonly local: readonly string[]
}
/** What was made of a service stays for as long as neither it nor the neighbourhood changes. */
const made = new WeakMap<ClusterService, { readonly here: Here; readonly elements: Map<Family, ServiceElements> }>()

function elementsOf(service: ClusterService, family: Family, here: Here): ServiceElements {
  let known = made.get(service)
  if (known?.here !== here) made.set(service, (known = { here, elements: new Map() }))
  const elements = known.elements.get(family) ?? makeElements(service, family, here)
  known.elements.set(family, elements)
  return elements
}

function makeElements(service: ClusterService, family: Family, here: Here): ServiceElements {
  const endpoints = usable(service, here).filter((endpoint) => endpoint.family === family)
  const targets = service.ports.map((port) => targetsOf(endpoints, port))
  return {
    local: endpoints.filter(({ node }) => node === here.node).map(({ address }) => `${address} . ${address}`),
    byIp: service.clusterIps
      .filter((ip) => ip.family === family)
      .map(({ address }) => ({
        address,
        ports: service.ports.map(({ protocol, port }, i) => {
          const key = `${address} . ${protocolText[protocol]} . ${port}`
          const count = targets[i]!.length
          const verdict = count > 0 ? `goto class-${count}` : service.localOnly ? 'drop' : 'goto refuse'
          return { key, verdict, slots: targets[i]!.map((target, slot) => [`${key} . ${slot}`, target] as const) }
        }),
      })),
  }
}

/** Ready endpoints, else those that drain, among what topology and the service's own policy leave. */
function usable(service: ClusterService, here: Here): readonly Endpoint[] {
  const allowed = reachable(service, here).filter(({ node }) => !service.localOnly || node === here.node)
  const ready = allowed.filter((endpoint) => endpoint.ready)
  return ready.length > 0 ? ready : allowed.filter((endpoint) => endpoint.draining)
}

function targetsOf(endpoints: readonly Endpoint[], { name, protocol }: Port): readonly string[] {
  const targets = new Set<string>()
  for (const { address, ports } of endpoints)
    for (const port of ports)
      if (port.name === name && port.protocol === protocol) targets.add(`${address} . ${port.port}`)
  return targets.size <= ENDPOINTS_MAX ? [...targets] : [...targets].slice(0, ENDPOINTS_MAX)
}

/** Prefixes of pods; one that lies in another is left out, since intervals of a set may not overlap. */
function prefixesOf({ pools }: Cluster, family: Family, wanted: (pool: string) => boolean): Elements {
  const nodes = pools.filter(({ name }) => wanted(name)).flatMap(({ nodes }) => nodes)
  const cidrs = podCidrsOf(nodes, family).toSorted(compareCidrs)
  const outermost: Cidr[] = []
  for (const cidr of cidrs) if (outermost.length === 0 || !overlaps(outermost.at(-1)!, cidr)) outermost.push(cidr)
  return new Map(outermost.map(({ text }) => [text.replace(/\/(32|128)$/, ''), '']))
}

const podCidrsOf = (nodes: readonly PoolNode[], family: Family): readonly Cidr[] =>
  nodes
    .flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))
    .filter((cidr) => cidr.family === family)

const protocolText: Readonly<Record<Protocol, string>> = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' }

/** The number of endpoints of a class by the name of its map; undefined for other objects. */
export const classOf = (object: string): number | undefined =>
  object.startsWith('endpoints-') ? Number(object.slice('endpoints-'.length)) : undefined

/** nft's own words for a family, and for the agent's table of it. */
export const ipOf = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')
export const tableOf = (family: Family): string => `${ipOf(family)} ${NFT_TABLE_AGENT}`
