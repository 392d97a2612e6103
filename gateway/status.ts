// What `fulmar status` shows of a gateway. Pure.

import { formatSocketAddress } from '../lib/address.ts'
import type { GatewayStatus, PathStatus } from '../lib/status.ts'
import { VERSION } from '../lib/version.ts'
import type { Reachability } from './candidates-loop.ts'
import type { ListenPort } from './listen-port-loop.ts'
import type { Elections } from './election-loop.ts'
import type { Mesh } from './mesh-loop.ts'
import type { Neighbours } from './neighbours-loop.ts'
import type { Paths } from './path-loop.ts'
import { remediesOf, type OwnSide } from './path-remedies.ts'
import type { Pools } from './pools-loop.ts'
import type { SignalClient } from './signal-client.ts'
import type { WireGuard } from './wireguard-loop.ts'

export type StatusSources = {
  readonly node: string
  /** Unix milliseconds. */
  readonly startedAt: number
  readonly publicKey: string
  readonly listening: ListenPort
  readonly mesh: Mesh
  readonly elections: Elections
  readonly wireguard: WireGuard
  readonly signalling: SignalClient
  readonly paths: Paths
  readonly reachability: Reachability
  readonly pools: Pools
  readonly neighbours: Pick<Neighbours, 'silent'>
}

export function gatewayStatus(from: StatusSources, nowMs: number): GatewayStatus {
  const { node, startedAt, publicKey, mesh } = from
  const plan = mesh.plan()
  const standing = from.elections.standing()
  const pool = plan?.pool ?? from.elections.pool()?.name ?? ''
  const port = from.listening.current()
  const relay = from.signalling.state()
  const nat = from.reachability.nat()
  const candidates = from.reachability
    .candidates()
    .map(({ kind, address }) => ({ kind, address: formatSocketAddress(address) }))
  const own: OwnSide = { node, pool, nat, relay, candidates, wireguardPort: port }
  return {
    kind: 'gateway',
    version: VERSION,
    node,
    pool,
    role: {
      state: standing.role,
      term: standing.term,
      since: from.elections.since(),
      ...(standing.follows !== '' && { active: standing.follows }),
      standbys: from.elections.standbys(),
    },
    startedAt,
    relay,
    wireguard: { implementation: from.wireguard.implementation, publicKey, port },
    nat,
    candidates,
    paths: pathsStatus(from).map((path) => {
      const remedies = remediesOf(own, path, nowMs)
      return remedies === undefined ? path : { ...path, remedies }
    }),
    problems: [
      ...from.pools.problems(),
      ...from.listening.problems(),
      ...from.paths.problems(),
      ...from.elections.problems(),
      ...from.neighbours
        .silent()
        .map((node) => `node ${node} does not answer on the LAN: what runs there is left out of services`),
      ...(plan === undefined && from.elections.pool() === undefined
        ? [`the cluster knows no node ${node}: add its Node object`]
        : []),
    ],
    metadata: from.pools.store.status(),
  }
}

/** Of every other pool, without remedies. */
export function pathsStatus({ mesh, paths, reachability, startedAt }: StatusSources): readonly PathStatus[] {
  const waiting = mesh.plan()?.waiting ?? []
  return [
    ...paths.status(reachability.nat(), mesh.endpointOf),
    ...waiting.map(({ pool, node, keyOf }): PathStatus => ({
      pool,
      node,
      rung: 'none',
      since: mesh.waitingSince(pool) ?? startedAt,
      reason:
        keyOf === undefined
          ? `the gateway on ${node} has not announced itself yet`
          : `the gateway on ${node} announces the WireGuard key of ${keyOf}: remove gateway/wireguard.key in its state directory`,
      candidates: [],
    })),
  ]
}
