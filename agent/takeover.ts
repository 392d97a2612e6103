// The takeover of the cluster DNS: its ClusterIPs are answered by the agent's own DNS, by elements of the map `takeover` of
// nft-text.ts that lapse unless the living agent renews them.

import type { Family } from '../lib/cidr.ts'
import type { Cluster } from './cluster.ts'
import { findService } from './dns-zone.ts'
import { tableOf } from './nft.ts'

export type Takeover = {
  readonly family: Family
  /** The ClusterIP that is answered by the agent's own DNS at `to`, both port 53. */
  readonly clusterIp: string
  readonly to: string
}
/** A killed agent's takeover lapses after this. */
export const TAKEOVER_TIMEOUT = '3s'

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

/** Renews for TAKEOVER_TIMEOUT. An element that is there keeps its old timeout when added, so it is deleted between. */
export function renewTakeover(takeover: Takeover): readonly string[] {
  const table = tableOf(takeover.family)
  return takeoverElements(takeover).flatMap((element) => {
    const add = `add element ${table} takeover { ${element} }`
    return [add, `delete element ${table} takeover { ${element.split(' timeout ')[0]} }`, add]
  })
}

/** Hands the ClusterIP back at once; works whether or not it was taken. */
export function endTakeover(takeover: Takeover): readonly string[] {
  return renewTakeover(takeover).filter((_, index) => index % 3 !== 2)
}

/** Elements of the map `takeover`. */
export function takeoverElements({ clusterIp, to }: Takeover): readonly string[] {
  return ['udp', 'tcp'].map((protocol) => `${clusterIp} . ${protocol} . 53 timeout ${TAKEOVER_TIMEOUT} : ${to} . 53`)
}
