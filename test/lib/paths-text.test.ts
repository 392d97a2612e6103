import t from 'tap'
import { renderPath, renderPaths } from '../../lib/paths-text.ts'
import type { GatewayStatus, PathStatus } from '../../lib/status.ts'

const NOW = Date.UTC(2026, 4, 1, 3, 0, 0)
const MINUTE = 60_000

const south: PathStatus = {
  pool: 'south',
  node: 'south1',
  rung: 'relay-udp',
  since: NOW - 3 * MINUTE,
  rttMs: 48.1,
  loss: 0.02,
  mtu: 1280,
  reason:
    'direct answered no echo for 812 ms; NATs here (symmetric) and at south (port restricted) do not punch: forward a UDP port, use IPv6, or stay on the relay; next try in 12 s',
  candidates: [
    { kind: 'host', address: '192.168.2.11:40112', result: 'no answer to 40 probes' },
    { kind: 'reflexive', address: '198.18.2.2:40112', result: 'answered in 1.2 ms, but WireGuard did not get through' },
  ],
  peerNat: {
    mapping: 'endpoint-independent',
    filtering: 'address-and-port-dependent',
    udp: 'open',
    mapped: '198.18.2.2:40112',
  },
  history: [
    { at: NOW - 3 * MINUTE, rung: 'relay-udp', why: "an echo and a full-size packet came back over the relay's UDP" },
    { at: NOW - 4 * MINUTE, rung: 'relay-tcp', why: 'direct answered no echo for 812 ms' },
  ],
  remedies: {
    need: 'one',
    steps: [
      'on the router of south, forward UDP port 40112 of 198.18.2.2 to 192.168.2.11 port 40112, a step that is too long for one line',
      'give south1 at south public IPv6',
    ],
  },
}
const kiel: PathStatus = {
  pool: 'kiel',
  node: 'kiel1',
  rung: 'direct',
  since: NOW - 90 * MINUTE,
  rttMs: 1.2,
  loss: 0,
  reason: '',
  endpoint: '198.18.3.2:5',
  candidates: [],
}
const sylt: PathStatus = { ...kiel, pool: 'sylt', node: 'sylt1', rung: 'cold', reason: 'no traffic' }

const gateway = (...paths: readonly PathStatus[]): GatewayStatus => ({
  kind: 'gateway',
  version: '0.1.0',
  node: 'north1',
  pool: 'north',
  startedAt: NOW,
  relay: { url: 'https://203.0.113.10', state: 'connected', since: NOW },
  wireguard: { implementation: 'kernel', publicKey: 'k', port: 51820 },
  nat: { mapping: 'address-and-port-dependent', filtering: 'address-and-port-dependent', udp: 'open' },
  candidates: [{ kind: 'host', address: '192.168.1.11:51820' }],
  paths,
  problems: [],
  metadata: { source: 'cloud', server: 'https://203.0.113.10', objects: {} },
})

const TABLE = `Paths of pool north, from its gateway on north1
  TO POOL  PATH       SINCE      RTT  LOSS  PEER AT       WHY NOT BETTER
  kiel     direct     1h30m  1.20 ms   0 %  198.18.3.2:5  -
  south    relay-udp  3m00s  48.1 ms   2 %  -             direct answered no echo for 812 ms; NATs …
  sylt     cold       1h30m  1.20 ms   0 %  198.18.3.2:5  no traffic
`
const STORY = `north → south: relay-udp for 3m00s (north1 → south1)
  RTT 48.1 ms, loss 2 %, packets of up to 1280 bytes
  NAT here    symmetric (mapping address-and-port-dependent, filtering address-and-port-dependent)
  told peers  192.168.1.11:51820 (host)
  NAT there   port restricted cone (mapping endpoint-independent, filtering
              address-and-port-dependent), seen at 198.18.2.2:40112
  why         direct answered no echo for 812 ms; NATs here (symmetric) and at south (port
              restricted) do not punch: forward a UDP port, use IPv6, or stay on the relay; next try
              in 12 s
  tried at south
    192.168.2.11:40112  host       no answer to 40 probes
    198.18.2.2:40112    reflexive  answered in 1.2 ms, but WireGuard did not get through
  last moves of north → south
    3m00s ago  relay-udp  an echo and a full-size packet came back over the relay's UDP
    4m00s ago  relay-tcp  direct answered no echo for 812 ms
  for a better path, one of
    - on the router of south, forward UDP port 40112 of 198.18.2.2 to 192.168.2.11 port 40112, a
      step that is too long for one line
    - give south1 at south public IPv6
`
const DIRECT = `north → kiel: direct for 1h30m (north1 → kiel1)
  RTT 1.20 ms, loss 0 %, peer at 198.18.3.2:5
  NAT here    symmetric (mapping address-and-port-dependent, filtering address-and-port-dependent)
  told peers  192.168.1.11:51820 (host)
`

t.equal(renderPaths(gateway(sylt, south, kiel), NOW), TABLE, 'a line for each pair')
t.equal(renderPaths(gateway(), NOW).split('\n')[1], '  none: no other pool is known, or this gateway stands by')
t.equal(renderPath(gateway(south), south, NOW), STORY, 'the whole story')
t.equal(renderPath(gateway(kiel), kiel, NOW), DIRECT, 'nothing to explain')
