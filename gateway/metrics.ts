// The gateway's metrics, read when Prometheus asks.

import { counter, counterFrom, gaugeFrom, gaugesFrom, type Registry } from '../lib/metrics.ts'
import { RUNGS, type PathStatus, type Rung } from '../lib/status.ts'
import type { PacketClient } from './packet-client.ts'
import type { ProbeSocket } from './probe-client.ts'
import type { SignalClient } from './signal-client.ts'

/** A gateway has a path to each other pool of its cluster; more than so many are not told apart. */
const MAX_POOLS = 1_000
const PATHS = [...RUNGS, 'cold'] as const

/** Counted from before the first path on. @returns what to call when traffic to a pool moves to a rung. */
export function registerMoves(registry: Registry): (pool: string, path: (typeof PATHS)[number]) => void {
  const moves = counter(registry, 'fulmar_gateway_path_moves_total', 'How often traffic to a pool moved to a path', {
    pool: MAX_POOLS,
    path: PATHS,
  })
  return (pool, path) => moves.add(1, { pool, path })
}

export function registerMetrics(
  registry: Registry,
  from: {
    readonly paths: () => readonly PathStatus[]
    readonly signalling: Pick<SignalClient, 'state'>
    readonly packets: PacketClient
    readonly probes: ProbeSocket
  },
): void {
  const peersOn = (rung: Rung | 'none') => () => from.paths().filter((path) => path.rung === rung).length
  gaugeFrom(registry, 'fulmar_gateway_direct_peers', 'Peers reached directly', peersOn('direct'))
  gaugeFrom(registry, 'fulmar_gateway_relayed_peers', 'Peers reached through the relay over TCP', peersOn('relay-tcp'))
  gaugeFrom(registry, 'fulmar_gateway_unreachable_peers', 'Peers without any path', peersOn('none'))
  gaugesFrom(
    registry,
    'fulmar_gateway_path',
    'The path to a pool: 1 with its name, which may be cold or none too',
    ['pool', 'path'],
    MAX_POOLS,
    () => from.paths().map(({ pool, rung }) => ({ labels: { pool, path: rung }, value: 1 })),
  )
  const perPool = (name: string, help: string, valueOf: (path: PathStatus) => number | undefined): void =>
    gaugesFrom(registry, name, help, ['pool'], MAX_POOLS, () =>
      from.paths().flatMap((path) => {
        const value = valueOf(path)
        return value === undefined ? [] : [{ labels: { pool: path.pool }, value }]
      }),
    )
  perPool('fulmar_gateway_path_rtt_seconds', 'Round-trip time of the path in use, smoothed', ({ rttMs }) =>
    rttMs === undefined ? undefined : rttMs / 1000,
  )
  perPool(
    'fulmar_gateway_path_loss_ratio',
    'Share of the last echoes that were lost on the path in use',
    ({ loss }) => loss,
  )
  gaugeFrom(registry, 'fulmar_gateway_relay_connected', 'Whether the session with the relay is up', () =>
    from.signalling.state().state === 'connected' ? 1 : 0,
  )
  counterFrom(
    registry,
    'fulmar_gateway_relay_dropped_packets_total',
    'WireGuard packets dropped on the way to or from the relay',
    from.packets.dropped,
  )
  counterFrom(
    registry,
    'fulmar_gateway_malformed_probes_total',
    'Datagrams on the probe port that were no STUN',
    from.probes.malformed,
  )
}
