import t from 'tap'
import { isRoot } from '../lib/netns.ts'
import { parseOptions } from '../../lib/config.ts'
import { cutRules, lengthOf, passagesOf, payloadOf, SLOTS_MAX, type Passage } from './matrix-core.ts'
import { expectedPath } from './matrix-expected.ts'
import { MATRIX } from './matrix-options.ts'
import { ALL_SITES, nextPair, pairsOf, roundsOf, type MatrixSites } from './matrix-plan.ts'
import { contentionOf, faultsOf, rowsOf } from './matrix-report.ts'
import { firstArrivalMs, longestGapMs, lossesOf, pathOf, type Trial } from './matrix-trial.ts'
import { runMatrix, type MatrixValues } from './matrix.ts'
import { NAT_TYPES, parseNatName, type NatName } from './nat.ts'

t.setTimeout(120_000)

t.test('which pairs punch', async (t) => {
  /** Each site with those it does not reach directly over IPv4; UDP blocked apart. */
  const strict = ['port-restricted', 'first-packet-race', 'port-not-preserved', 'double']
  const hard = ['address-dependent', 'symmetric', 'symmetric-hash', 'symmetric-sequential', 'full-cone+symmetric']
  const open = ['full-cone', 'restricted', 'none']
  const all = [...strict, ...hard, ...open].map(parseNatName)
  for (const a of all)
    for (const b of all) {
      const relayed = hard.includes(a) && !open.includes(b) ? true : hard.includes(b) && !open.includes(a)
      t.equal(expectedPath(a, b, 'v4', true), relayed ? 'relay-udp' : 'direct', `${a} and ${b}`)
    }
  for (const a of NAT_TYPES) {
    t.equal(expectedPath(a, 'udp-blocked', 'dual', false), 'relay-tcp', `${a} where UDP is blocked`)
    if (a !== 'udp-blocked') t.equal(expectedPath(a, 'symmetric', 'v6', true), 'direct', `${a} over IPv6`)
  }
  t.equal(expectedPath('symmetric', 'udp-blocked+full-cone', 'v4', true), 'relay-tcp', 'blocked by one of two')
})

t.test('pairs and rounds', async (t) => {
  const pairs = pairsOf(ALL_SITES)
  t.equal(pairs.length, (ALL_SITES.size * (ALL_SITES.size - 1)) / 2)
  const rounds = roundsOf(20, 3, 10)
  for (const initiator of ['a', 'b'])
    for (const staggerMs of [0, 400])
      t.equal(
        rounds.filter((each) => each.lossPercent === 0 && each.initiator === initiator && each.staggerMs === staggerMs)
          .length,
        5,
        `${initiator} first, ${staggerMs} ms`,
      )
  t.strictSame(
    rounds.filter(({ withBreak }) => withBreak).map(({ initiator, staggerMs }) => `${initiator} ${staggerMs}`),
    ['a 0', 'b 0', 'a 400', 'b 400'],
    'breaks with both initiators and staggers',
  )
  t.strictSame(
    rounds.filter(({ lossPercent }) => lossPercent === 10).map(({ number }) => number),
    [8, 16, 23],
    'losses in between',
  )
  const busy = new Map([
    ['full-cone', 1],
    ['restricted', 1],
  ])
  t.strictSame(nextPair(pairs, busy), { a: 'port-restricted', b: 'first-packet-race' }, 'whose sites have least to do')
})

t.test('lengths tell streams apart', async (t) => {
  for (let slot = 0; slot < SLOTS_MAX; slot++)
    for (const [family, headers] of [
      [4, 28],
      [6, 48],
    ] as const) {
      const inner = payloadOf(slot, family) + headers
      t.equal(inner % 16, 0, 'WireGuard pads nothing')
      t.equal(lengthOf(slot), inner + 32 + 8)
    }
})

t.test('what the core saw', async (t) => {
  const json = JSON.stringify({
    nftables: [
      { metainfo: {} },
      { set: { name: 'seen_ip', elem: [element('198.18.1.2', '198.18.2.2', 296, 5)] } },
      { set: { name: 'seen_ip6' } },
      { set: { name: 'cut_ip', elem: [{ concat: ['198.18.1.2', '198.18.2.2'] }] } },
    ],
  })
  t.strictSame(passagesOf(json), [{ from: '198.18.1.2', to: '198.18.2.2', length: 296, packets: 5 }])

  const [a, b, relay] = ['198.18.1.2', '198.18.2.2', '203.0.113.10']
  const direct = { from: a, to: b, length: 296, packets: 7 }
  const relayed = { from: relay, to: b, length: 296, packets: 7 }
  const rows: readonly (readonly [string, readonly Passage[], readonly Passage[], boolean, string])[] = [
    ['straight', [], [direct], true, 'direct'],
    ['the other way', [], [{ ...direct, from: b, to: a }], true, 'direct'],
    ['over the relay', [{ ...direct }], [{ ...direct }, relayed], true, 'relay-udp'],
    ['both ways at once', [], [direct, relayed], true, 'mixed'],
    ['of another length', [], [{ ...direct, length: 312 }], true, 'relay-tcp'],
    ['of another pair', [], [{ ...direct, from: '198.18.3.2', to: relay }], true, 'relay-tcp'],
    ['none', [], [], false, 'nothing'],
  ]
  for (const [name, before, after, arrived, path] of rows)
    t.equal(pathOf(before, after, 296, [a], [b], arrived), path, name)
  t.equal(
    cutRules('add', ['198.18.1.2', '2001:db8:101::11'], ['198.18.2.2', '2001:db8:102::11']),
    `add element inet matrix cut_ip { 198.18.1.2 . 198.18.2.2 }
add element inet matrix cut_ip { 198.18.2.2 . 198.18.1.2 }
add element inet matrix cut_ip6 { 2001:db8:101::11 . 2001:db8:102::11 }
add element inet matrix cut_ip6 { 2001:db8:102::11 . 2001:db8:101::11 }
`,
  )
})

