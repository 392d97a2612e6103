import t from 'tap'
import { createRegistry } from '../../lib/metrics.ts'
import type { PairCounts } from '../../relay/packet-server.ts'
import { addRelayMetrics, relayStatus, type Parts } from '../../relay/status.ts'
import type { Session } from '../../relay/websocket-server.ts'

t.test('what the relay says of itself', async (t) => {
  const session = (node: string) => ({ node, address: '198.18.1.2:4711', since: 5 }) as Session
  const pair: PairCounts = { from: 'h1', to: 's1', forwarded: 3, bytes: 300, overKeepalive: 2, dropped: 1 }
  const parts: Parts = {
    startedAt: 1,
    config: { public: ['relay.example.com'], stun: ['203.0.113.10', '2001:db8:1::10'], stunPorts: [3478, 3479] },
    signals: { sessions: { byNode: new Map([session('s1'), session('h1')].map((s) => [s.node, s])) } as never },
    packets: {
      sessions: { byNode: new Map([['h1', session('h1')]]) } as never,
      totals: { forwarded: 3, bytes: 300, overKeepalive: 2, dropped: 1 },
      pairs: () => [pair],
      closed: Promise.resolve(),
    },
    sessions: {
      list: () => [
        { node: 's1', address: '198.18.1.2:4711', since: 5, streams: 2, leaving: false },
        { node: 'h1', address: '198.18.1.2:4711', since: 5, streams: 1, leaving: true },
      ],
      counts: { dials: 7, failures: { offline: 1, refused: 0, failed: 2, timeout: 0, busy: 0 } },
    },
    stun: { requests: () => 9, limited: () => 4 },
    udpRelay: undefined,
    api: undefined,
  }
  t.same(relayStatus(parts), {
    kind: 'relay',
    version: relayStatus(parts).version,
    startedAt: 1,
    stun: { addresses: ['203.0.113.10:3478', '[2001:db8:1::10]:3478'], requests: 9 },
    sessions: [
      { node: 'h1', kind: 'signal', address: '198.18.1.2:4711', since: 5 },
      { node: 's1', kind: 'signal', address: '198.18.1.2:4711', since: 5 },
      { node: 'h1', kind: 'packets', address: '198.18.1.2:4711', since: 5 },
      { node: 'h1', kind: 'ops', address: '198.18.1.2:4711', since: 5, streams: 1 },
      { node: 's1', kind: 'ops', address: '198.18.1.2:4711', since: 5, streams: 2 },
    ],
    packets: { forwarded: 3, bytes: 300, overKeepalive: 2, dropped: 1, pairs: [pair] },
    ops: { streams: 3, dials: 7, failures: { offline: 1, refused: 0, failed: 2, timeout: 0, busy: 0 } },
    udpRelay: undefined,
    manifests: undefined,
  })

  const registry = createRegistry('relay')
  const update = addRelayMetrics(registry, parts)
  update()
  pair.forwarded = 10
  update()
  const lines = (await registry.text()).split('\n')
  for (const line of [
    'fulmar_relay_signal_sessions 2',
    'fulmar_relay_packet_sessions 1',
    'fulmar_relay_packets_over_keepalive_total 2',
    'fulmar_relay_stun_limited_total 4',
    'fulmar_relay_ops_sessions 2',
    'fulmar_relay_ops_streams 3',
    'fulmar_relay_ops_dials_total 7',
    'fulmar_relay_ops_dials_failed_total 2',
    'fulmar_relay_pair_packets_total{from="h1",to="s1"} 10',
    'fulmar_relay_pair_bytes_total{from="h1",to="s1"} 300',
    'fulmar_relay_pair_dropped_total{from="h1",to="s1"} 1',
  ])
    t.ok(lines.includes(line), line)
})
