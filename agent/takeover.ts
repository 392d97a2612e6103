// The takeover of the cluster DNS: its ClusterIPs are answered by the agent's own DNS, by elements of the map `takeover` of
// nft-text.ts that lapse unless the living agent renews them.

import { writeAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { ElementChange } from '../lib/net/nft-elements.ts'
import { NFT_TABLE_AGENT } from '../lib/owned.ts'
import type { Cluster } from './cluster.ts'
import { findService } from './dns-zone.ts'

export type Takeover = {
  readonly family: Family
  /** The ClusterIP that is answered by the agent's own DNS at `to`, both port 53. */
  readonly clusterIp: string
  readonly to: string
}
/** A killed agent's takeover lapses after this. */
const TIMEOUT_SECONDS = 3
const PORT = 53
const PROTOCOLS = { udp: 17, tcp: 6 } as const

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

function changesOf(
  { family, clusterIp, to }: Takeover,
  kinds: readonly ElementChange['kind'][],
): readonly ElementChange[] {
  const [from, own] = [clusterIp, to].map((text) => {
    const bytes = Buffer.alloc(family === 4 ? 4 : 16)
    writeAddress(text, family, bytes, 0)
    return bytes
  }) as [Buffer, Buffer]
  const port = Buffer.from([PORT >> 8, PORT & 0xff])
  return Object.values(PROTOCOLS).flatMap((protocol) =>
    kinds.map((kind): ElementChange => ({
      ...{ kind, family, table: NFT_TABLE_AGENT, map: 'takeover' },
      key: [from, Buffer.from([protocol]), port],
      value: [own, port],
      timeoutMs: TIMEOUT_SECONDS * 1_000,
    })),
  )
}

/** Elements of the map `takeover`, in nft's words. */
export const takeoverElements = ({ clusterIp, to }: Takeover): readonly string[] =>
  Object.keys(PROTOCOLS).map(
    (protocol) => `${clusterIp} . ${protocol} . ${PORT} timeout ${TIMEOUT_SECONDS}s : ${to} . ${PORT}`,
  )
