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

t.test('a standby has no peers', async (t) => {
  t.match(planPeers('bay2', pools, announced('bay1', 'cape1')), { pool: 'bay', active: false, peers: [], waiting: [] })
})

t.test('a node that the cluster does not know has no plan', async (t) => {
  t.equal(planPeers('nobody', pools, announced('bay1')), undefined)
})
