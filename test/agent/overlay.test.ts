import t from 'tap'
import { innerOf, overlaysOf, planForwarding } from '../../agent/overlay.ts'
import type { PoolNode } from '../../lib/k8s/pools.ts'

const node = (name: string, ...addresses: readonly string[]): PoolNode => ({ name, addresses, podCidrs: [] })
const V4 = { device: 2, address: '192.168.1.11', length: 24 }
const V6 = { device: 3, address: '2001:db8:1::11', length: 64 }
const mtuOf = (device: number) => (device === 2 ? 1500 : 1400)

t.test('a name inside follows from the name of the node', (t) => {
  t.same(innerOf('h1'), innerOf('h1'))
  t.not(innerOf('h1').mac, innerOf('h2').mac)
  const { mac, hop } = innerOf('bay1')
  t.match(mac, /^02(:[0-9a-f]{2}){5}$/, 'a locally administered unicast address')
  t.equal(mac, '02:37:f6:cd:52:6d')
  t.equal(hop, 'fe80::37:f6ff:fecd:526d')
  t.end()
})

t.test('one device for each family outside', (t) => {
  const self = node('h1', V4.address, V6.address)
  const neighbours = [
    node('h2', '172.16.1.12', '2001:db8:2::12'),
    node('h3', '2001:db8:2::13'),
    node('h4', 'fe80::14'),
    node('h5'),
  ]
  const peer = (name: string, endpoint: string) => ({ ...innerOf(name), endpoint })
  const { mac } = innerOf('h1')
  t.same(overlaysOf(self, neighbours, [V4, V6], mtuOf), [
    { outer: 4, local: V4.address, mac, mtu: 1450, peers: [peer('h2', '172.16.1.12')] },
    { outer: 6, local: V6.address, mac, mtu: 1330, peers: [peer('h3', '2001:db8:2::13')] },
  ])
  t.same(
    overlaysOf(self, neighbours, [V6], () => 1320),
    [
      {
        outer: 6,
        local: V6.address,
        mac,
        // Less would take IPv6 from the device; the packets outside are sent in fragments.
        mtu: 1280,
        peers: [peer('h2', '2001:db8:2::12'), peer('h3', '2001:db8:2::13')],
      },
    ],
  )
  t.same(overlaysOf(self, neighbours, [], mtuOf), [], 'without an InternalIP of ours')
  t.same(overlaysOf(self, [], [V4, V6], mtuOf), [], 'without neighbours')
  t.end()
})

t.test('what the device knows', (t) => {
  const peers = [
    { ...innerOf('h2'), endpoint: '172.16.1.12' },
    { ...innerOf('h3'), endpoint: '172.16.1.13' },
  ] as const
  const [{ mac, hop }, third] = peers
  const whole = {
    endpoints: peers.map(({ mac, endpoint }) => ({ mac, endpoint })),
    neighbours: peers.map(({ mac, hop }) => ({ mac, address: hop })),
  }
  t.same(planForwarding(whole, peers), [], 'twice is once')
  const stray = { mac: '00:00:00:00:00:00', endpoint: '239.1.1.1' }
  t.same(
    planForwarding({ endpoints: [{ mac, endpoint: '172.16.1.99' }, stray], neighbours: [whole.neighbours[1]!] }, peers),
    [
      { kind: 'set-endpoint', mac, endpoint: '172.16.1.12' },
      { kind: 'set-endpoint', mac: third.mac, endpoint: '172.16.1.13' },
      { kind: 'set-neighbour', mac, address: hop },
      { kind: 'remove-endpoint', ...stray },
    ],
  )
  t.same(planForwarding(whole, [peers[0]]), [
    { kind: 'remove-endpoint', mac: third.mac, endpoint: third.endpoint },
    { kind: 'remove-neighbour', mac: third.mac, address: third.hop },
  ])
  t.end()
})
