// The takeover of the cluster DNS: its ClusterIPs are answered by the agent's own DNS, by elements of the map `takeover` of
// nft-text.ts that lapse unless the living agent renews them.

import type { Family } from '../lib/cidr.ts'
import type { ElementChange } from '../lib/net/nft-batch.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { Cluster } from './cluster.ts'
import { findService } from './dns-zone.ts'
import { elementReader } from './nft-fields.ts'

export type Takeover = {
  readonly family: Family
  /** The ClusterIP that is answered by the agent's own DNS at `to`, both port 53. */
  readonly clusterIp: string
  readonly to: string
}
/** A killed agent's takeover lapses after this. */
const TIMEOUT_SECONDS = 3
const PORT = 53
const PROTOCOLS = ['udp', 'tcp'] as const
const MAP = 'takeover'

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

/** Renews. An element that is there keeps its old timeout when added, so it is deleted between. */
export const renewTakeover = (takeover: Takeover): readonly ElementChange[] =>
  changesOf(takeover, ['add', 'delete', 'add'])

/** Hands the ClusterIP back at once; works whether or not it was taken. */
export const endTakeover = (takeover: Takeover): readonly ElementChange[] => changesOf(takeover, ['add', 'delete'])

function changesOf(takeover: Takeover, kinds: readonly ElementChange['kind'][]): readonly ElementChange[] {
  const { family } = takeover
  const read = elementReader(MAP, family)!
  const elements = pairs(takeover).map(([key, value]) => ({ ...read(key, value), timeoutMs: TIMEOUT_SECONDS * 1_000 }))
  return kinds.map((kind) => ({ kind, family, table: NFT_TABLE_AGENT, set: MAP, elements }))
}

/** Elements of the map `takeover`, in nft's words. */
export const takeoverElements = (takeover: Takeover): readonly string[] =>
  pairs(takeover).map(([key, value]) => `${key} timeout ${TIMEOUT_SECONDS}s : ${value}`)

const pairs = ({ clusterIp, to }: Takeover): readonly (readonly [key: string, value: string])[] =>
  PROTOCOLS.map((protocol) => [`${clusterIp} . ${protocol} . ${PORT}`, `${to} . ${PORT}`])
