import t from 'tap'
import { candidateStatus, isDoubtful, obstacleOf, reasonOf, type Obstacle } from '../../gateway/path-reason.ts'
import { Path } from '../../gateway/path.ts'
import type { TriedCandidate } from '../../gateway/punch.ts'
import type { NatBehaviour } from '../../lib/status.ts'

const nat = (
  mapping: NatBehaviour['mapping'],
  filtering: NatBehaviour['filtering'],
  more: Partial<NatBehaviour> = {},
): NatBehaviour => ({ mapping, filtering, udp: 'open', ...more })
const HARD = 'address-and-port-dependent'
const EASY = 'endpoint-independent'
const FULL_CONE = nat(EASY, EASY, { mapped: '198.18.1.2:5' })
const PORT_RESTRICTED = nat(EASY, HARD, { mapped: '198.18.2.2:5' })
const SYMMETRIC = nat(HARD, HARD, { mapped: '198.18.3.2:5' })
const FIREWALL = nat('none', HARD)
const BLOCKED: NatBehaviour = { mapping: 'unknown', filtering: 'unknown', udp: 'blocked' }
const behind = (address: string, hairpin?: boolean): NatBehaviour =>
  nat(EASY, EASY, { mapped: `${address}:7`, ...(hairpin === undefined ? {} : { hairpin }) })

const rows: readonly [name: string, own: NatBehaviour, peer: NatBehaviour, expected: Obstacle | undefined][] = [
  ['cones', FULL_CONE, PORT_RESTRICTED, undefined],
  ['symmetric and full cone', SYMMETRIC, FULL_CONE, undefined],
  ['symmetric and port restricted', SYMMETRIC, PORT_RESTRICTED, 'nats'],
  ['symmetric and a firewall', SYMMETRIC, FIREWALL, 'nats'],
  ['symmetric both', SYMMETRIC, { ...SYMMETRIC, mapped: '198.18.4.2:5' }, 'nats'],
  ['UDP is blocked', BLOCKED, FULL_CONE, 'udp-blocked'],
  ['one NAT that does not hairpin', behind('198.18.1.2', false), behind('198.18.1.2'), 'one-nat'],
  ['one NAT that does', behind('198.18.1.2', true), behind('198.18.1.2'), undefined],
  ['one NAT, not known', behind('198.18.1.2'), behind('198.18.1.2'), undefined],
]
for (const [name, own, peer, expected] of rows) {
  t.equal(obstacleOf(own, peer), expected, name)
  t.equal(obstacleOf(peer, own), expected, `${name}, the other way`)
}

t.test('a cold pair', async (t) => {
  const path = new Path({ controlling: true, rung: 'cold', nowMs: 0, coldAfterMs: 1e9, always: false })
  t.match(reasonOf(path, SYMMETRIC, SYMMETRIC, 'south', 1000), /^no traffic: the first packet .* wakes it$/)
})

t.test('when agents are told that a path is silent', async (t) => {
  for (const [name, rung, silentMs, expected] of [
    ['it answers', 'direct', 0, false],
    ['a burst of echoes is under way', 'direct', 800, false],
    ['silent', 'direct', 1_600, true],
    ['over the relay', 'relay-tcp', 1_600, true],
    ['it begins', 'none', 0, false],
    ['cold', 'cold', 0, false],
  ] as const)
    t.equal(isDoubtful({ rung, sinceMs: 0, silentMs: () => silentMs }, 2_000), expected, name)
  t.ok(isDoubtful({ rung: 'none', sinceMs: 0, silentMs: () => 0 }, 3_500), 'it never came up')
})

t.test('what came of a candidate', async (t) => {
  const address = { address: '198.18.2.2', port: 5, family: 4 } as const
  const tried = (more: Partial<TriedCandidate>): TriedCandidate => ({
    kind: 'reflexive',
    address,
    probes: 0,
    unanswered: 0,
    rttMs: undefined,
    answeredMs: -Infinity,
    probedMs: -Infinity,
    refused: false,
    ...more,
  })
  const once = { probes: 40, rttMs: 1.62, answeredMs: 77_000 }
  for (const [candidate, result, outcome] of [
    [tried({}), 'not tried yet', 'untried'],
    [tried({ probes: 40, unanswered: 40 }), 'no answer to 40 probes', 'silent'],
    [tried(once), 'answered in 1.6 ms', 'answered'],
    [tried({ ...once, answeredMs: 99_000, unanswered: 2 }), 'answered in 1.6 ms', 'answered'],
    [tried({ ...once, unanswered: 32 }), 'answered in 1.6 ms 23s ago, and to none of 32 probes since', 'silent'],
    [tried({ ...once, refused: true }), 'answered in 1.6 ms, but WireGuard did not get through', 'refused'],
  ] as const) {
    const told = candidateStatus(candidate, 100_000)
    t.same([told.result, told.outcome], [result, outcome], result)
  }
})
