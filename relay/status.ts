// What the relay says of itself: the answer to GET /status, its metrics, and what nodes are told of it when they join.

import { isIP } from 'node:net'
import { formatSocketAddress } from '../lib/address.ts'
import { counter, counterFrom, gaugeFrom, type Registry } from '../lib/metrics.ts'
import type { RelayStatus } from '../lib/status.ts'
import { VERSION } from '../lib/version.ts'
import type { RelayConfig } from './config.ts'
import type { PacketServer } from './packet-server.ts'
import type { ReplicaLink } from './replicas-client.ts'
import type { OpsSessions, OpsSessionState } from './session-server.ts'
import type { StunServer } from './stun-server.ts'
import { isUnspecified } from './stun.ts'
import type { Session, Sessions } from './websocket-server.ts'

export type Parts = {
  readonly startedAt: number
  readonly config: Pick<RelayConfig, 'public' | 'stun' | 'stunPorts'>
  /** The other relays; none where there is only this one. */
  readonly replicas?: () => readonly ReplicaLink[]
  readonly signals: { readonly sessions: Sessions }
  readonly packets: PacketServer
  readonly sessions: Pick<OpsSessions, 'list' | 'counts'>
  readonly stun: Pick<StunServer, 'requests' | 'limited'> | undefined
  readonly udpRelay: { readonly status: () => NonNullable<RelayStatus['udpRelay']> } | undefined
  readonly api: { readonly status: () => RelayStatus['manifests'] } | undefined
}

export function relayStatus(parts: Parts): RelayStatus {
  const { startedAt, config, signals, packets, sessions, stun, udpRelay, api } = parts
  const opsSessions = sessions.list()
  const replicas = parts.replicas?.() ?? []
  const { dials, failures } = sessions.counts
  const { forwarded, bytes, overKeepalive, dropped } = packets.totals
  return {
    kind: 'relay',
    version: VERSION,
    startedAt,
    stun: { addresses: stunServers(config), requests: stun?.requests() ?? 0 },
    sessions: [
      ...listed('signal', signals.sessions),
      ...listed('packets', packets.sessions),
      ...listedOps(opsSessions),
    ],
    packets: { forwarded, bytes, overKeepalive, dropped, pairs: [...packets.pairs()] },
    ops: { streams: streamsOf(opsSessions), dials, failures: { ...failures } },
    ...(replicas.length > 0 && { replicas }),
    udpRelay: udpRelay?.status(),
    manifests: api?.status(),
  }
}

/** URLs and STUN servers, as nodes are told when they join. */
export function advertised(config: Pick<RelayConfig, 'listen' | 'public' | 'stun' | 'stunPorts' | 'replicas'>) {
  const { listen, public: hosts, replicas } = config
  const own = hosts.map((address) => `https://${formatSocketAddress({ address, port: listen[0]!.port })}`)
  return { relays: replicas.length > 0 ? replicas.flat() : own, stun: stunServers(config) }
}

/** Who answers on any address, as 0.0.0.0 behind a 1:1 NAT, is found at the public ones. */
const stunServers = ({
  public: hosts,
  stun,
  stunPorts,
}: Pick<RelayConfig, 'public' | 'stun' | 'stunPorts'>): readonly string[] =>
  stun
    .flatMap((address) => (isUnspecified(address) ? hosts.filter((host) => isIP(host) === isIP(address)) : [address]))
    .map((address) => formatSocketAddress({ address, port: stunPorts[0] }))

function listed(kind: 'signal' | 'packets', { byNode }: Sessions): RelayStatus['sessions'] {
  return [...byNode.values()]
    .map(({ node, address, since }: Session) => ({ node, kind, address, since }))
    .toSorted((a, b) => (a.node < b.node ? -1 : 1))
}

const listedOps = (sessions: readonly OpsSessionState[]): RelayStatus['sessions'] =>
  sessions
    .map(({ node, address, since, streams }) => ({ node, kind: 'ops' as const, address, since, streams }))
    .toSorted((a, b) => (a.node < b.node ? -1 : 1))

const streamsOf = (sessions: readonly OpsSessionState[]): number =>
  sessions.reduce((sum, { streams }) => sum + streams, 0)

