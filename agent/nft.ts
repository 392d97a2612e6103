// Services as nft maps: one table per family, whose few rules never change and whose elements are the services.
//
//   services     address . protocol . port → goto class-N, where N endpoints serve it; goto refuse where none does
//   endpoints-N  address . protocol . port . random number below N → endpoint . port, one element per endpoint and share
//   node-ports   protocol . port → the same for this node's own addresses, with node-endpoints-N
//
// This file says what is common to all services and where the rest comes from; nft-service.ts what one service has in
// the maps, nft-changes.ts how they change, nft-text.ts writes it for nft and nft-fields.ts for netlink, nft-load-loop.ts
// and nft-apply-loop.ts bring it into a kernel, nft-observed.ts reads what is there.
//
// A packet of a new connection costs two lookups, a change of one service a few elements, however many services there
// are (a chain per endpoint, as kube-proxy has it, loads super-linearly). Priority −101 comes before kube-proxy.

import { compareCidrs, overlaps, parseCidr, type Cidr, type Family } from '../lib/cidr.ts'
import type { Pool, PoolNode } from '../lib/k8s/pools.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { SortedList } from '../lib/sorted-list.ts'
import type { Balance, ServiceFrontends } from './balance.ts'
import type { Cluster } from './cluster.ts'
import type { Here } from './topology.ts'

/** Key → value, as nft prints both; the value of a set's element is empty. */
export type Elements = ReadonlyMap<string, string>
export type Ruleset = {
  readonly family: Family
  /** The address that mesh routes have as `src`, which the node's own calls to other pools must come from. */
  readonly source: string | undefined
  /** Where this node's podCIDRs are known, so that pods can be told from callers outside of the cluster. */
  readonly masqueradeOutsiders: boolean
  /** Prefixes of ClusterIPs: what is new and still goes there after everybody's DNAT goes nowhere. */
  readonly serviceCidrs: readonly string[]
  /** In the order of the cluster; those of the other family are skipped. */
  readonly services: SortedList<ServiceFrontends>
  /** What is there once, whatever the services. */
  readonly shared: ReadonlyMap<string, Elements>
}

export type RulesetInput = {
  readonly cluster: Pick<Cluster, 'pools'>
  readonly balance: Pick<Balance, 'services' | 'localTargets'>
  readonly here: Here
  /** This node's own addresses inside its podCIDRs, at most one per family. */
  readonly sources: readonly { readonly family: Family; readonly address: string }[]
  /** This node's addresses that have NodePorts, of both families. */
  readonly nodeAddresses: readonly string[]
  /** Prefixes of ClusterIPs, of both families; none where they are not known. */
  readonly serviceCidrs?: readonly string[]
}

/** Sets and maps that are always there, without those of classes. */
export const OBJECTS = [
  'services',
  'inside',
  'outside',
  'restricted',
  'source-ranges',
  'cluster-ips',
  'node-ports',
  'node-inside',
  'node-outside',
  'node-addresses',
  'hairpin',
  'mesh',
  'remote',
  'own-pods',
] as const

export function rulesetOf(input: RulesetInput, family: Family): Ruleset {
  const { cluster, balance, here, sources, nodeAddresses, serviceCidrs = [] } = input
  const { ownPods, ...prefixes } = prefixesOf(cluster.pools, here.node, family)
  return {
    family,
    source: sources.find((source) => source.family === family)?.address,
    masqueradeOutsiders: ownPods.size > 0,
    serviceCidrs: withoutInner(
      serviceCidrs.flatMap((text) => parseCidr(text) ?? []).filter((cidr) => cidr.family === family),
    ).map(prefixText),
    services: balance.services,
    shared: new Map([
      ['node-addresses', new Map(nodeAddresses.filter(isOf(family)).map((address) => [address, '']))],
      ['hairpin', hairpinOf(balance, family)],
      ['mesh', prefixes.mesh],
      ['remote', prefixes.remote],
      ['own-pods', ownPods],
    ]),
  }
}

/** Pods of this node that may reach themselves by way of a service. */
const hairpinOf = ({ localTargets }: Pick<Balance, 'localTargets'>, family: Family): Elements =>
  new Map(localTargets.filter(isOf(family)).map((address) => [`${address} . ${address}`, '']))

type Prefixes = { readonly mesh: Elements; readonly remote: Elements; readonly ownPods: Elements }
const prefixesRead = new WeakMap<readonly Pool[], Map<string, Prefixes>>()

function prefixesOf(pools: readonly Pool[], node: string, family: Family): Prefixes {
  const known = prefixesRead.get(pools) ?? new Map<string, Prefixes>()
  prefixesRead.set(pools, known)
  const key = `${family} ${node}`
  const read = known.get(key) ?? readPrefixes(pools, node, family)
  known.set(key, read)
  return read
}

function readPrefixes(pools: readonly Pool[], node: string, family: Family): Prefixes {
  const own = pools.find(({ nodes }) => nodes.some(({ name }) => name === node))
  const nodesOf = (wanted: (pool: Pool) => boolean) => pools.filter(wanted).flatMap(({ nodes }) => nodes)
  return {
    mesh: outermost(
      nodesOf(() => true),
      family,
    ),
    remote: outermost(
      nodesOf((pool) => pool !== own),
      family,
    ),
    ownPods: outermost(own?.nodes.filter(({ name }) => name === node) ?? [], family),
  }
}

/** Prefixes of pods; one that lies in another is left out, since intervals of a set may not overlap. */
function outermost(nodes: readonly PoolNode[], family: Family): Elements {
  const cidrs = nodes
    .flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))
    .filter((cidr) => cidr.family === family)
  return new Map(withoutInner(cidrs).map((cidr) => [prefixText(cidr), '']))
}

export function withoutInner(cidrs: readonly Cidr[]): readonly Cidr[] {
  const found: Cidr[] = []
  for (const cidr of cidrs.toSorted(compareCidrs))
    if (!overlaps(found.at(-1) ?? cidr, cidr) || found.length === 0) found.push(cidr)
  return found
}

/** As nft prints it: a single address without its length. */
export const prefixText = ({ text }: Cidr): string => text.replace(/\/(32|128)$/, '')
const isOf = (family: Family) => (address: string) => address.includes(':') === (family === 6)

/** Maps of endpoints and the chains that pick from them: `prefix` says what they are keyed by and who calls. */
export type EndpointClass = {
  readonly prefix: '' | 'inside-' | 'node-' | 'node-inside-'
  /** Slots: endpoints, each as often as its weight. */
  readonly count: number
}
/** undefined for other objects. */
export function classOf(object: string): EndpointClass | undefined {
  const [, prefix, count] = /^((?:node-)?(?:inside-)?)endpoints-(\d+)$/.exec(object) ?? []
  return prefix === undefined ? undefined : { prefix: prefix as EndpointClass['prefix'], count: Number(count) }
}
export const mapOf = ({ prefix, count }: EndpointClass): string => `${prefix}endpoints-${count}`

/** nft's own words for a family, and for the agent's table of it. */
export const ipOf = (family: Family): 'ip' | 'ip6' => (family === 4 ? 'ip' : 'ip6')
export const tableOf = (family: Family): string => `${ipOf(family)} ${NFT_TABLE_AGENT}`
