// The gateway's metrics, read when Prometheus asks.

import { counterFrom, gaugeFrom, type Registry } from '../lib/metrics.ts'
import type { GatewayStatus, Rung } from '../lib/status.ts'
import type { PacketClient } from './packet-client.ts'
import type { ProbeSocket } from './probe-client.ts'

export function registerMetrics(
  registry: Registry,
  from: { readonly status: () => GatewayStatus; readonly packets: PacketClient; readonly probes: ProbeSocket },
): void {
  const peersOn = (rung: Rung | 'none') => () => from.status().paths.filter((path) => path.rung === rung).length
  gaugeFrom(registry, 'fulmar_gateway_direct_peers', 'Peers reached directly', peersOn('direct'))
  gaugeFrom(registry, 'fulmar_gateway_relayed_peers', 'Peers reached through the relay over TCP', peersOn('relay-tcp'))
  gaugeFrom(registry, 'fulmar_gateway_unreachable_peers', 'Peers without any path', peersOn('none'))
  gaugeFrom(registry, 'fulmar_gateway_relay_connected', 'Whether the session with the relay is up', () =>
    from.status().relay.state === 'connected' ? 1 : 0,
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
