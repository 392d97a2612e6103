import t from 'tap'
import { planPeers, type ObservedPeer, type WireGuardPeer } from '../../gateway/wireguard.ts'

const observed = (publicKey: string, more: Partial<ObservedPeer> = {}): ObservedPeer => ({
  publicKey,
  endpoint: '192.0.2.1:5001',
  allowedIps: ['10.244.2.0/24', 'fd00:244:2::/64'],
  latestHandshake: 1_700_000_000_000,
  rx: 1,
  tx: 1,
  keepaliveSeconds: 25,
  ...more,
})
const wanted = (publicKey: string, more: Partial<WireGuardPeer> = {}): WireGuardPeer => ({
  publicKey,
  allowedIps: ['fd00:244:2::/64', '10.244.2.0/24'],
  keepaliveSeconds: 25,
  ...more,
})
const whole = { kind: 'set', publicKey: 'B', allowedIps: ['fd00:244:2::/64', '10.244.2.0/24'], keepaliveSeconds: 25 }
const seen = new Map([['B', '192.0.2.9:9']])

const rows: readonly {
  name: string
  observed: readonly ObservedPeer[]
  wanted: readonly WireGuardPeer[]
  last?: ReadonlyMap<string, string>
  due?: boolean
  changes: readonly object[]
}[] = [
  { name: 'nothing from nothing', observed: [], wanted: [], changes: [] },
  { name: 'a peer that is right is not touched', observed: [observed('B')], wanted: [wanted('B')], changes: [] },
  { name: 'a new peer is set whole', observed: [], wanted: [wanted('B')], changes: [whole] },
  {
    name: 'with the endpoint given',
    observed: [],
    wanted: [wanted('B', { endpoint: '192.0.2.1:1' })],
    due: true,
    last: seen,
    changes: [{ ...whole, endpoint: '192.0.2.1:1' }],
  },
  {
    name: 'on a device made anew, where it was seen last',
    observed: [],
    wanted: [wanted('B', { endpoint: '192.0.2.1:1' })],
    last: seen,
    changes: [{ ...whole, endpoint: '192.0.2.9:9' }],
  },
  {
    name: 'an endpoint that the other side moved to stays',
    observed: [observed('B')],
    wanted: [wanted('B', { endpoint: '192.0.2.1:1' })],
    changes: [],
  },
  {
    name: 'unless it is due',
    observed: [observed('B')],
    wanted: [wanted('B', { endpoint: '192.0.2.1:1' })],
    due: true,
    changes: [{ kind: 'set', publicKey: 'B', endpoint: '192.0.2.1:1' }],
  },
  {
    name: 'only what differs is set',
    observed: [observed('B', { keepaliveSeconds: 0 })],
    wanted: [wanted('B')],
    changes: [{ kind: 'set', publicKey: 'B', keepaliveSeconds: 25 }],
  },
  {
    name: 'addresses stand for themselves, in canonical text',
    observed: [observed('B', { allowedIps: ['fe80::1/128', '10.0.0.1/32'] })],
    wanted: [wanted('B', { allowedIps: ['FE80:0::1', '10.0.0.1'] })],
    changes: [],
  },
  {
    name: 'a prefix moves to another peer before the old peer goes',
    observed: [observed('A')],
    wanted: [wanted('B')],
    changes: [whole, { kind: 'remove', publicKey: 'A' }],
  },
]

for (const { name, observed, wanted, last = new Map(), due = false, changes } of rows)
  t.test(name, (t) => {
    t.same(planPeers(observed, wanted, { last, due }), changes)
    t.end()
  })
