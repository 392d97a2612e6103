// What the agent says of itself on its Unix socket.

import type { AgentStatus, OpsSessionStatus, SuspectStatus } from '../lib/status.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import { EMPTY } from '../lib/sorted-list.ts'
import { VERSION } from '../lib/version.ts'
import { endpointCount } from './cluster.ts'
import type { DnsServer } from './dns-server.ts'
import type { NftLoop } from './nft-loop.ts'
import type { Takeover } from './takeover.ts'
import type { AgentRoutesPlan } from './routes.ts'
import type { Snapshot } from './snapshot.ts'
import type { SocketLb } from './socket-lb-loop.ts'

export type StatusInput = {
  readonly node: string
  readonly startedAt: number
  readonly snapshot: Snapshot
  readonly store: StoreView
  readonly ops: OpsSessionStatus | undefined
  readonly dns: DnsServer
  readonly nft: NftLoop
  readonly socketLb: Pick<SocketLb, 'path' | 'problems'>
  /** Other service proxies on this node. */
  readonly beside: readonly string[]
  readonly takeovers: readonly Takeover[]
  readonly routes: AgentRoutesPlan | undefined
  /** Prefixes that are left out, since they would cut this node off. */
  readonly unroutable: readonly string[]
  /** What is wrong with the rules for packets between pools, ours or others'. */
  readonly rules: readonly string[]
  /** What is wrong with the LAN channel. */
  readonly lan: readonly string[]
}

export function agentStatus({
  node,
  startedAt,
  snapshot,
  store,
  ops,
  dns,
  nft,
  socketLb,
  beside,
  takeovers,
  routes,
  unroutable,
  rules,
  lan,
}: StatusInput): AgentStatus {
  const { services = EMPTY, pools = [], problems = [] } = snapshot.cluster ?? {}
  const path = socketLb.path()
  return {
    kind: 'agent',
    version: VERSION,
    node,
    pool: pools.find(({ nodes }) => nodes.some(({ name }) => name === node))?.name ?? '',
    startedAt,
    ...(ops && { ops }),
    dns: {
      addresses: dns.listening(),
      queries: dns.counts().queries,
      takeover: takeovers.map(({ clusterIp }) => clusterIp),
    },
    services: {
      count: services.length,
      endpoints: endpointCount(services),
      path: path.kind,
      ...(path.reason === '' ? {} : { pathReason: path.reason }),
      ...(beside.length === 0 ? {} : { beside }),
    },
    ...suspectsOf(snapshot),
    gateway: routes?.gateway,
    problems: [
      ...new Set([
        ...problems,
        ...(snapshot.balance?.problems ?? []),
        ...unroutable,
        ...(routes?.problems ?? []),
        ...nft.problems(),
        ...socketLb.problems(),
        ...dns.problems(),
        ...rules,
        ...lan,
      ]),
    ],
    metadata: store.status(),
  }
}

const SUSPECTS_MAX = 100

function suspectsOf({ balance }: Snapshot): { readonly suspects?: readonly SuspectStatus[] } {
  const suspects = (balance?.suspects ?? []).slice(0, SUSPECTS_MAX)
  return suspects.length === 0
    ? {}
    : { suspects: suspects.map(({ node, ...each }) => ({ ...each, ...(node !== undefined && { node }) })) }
}
