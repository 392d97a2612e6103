import t from 'tap'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import { partingIps, planPeers } from '../../gateway/peers.ts'
import { Roles, type Role } from '../../gateway/roles.ts'
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

/** What gateways said of themselves; ours is `active` unless it is said otherwise. */
function roles(said: Readonly<Record<string, Role>> = {}, active = true) {
  const known = new Roles()
  for (const [node, role] of Object.entries(said)) known.learn(node, role)
  return { active, activeOf: known.activeOf.bind(known) }
}

t.test('the active gateway of each other pool that has announced itself', async (t) => {
  const plan = planPeers('cape1', pools, announced('bay1', 'bay2', 'cape1'), roles())!
  t.match(plan, { pool: 'cape', active: true })
  t.match(plan.peers, [
    { pool: 'bay', node: 'bay1', wireguardKey: 'key of bay1', cidrs: ['10.1.1.0/24', '10.1.2.0/24'] },
  ])
  t.strictSame(
    plan.peers.map(({ node, standby }) => [node, standby]),
    [
      ['bay1', false],
      ['bay2', true],
    ],
  )
  t.strictSame(plan.waiting, [{ pool: 'dune', node: 'dune1', cidrs: ['10.3.1.0/24'] }])
})

t.test("a peer may send from its pool's prefixes and its own two addresses, and from nowhere else", async (t) => {
  const [peer] = planPeers('cape1', pools, announced('bay1'), roles())!.peers
  t.match(peer!.allowedIps, ['10.1.1.0/24', '10.1.2.0/24', /^fe80::.*\/128$/, /^fd66:756c:6d61:.*\/128$/])
  t.equal(peer!.allowedIps.length, 4)
})

t.test('a key that two gateways announce stays with the one that had it first', async (t) => {
  const announcements = announced('dune1', 'bay1')
  announcements.set('bay1', { ...announcements.get('bay1')!, wireguardKey: 'key of dune1' })
  const plan = planPeers('cape1', pools, announcements, roles())!
  t.match(plan.peers, [{ node: 'dune1', wireguardKey: 'key of dune1' }])
  t.match(plan.waiting, [{ pool: 'bay', node: 'bay1', keyOf: 'dune1' }])
  const renamed = pools.filter(({ name }) => name !== 'dune')
  t.match(
    planPeers('cape1', renamed, announcements, roles())!.peers,
    [{ node: 'bay1' }],
    'whoever is no gateway keeps none',
  )
})

t.test('a standby has the active gateways of others for peers, and is ready for their packets', async (t) => {
  const plan = planPeers('bay2', pools, announced('bay1', 'cape1'), roles({}, false))!
  t.match(plan, { pool: 'bay', active: false, peers: [{ pool: 'cape', node: 'cape1', cidrs: ['10.2.1.0/24'] }] })
  t.equal(plan.peers.length, 1)
  const others = planPeers('cape1', pools, announced('bay1', 'bay2', 'cape1'), roles({}, false))!
  t.strictSame(
    others.peers.map(({ node }) => node),
    ['bay1'],
    'two standbys are no peers',
  )
})

t.test('who is active in another pool', async (t) => {
  const active = (term: number) => ({ active: true, term })
  const standby = (term: number) => ({ active: false, term })
  for (const [name, there, said, expected] of [
    ['nobody claims it: the order of the objects', ['bay1', 'bay2'], {}, 'bay1'],
    ['the first has not announced itself', ['bay2'], {}, 'bay2'],
    ['a claim', ['bay1', 'bay2'], { bay2: active(1) }, 'bay2'],
    ['the higher term', ['bay1', 'bay2'], { bay1: active(4), bay2: active(5) }, 'bay2'],
    ['two in one term', ['bay1', 'bay2'], { bay1: active(5), bay2: active(5) }, 'bay1'],
    ['the claim of one that has not announced itself', ['bay1'], { bay2: active(9) }, 'bay1'],
    ['the claim of another pool’s gateway', ['bay1', 'bay2', 'dune1'], { dune1: active(9), bay2: active(1) }, 'bay2'],
    ['one stands by, of the other nothing is known', ['bay1', 'bay2'], { bay1: standby(0) }, 'bay2'],
  ] as const) {
    const plan = planPeers('cape1', pools, announced('cape1', ...there), roles(said))!
    t.equal(plan.peers.find(({ pool }) => pool === 'bay')?.node, expected, name)
    for (const { node, standby, allowedIps } of plan.peers.filter(({ pool }) => pool === 'bay'))
      t.strictSame([standby, allowedIps.length], node === expected ? [false, 4] : [true, 2], `${name}: ${node}`)
  }
})

t.test('what a gateway says of itself is older or newer by its term', async (t) => {
  const known = new Roles()
  for (const [name, role, issuedMs, news, result] of [
    ['the first word', { active: false, term: 2 }, 10, true, { active: false, term: 2 }],
    ['the role, in a higher term', { active: true, term: 3 }, undefined, true, { active: true, term: 3 }],
    ['the same again', { active: true, term: 3 }, 10, false, { active: true, term: 3 }],
    ['an older word, late', { active: false, term: 2 }, 10, false, { active: true, term: 3 }],
    ['the loss of it in the same term', { active: false, term: 3 }, undefined, true, { active: false, term: 3 }],
    ['its older claim, late', { active: true, term: 3 }, 10, false, { active: false, term: 3 }],
    ['a node that lost its disk and joined anew', { active: true, term: 0 }, 20, true, { active: true, term: 0 }],
  ] as const) {
    t.equal(known.learn('bay1', role, issuedMs), news, name)
    t.match(known.of('bay1'), result, `${name}: what counts`)
  }
})

