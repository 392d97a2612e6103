// The takeover of the cluster DNS: its ClusterIPs are answered by the agent's own DNS, by a table of its own per family. A
// dead agent's table goes with the socket that made it, whoever killed it; a hung agent's elements lapse unless they are
// renewed.
//
// What it leads to the agent is tracked in a zone of conntrack of its own: a client that asks again from the same port
// begins a new flow, to the cluster's own DNS when the table is gone, and to the agent when it is back.

import type { Family } from '../lib/cidr.ts'
import type { Element, ElementChange } from '../lib/net/nft-batch.ts'
import type { NftChain, NftTable } from '../lib/net/nft-table.ts'
import { DNS_ZONE, NFT_TABLE_DNS } from '../lib/owned.ts'
import type { Cluster } from './cluster.ts'
import { findService } from './dns-zone.ts'
import { elementReader } from './nft-fields.ts'

export type Takeover = {
  readonly family: Family
  /** The ClusterIP that is answered by the agent's own DNS at `to`, both port 53. */
  readonly clusterIp: string
  readonly to: string
}
/** A hung agent's takeover lapses after this. */
export const TIMEOUT_SECONDS = 3
const PORT = 53
const PROTOCOLS = ['udp', 'tcp'] as const
/** From ClusterIPs to the agent's DNS. */
const MAP = 'takeover'
/** The ClusterIPs, and the agent's DNS itself: who asks there is answered from there, in the same zone. */
const APART = 'apart'

/** The cluster DNS's ClusterIPs, each answered by our address of the same family; nothing while it is not known or served. */
export function takeoversOf(
  cluster: Cluster | undefined,
  service: { readonly namespace: string; readonly name: string } | undefined,
  listening: readonly string[],
): readonly Takeover[] {
  const found = cluster && service && findService(cluster.services, service.namespace, service.name)
  return (found?.clusterIps ?? []).flatMap(({ family, address }) => {
    const to = listening.find((own) => own.includes(':') === (family === 6))
    return to === undefined ? [] : [{ family, clusterIp: address, to }]
  })
}

/**
 * @param apart whether the table is its maker's own and its flows are in a zone of their own, which kernels from 5.12 on do;
 * without, it outlives the agent by the time-out of its elements.
 */
export function takeoverTable(family: Family, apart: boolean): NftTable {
  const zone = (of: 'source' | 'destination') => ({ kind: 'zone', of, port: PORT, set: APART, zone: DNS_ZONE }) as const
  const early = { type: 'filter', priority: RAW_PRIORITY } as const
  const dispatch = { type: 'nat', priority: NAT_PRIORITY, rules: [{ kind: 'translate', map: MAP }] } as const
  const zones: readonly NftChain[] = [
    { name: 'zone-prerouting', hook: 'prerouting', ...early, rules: [zone('destination')] },
    // Answers are the agent's, and leave from this node.
    { name: 'zone-output', hook: 'output', ...early, rules: [zone('destination'), zone('source')] },
  ]
  return {
    family,
    name: NFT_TABLE_DNS,
    owned: apart,
    sets: [
      { name: MAP, key: ['address', 'protocol', 'port'], value: ['address', 'port'] },
      { name: APART, key: ['address', 'protocol', 'port'] },
    ],
    chains: [
      ...(apart ? zones : []),
      { name: 'nat-prerouting', hook: 'prerouting', ...dispatch },
      { name: 'nat-output', hook: 'output', ...dispatch },
    ],
  }
}
/** Before connection tracking. */
const RAW_PRIORITY = -300
/** Before the services of nft-text.ts, which know the cluster DNS as one of them. */
const NAT_PRIORITY = -102

/** What stays in the table for as long as it is there. */
export const beginTakeover = ({ family, to }: Takeover): readonly ElementChange[] => [
  { kind: 'add', ...into(APART, family), elements: elementsOf(APART, family, to) },
]

/** Renews. An element that is there keeps its old timeout when added, so it is deleted between. */
export const renewTakeover = (takeover: Takeover): readonly ElementChange[] =>
  changesOf(takeover, ['add', 'delete', 'add'])

/** Hands the ClusterIP back at once; works whether or not it was taken. */
export const endTakeover = (takeover: Takeover): readonly ElementChange[] => changesOf(takeover, ['add', 'delete'])

function changesOf({ family, clusterIp, to }: Takeover, kinds: readonly ElementChange['kind'][]) {
  const lapsing = (elements: readonly Element[]) =>
    elements.map((each) => ({ ...each, timeoutMs: TIMEOUT_SECONDS * 1_000 }))
  const led = { ...into(MAP, family), elements: lapsing(elementsOf(MAP, family, clusterIp, to)) }
  const apart = { ...into(APART, family), elements: lapsing(elementsOf(APART, family, clusterIp)) }
  return kinds.flatMap((kind): ElementChange[] => [
    { kind, ...led },
    { kind, ...apart },
  ])
}

const into = (set: string, family: Family) => ({ family, table: NFT_TABLE_DNS, set }) as const
function elementsOf(set: string, family: Family, from: string, to?: string): readonly Element[] {
  const read = elementReader(set, family)!
  return PROTOCOLS.map((protocol) => read(`${from} . ${protocol} . ${PORT}`, to === undefined ? '' : `${to} . ${PORT}`))
}