/** Registers the relay's metrics. @returns what brings the counters of pairs up to date, for now and then. */
export function addRelayMetrics(registry: Registry, parts: Parts): () => void {
  const { signals, packets, sessions, stun, udpRelay } = parts
  const { totals } = packets
  gaugeFrom(
    registry,
    'fulmar_relay_signal_sessions',
    'Gateways that hold a signal session',
    () => signals.sessions.byNode.size,
  )
  gaugeFrom(
    registry,
    'fulmar_relay_packet_sessions',
    'Gateways that hold a packet session',
    () => packets.sessions.byNode.size,
  )
  counterFrom(registry, 'fulmar_relay_packets_total', 'WireGuard packets forwarded', () => totals.forwarded)
  counterFrom(registry, 'fulmar_relay_packet_bytes_total', 'Bytes of these packets', () => totals.bytes)
  counterFrom(
    registry,
    'fulmar_relay_packets_over_keepalive_total',
    'Of these packets those longer than the 32 bytes of a keepalive',
    () => totals.overKeepalive,
  )
  counterFrom(registry, 'fulmar_relay_packets_dropped_total', 'WireGuard packets dropped', () => totals.dropped)
  counterFrom(registry, 'fulmar_relay_stun_requests_total', 'STUN requests', () => stun?.requests() ?? 0)
  counterFrom(
    registry,
    'fulmar_relay_stun_limited_total',
    'Datagrams to STUN that were dropped because their network had its share',
    () => stun?.limited() ?? 0,
  )
  gaugeFrom(
    registry,
    'fulmar_relay_ops_sessions',
    'Sessions of agents, by which nodes are reached',
    () => sessions.list().length,
  )
  gaugeFrom(registry, 'fulmar_relay_ops_streams', 'Streams to nodes', () => streamsOf(sessions.list()))
  gaugeFrom(
    registry,
    'fulmar_relay_replicas',
    'Other relays of this mesh that answer',
    () => (parts.replicas?.() ?? []).filter(({ state }) => state === 'connected').length,
  )
  const { counts } = sessions
  counterFrom(registry, 'fulmar_relay_ops_dials_total', 'Streams to nodes that were asked for', () => counts.dials)
  for (const failure of ['offline', 'refused', 'failed', 'timeout', 'busy'] as const)
    counterFrom(registry, `fulmar_relay_ops_dials_${failure}_total`, FAILURES[failure], () => counts.failures[failure])
  if (udpRelay !== undefined) {
    const { status } = udpRelay
    gaugeFrom(registry, 'fulmar_relay_udp_sessions', 'Sessions over UDP', () => status().sessions.length)
    const counts = {
      fulmar_relay_udp_packets_total: ['Packets forwarded in sessions over UDP', 'forwarded'],
      fulmar_relay_udp_bytes_total: ['Bytes of these packets', 'bytes'],
      fulmar_relay_udp_unbound_total: ['Packets dropped that came from where nobody is bound', 'unbound'],
      fulmar_relay_udp_lost_total: ['Packets of sessions that other rules of this host dropped', 'lost'],
    } as const
    for (const [name, [help, key]] of Object.entries(counts)) counterFrom(registry, name, help, () => status()[key])
  }

  const bounds = { from: MAX_LABELS, to: MAX_LABELS }
  const pairPackets = counter(registry, 'fulmar_relay_pair_packets_total', 'Packets forwarded by pair of nodes', bounds)
  const pairBytes = counter(registry, 'fulmar_relay_pair_bytes_total', 'Bytes forwarded by pair of nodes', bounds)
  const pairDrops = counter(registry, 'fulmar_relay_pair_dropped_total', 'Packets dropped by pair of nodes', bounds)
  const seen = new Map<object, { forwarded: number; bytes: number; dropped: number }>()
  const update = (): void => {
    for (const pair of packets.pairs()) {
      const { from, to, forwarded, bytes, dropped } = pair
      const last = seen.get(pair) ?? { forwarded: 0, bytes: 0, dropped: 0 }
      pairPackets.add(forwarded - last.forwarded, { from, to })
      pairBytes.add(bytes - last.bytes, { from, to })
      pairDrops.add(dropped - last.dropped, { from, to })
      seen.set(pair, { forwarded, bytes, dropped })
    }
  }
  registry.onScrape(update)
  return update
}

const MAX_LABELS = 256
const FAILURES = {
  offline: 'Of these those to nodes that were not there',
  refused: 'Of these those that the agent did not allow',
  failed: 'Of these those whose target did not answer as it should',
  timeout: 'Of these those that took too long',
  busy: 'Of these those beyond a bound',
} as const