t.test('a gateway that hands over', async (t) => {
  const known = new Roles()
  const bay = pools[0]!
  const activeOf = (...there: readonly string[]) => known.activeOf(bay, (node) => there.includes(node))
  known.learn('bay1', { active: true, term: 3 })
  known.handOver('bay1', 'bay2')
  t.equal(activeOf('bay1', 'bay2'), 'bay2', 'its successor counts in its place')
  t.equal(activeOf('bay1'), 'bay1', 'but none that has not announced itself')
  t.ok(known.hasJustLeft('bay1'))
  known.handOver('bay1', undefined)
  t.equal(activeOf('bay1', 'bay2'), 'bay1', 'a successor that does not come counts no longer')
  known.handOver('bay1', 'bay2')
  known.learn('bay2', { active: true, term: 4 })
  known.learn('bay1', { active: false, term: 4 })
  t.equal(activeOf('bay1', 'bay2'), 'bay2', 'the claim of one that comes is its own')
  known.learn('bay1', { active: true, term: 5 })
  t.equal(activeOf('bay1', 'bay2'), 'bay1', 'the role comes back in a higher term')
  known.forgetHandOver('bay1')
  t.notOk(known.hasJustLeft('bay1'))
})

t.test('a gateway that has just left stays a peer before all standbys', async (t) => {
  const wide = { ...pools[0]!, gateways: ['bay1', 'bay2', 'bay3', 'bay4'] }
  const view = roles({ bay1: { active: true, term: 1 } })
  const standbys = (hasJustLeft: (node: string) => boolean) =>
    planPeers('cape1', [wide, ...pools.slice(1)], announced(...wide.gateways), { ...view, hasJustLeft })!
      .peers.filter(({ standby }) => standby)
      .map(({ node }) => node)
  t.strictSame(
    standbys(() => false),
    ['bay2', 'bay3'],
  )
  t.strictSame(
    standbys((node) => node === 'bay4'),
    ['bay4', 'bay2'],
  )
})

t.test('prefixes while a pool moves to a gateway on another rung', async (t) => {
  const { peers } = planPeers('cape1', pools, announced('bay1', 'bay2'), roles({ bay2: { active: true, term: 1 } }))!
  const [to, from] = peers as [(typeof peers)[number], (typeof peers)[number]]
  const cidrs = ['10.1.1.0/24', '10.1.2.0/24']
  const own = (peer: typeof to) => peer.allowedIps.filter((prefix) => !cidrs.includes(prefix))
  const partings = [{ from, to, rung: 'direct' as const }]
  t.strictSame(partingIps(from, 'direct', partings), [...cidrs, ...own(from)], 'the device in use: not yet moved')
  t.strictSame(partingIps(to, 'direct', partings), own(to))
  t.strictSame(partingIps(from, 'relay-udp', partings), own(from), 'the others: moved')
  t.strictSame(partingIps(to, 'relay-udp', partings), [...cidrs, ...own(to)])
  t.strictSame(partingIps(to, 'direct', []), to.allowedIps, 'on the same rung: moved at once')
})

t.test('a node that the cluster does not know has no plan', async (t) => {
  t.equal(planPeers('nobody', pools, announced('bay1'), roles()), undefined)
})

t.test('a pool that has no tunnels is nobody’s peer, and has none', async (t) => {
  const without = pools.map((pool) => (pool.name === 'bay' ? { ...pool, gateways: [] } : pool))
  const plan = planPeers('cape1', without, announced('bay1', 'cape1'), roles())!
  t.strictSame([plan.peers, plan.waiting.map(({ pool }) => pool)], [[], ['dune']])
  t.match(planPeers('bay1', without, announced('cape1'), roles()), { active: false, peers: [], waiting: [] })
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
    const [peer] = planPeers('cape1', declared, announcements, roles())!.peers
    t.strictSame(peer!.candidates, [host, ...fixed, found], name)
  }
})

t.test('what did not change is the same value in the next plan', async (t) => {
  const dune = { ...pool('dune', '10.3.2.0/24'), name: 'dune' }
  const changed = (by: Announcement) => new Map(all).set(by.node, by)
  const candidate = { kind: 'host', address: { address: '10.9.0.1', port: 1, family: 4 } } as const
  const all = announced('bay1', 'bay2', 'cape1', 'dune1')
  all.set('bay2', { ...all.get('bay2')!, candidates: [candidate] })
  const first = planPeers('cape1', pools, all, roles())!
  for (const [name, nextPools, announcements, said, kept] of [
    ['nothing', pools, all, {}, ['bay1', 'dune1', 'bay2']],
    ['an announcement', pools, changed({ ...all.get('bay1')!, sequence: 2 }), {}, ['dune1', 'bay2']],
    ['a pool', [...pools.slice(0, 2), dune], all, {}, ['bay1', 'bay2']],
    ['a pool that is there now', [...pools, pool('elbe', '10.4.0.0/24')], all, {}, ['bay1', 'dune1', 'bay2']],
    ['one in which a peer has an address', [...pools, pool('elbe', '10.9.0.0/24')], all, {}, ['bay1', 'dune1']],
    ['a role', pools, all, { bay2: { active: true, term: 1 } }, ['dune1']],
  ] as const) {
    const next = planPeers('cape1', nextPools, announcements, roles(said), first)!
    const same = next.peers.filter((peer) => first.peers.includes(peer))
    t.strictSame(
      same.map(({ node }) => node),
      kept,
      name,
    )
    const anew = planPeers('cape1', nextPools, announcements, roles(said))!
    t.strictSame(next.peers, anew.peers, `${name}: as if planned without the plan before`)
  }
})
