import t from 'tap'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import { planPeers } from '../../gateway/peers.ts'
import type { Announcement } from '../../gateway/announcement.ts'
import type { Pool } from '../../lib/k8s/pools.ts'

const pool = (name: string, ...cidrs: readonly string[]): Pool => ({
  name,
  nodes: cidrs.map((cidr, i) => ({ name: `${name}${i + 1}`, addresses: [], podCidrs: [cidr] })),
  gateways: [`${name}1`, ...(cidrs.length > 1 ? [`${name}2`] : [])],
})
const pools = [pool('bay', '10.1.2.0/24', '10.1.1.0/24'), pool('cape', '10.2.1.0/24'), pool('dune', '10.3.1.0/24')]
const announced = (...nodes: readonly string[]) =>
  new Map(
    nodes.map((node): [string, Announcement] => [
      node,
      { node, sequence: 1, wireguardKey: `key of ${node}`, candidates: [], nat: UNKNOWN_NAT },
    ]),
  )

t.test('the active gateway of each other pool that has announced itself', async (t) => {
  const plan = planPeers('cape1', pools, announced('bay1', 'bay2', 'cape1'))!
  t.match(plan, { pool: 'cape', active: true })
  t.match(plan.peers, [
    { pool: 'bay', node: 'bay1', wireguardKey: 'key of bay1', cidrs: ['10.1.1.0/24', '10.1.2.0/24'] },
  ])
  t.equal(plan.peers.length, 1)
  t.strictSame(plan.waiting, [{ pool: 'dune', node: 'dune1', cidrs: ['10.3.1.0/24'] }])
})

t.test("a peer may send from its pool's prefixes and its own two addresses, and from nowhere else", async (t) => {
  const [peer] = planPeers('cape1', pools, announced('bay1'))!.peers
  t.match(peer!.allowedIps, ['10.1.1.0/24', '10.1.2.0/24', /^fe80::.*\/128$/, /^fd66:756c:6d61:.*\/128$/])
  t.equal(peer!.allowedIps.length, 4)
})

t.test('a key that two gateways announce stays with the one that had it first', async (t) => {
  const announcements = announced('dune1', 'bay1')
  announcements.set('bay1', { ...announcements.get('bay1')!, wireguardKey: 'key of dune1' })
  const plan = planPeers('cape1', pools, announcements)!
  t.match(plan.peers, [{ node: 'dune1', wireguardKey: 'key of dune1' }])
  t.match(plan.waiting, [{ pool: 'bay', node: 'bay1', keyOf: 'dune1' }])
  const renamed = pools.filter(({ name }) => name !== 'dune')
  t.match(planPeers('cape1', renamed, announcements)!.peers, [{ node: 'bay1' }], 'whoever is no gateway keeps none')
})

t.test('a standby has no peers', async (t) => {
  t.match(planPeers('bay2', pools, announced('bay1', 'cape1')), { pool: 'bay', active: false, peers: [], waiting: [] })
})

t.test('a node that the cluster does not know has no plan', async (t) => {
  t.equal(planPeers('nobody', pools, announced('bay1')), undefined)
})

t.test('a pool that has no tunnels is nobody’s peer, and has none', async (t) => {
  const without = pools.map((pool) => (pool.name === 'bay' ? { ...pool, gateways: [] } : pool))
  const plan = planPeers('cape1', without, announced('bay1', 'cape1'))!
  t.strictSame([plan.peers, plan.waiting.map(({ pool }) => pool)], [[], ['dune']])
  t.match(planPeers('bay1', without, announced('cape1')), { active: false, peers: [], waiting: [] })
})

t.test('where a peer may be reached: what it announced, and what its pool’s Gateway object says', async (t) => {
  const host = { kind: 'host', address: { address: '192.168.1.2', port: 21000, family: 4 } } as const
  const inside = { kind: 'host', address: { address: '10.2.1.1', port: 21000, family: 4 } } as const
  const found = { kind: 'reflexive', address: { address: '198.51.100.1', port: 7, family: 4 } } as const
  const announcements = announced('bay1')
  announcements.set('bay1', { ...announcements.get('bay1')!, candidates: [host, inside, found] })
  const at = (address: string, port: number) => ({ kind: 'static', address: { address, port, family: 4 } })
  for (const [name, endpoints, fixed] of [
    ['no object', undefined, []],
    ['an object of another node', [{ node: 'bay2', public: { address: '203.0.113.1', port: 4500 } }], []],
    ['no public address', [{ node: 'bay1', listenPort: 4500 }], []],
    ['address and port', [{ node: 'bay1', public: { address: '203.0.113.1', port: 4500 } }], [at('203.0.113.1', 4500)]],
    ['an address alone', [{ node: 'bay1', public: { address: '203.0.113.1' } }], [at('203.0.113.1', 21000)]],
    ['an address inside the mesh', [{ node: 'bay1', public: { address: '10.3.1.1', port: 1 } }], []],
  ] as const) {
    const declared = pools.map((pool) => (pool.name === 'bay' && endpoints ? { ...pool, endpoints } : pool))
    const [peer] = planPeers('cape1', declared, announcements)!.peers
    t.strictSame(peer!.candidates, [host, ...fixed, found], name)
  }
})