const element = (from: string, to: string, length: number, packets: number) => ({
  elem: { val: { concat: [from, to, length] }, counter: { packets } },
})

t.test('what both ends tell', async (t) => {
  const sender = { trial: 1, sentAt: [100, 110, 120, 130, 140, 150], arrived: [] }
  const receiver = {
    trial: 1,
    sentAt: [],
    arrived: [
      [1, 112],
      [4, 141],
      [2, 142],
    ] as const,
  }
  t.strictSame(lossesOf(sender, receiver, 145), { sent: 5, lost: 1, lostBefore: 1 })
  t.strictSame(lossesOf(sender, { ...receiver, arrived: [] }, 145), { sent: 5, lost: 0, lostBefore: 5 }, 'nothing came')
  t.equal(longestGapMs(receiver, 115, 150), 29)
  t.equal(longestGapMs(receiver, 142, 900), 758, 'nothing came after the cut')
  t.equal(firstArrivalMs(receiver), 112)
})

t.test('what falls short', async (t) => {
  const sites: MatrixSites = new Map<string, NatName>([
    ['one', 'full-cone'],
    ['two', 'restricted'],
  ])
  const [round] = roundsOf(1, 0, 10)
  const good: Trial = {
    pair: { a: 'one', b: 'two' },
    round: round!,
    path: 'direct',
    said: ['direct', 'direct'],
    relayedMs: 20,
    settledMs: 300,
    sent: 100,
    lost: 0,
    lostBefore: 0,
    outageMs: 900,
  }
  const part = { underlay: 'v4', firewall6: true, sites } as const
  const shares = [
    [0.99, 0.4, /other programs had 59 % of the processors/],
    [0.99, 0.95, undefined],
    [0.5, 0.1, undefined],
  ] as const
  for (const [busy, busyByLab, note] of shares) {
    const said = contentionOf({ part, trials: [], rounds: 0, tookMs: 1, busy, busyByLab })
    if (note === undefined) t.equal(said, undefined, `${busy} busy, ${busyByLab} with the lab`)
    else t.match(said, note)
  }
  const faults = (trials: readonly Trial[]) =>
    rowsOf({ part, trials, rounds: trials.length, tookMs: 1, busy: 0, busyByLab: 0 }).flatMap(faultsOf)
  const times = (count: number, trial: Trial) => Array.from({ length: count }, () => trial)
  const lossy = { ...round!, lossPercent: 10 }
  const rows: readonly (readonly [string, readonly Trial[], readonly RegExp[]])[] = [
    ['all well', times(20, good), []],
    ['once relayed in 20', [...times(19, good), { ...good, path: 'relay-udp' }], []],
    ['twice', [...times(18, good), ...times(2, { ...good, path: 'relay-udp' })], [/direct in 18 of 20 .*relay-udp 2/]],
    ['slow', times(20, { ...good, settledMs: 1500 }), [/direct after 1500 ms in the median/]],
    ['one packet', [...times(19, good), { ...good, lost: 1 }], [/1 of 2000 packets lost over the switch/]],
    ['with loss', [...times(20, good), { ...good, round: lossy, lost: 9, path: 'relay-tcp', settledMs: 9000 }], []],
  ]
  for (const [name, trials, expected] of rows) {
    const found = faults(trials)
    t.equal(found.length, expected.length, name)
    expected.forEach((pattern, index) => t.match(found[index], pattern, name))
  }
})

t.test('a small one', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const args = ['--nat', 'cone=full-cone,strict=port-restricted,blocked=udp-blocked', '--rounds', '1']
  const parsed = parseOptions(MATRIX, ['--id', `x${process.pid % 100_000}`, ...args, '--lossy-rounds', '0'], {})
  if (parsed.kind !== 'ok') return t.fail('options', { parsed })
  const { parts } = await runMatrix(
    parsed.values satisfies MatrixValues,
    (line) => t.comment(line),
    new AbortController().signal,
  )
  const rows = rowsOf(parts[0]!)
  t.strictSame(
    rows.map(({ a, b, expected, actual }) => ({ a, b, expected, actual })),
    [
      { a: 'cone', b: 'strict', expected: 'direct', actual: [['direct', 1]] },
      { a: 'cone', b: 'blocked', expected: 'relay-tcp', actual: [['relay-tcp', 1]] },
      { a: 'strict', b: 'blocked', expected: 'relay-tcp', actual: [['relay-tcp', 1]] },
    ],
  )
  for (const { a, b, expected, lost, sent } of rows) {
    t.ok(sent > 100, `${a} ↔ ${b}: ${sent} packets`)
    // test/mesh/switch.test.ts holds losses over the switch to none.
    t.comment(`${a} ↔ ${b}, ${expected}: ${lost} of ${sent} packets lost`)
  }
})
