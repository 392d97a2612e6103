// What `fulmar status` shows of a gateway. Pure.

import { formatSocketAddress } from '../lib/address.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import type { GatewayStatus, NatBehaviour, PathStatus } from '../lib/status.ts'
import { VERSION } from '../lib/version.ts'
import type { Candidate } from './announcement.ts'
import type { ListenPort } from './listen-port-loop.ts'
import type { Mesh } from './mesh-loop.ts'
import type { Paths } from './path-loop.ts'
import { remediesOf, type OwnSide } from './path-remedies.ts'
import type { SignalClient } from './signal-client.ts'
import type { WireGuard } from './wireguard-loop.ts'

export function gatewayStatus(from: {
  readonly node: string
  readonly startedAt: number
  /** Unix milliseconds. */
  readonly nowMs: number
  readonly publicKey: string
  readonly listening: ListenPort
  readonly mesh: Mesh
  readonly wireguard: WireGuard
  readonly signalling: SignalClient
  readonly paths: Paths
  readonly nat: NatBehaviour
  readonly candidates: readonly Candidate[]
  readonly poolProblems: readonly string[]
  readonly store: StoreView
}): GatewayStatus {
  const { node, startedAt, publicKey, nat } = from
  const port = from.listening.current()
  const plan = from.mesh.plan()
  const waiting = (plan?.waiting ?? []).map(({ pool, node, keyOf }): PathStatus => ({
    pool,
    node,
    rung: 'none',
    since: from.mesh.waitingSince(pool) ?? startedAt,
    reason:
      keyOf === undefined
        ? `the gateway on ${node} has not announced itself yet`
        : `the gateway on ${node} announces the WireGuard key of ${keyOf}: remove gateway/wireguard.key in its state directory`,
    candidates: [],
  }))
  const relay = from.signalling.state()
  const pool = plan?.pool ?? ''
  const candidates = from.candidates.map(({ kind, address }) => ({ kind, address: formatSocketAddress(address) }))
  const own: OwnSide = { node, pool, nat, relay, candidates, wireguardPort: port }
  const explained = [...from.paths.status(nat, from.mesh.endpointOf), ...waiting].map((path): PathStatus => {
    const remedies = remediesOf(own, path, from.nowMs)
    return remedies === undefined ? path : { ...path, remedies }
  })
  return {
    kind: 'gateway',
    version: VERSION,
    node,
    pool,
    startedAt,
    relay,
    wireguard: { implementation: from.wireguard.implementation, publicKey, port },
    nat,
    candidates,
    paths: explained,
    problems: [
      ...from.poolProblems,
      ...from.listening.problems(),
      ...from.paths.problems(),
      ...(plan === undefined ? [`the cluster knows no node ${node}: add its Node object`] : []),
    ],
    metadata: from.store.status(),
  }
}
