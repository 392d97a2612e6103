// What `fulmar status` shows of a gateway. Pure.

import type { Pool } from '../lib/k8s/pools.ts'
import type { StoreView } from '../lib/k8s/store.ts'
import type { GatewayStatus, NatBehaviour, PathStatus } from '../lib/status.ts'
import { VERSION } from '../lib/version.ts'
import type { Mesh } from './mesh-loop.ts'
import type { Paths } from './path-loop.ts'
import type { SignalClient } from './signal-client.ts'
import type { WireGuard } from './wireguard-loop.ts'

export function gatewayStatus(from: {
  readonly node: string
  readonly startedAt: number
  readonly publicKey: string
  readonly port: number
  readonly mesh: Mesh
  readonly wireguard: WireGuard
  readonly signalling: SignalClient
  readonly paths: Paths
  readonly nat: NatBehaviour
  readonly pools: { readonly pools: readonly Pool[]; readonly problems: readonly string[] }
  readonly store: StoreView
}): GatewayStatus {
  const { node, startedAt, publicKey, port, nat } = from
  const plan = from.mesh.plan()
  const waiting = (plan?.waiting ?? []).map(({ pool, node }): PathStatus => ({
    pool,
    node,
    rung: 'none',
    since: from.mesh.waitingSince.get(pool) ?? startedAt,
    reason: `the gateway on ${node} has not announced itself yet`,
    candidates: [],
  }))
  return {
    kind: 'gateway',
    version: VERSION,
    node,
    pool: plan?.pool ?? '',
    startedAt,
    relay: from.signalling.state(),
    wireguard: { implementation: from.wireguard.implementation, publicKey, port },
    nat,
    paths: [...from.paths.status(nat, from.mesh.endpoints), ...waiting],
    problems: [
      ...from.pools.problems,
      ...from.paths.problems(),
      ...(plan === undefined ? [`the cluster knows no node ${node}: add its Node object`] : []),
    ],
    metadata: from.store.status(),
  }
}
