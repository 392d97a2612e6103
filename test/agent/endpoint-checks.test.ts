// Endpoints that are doubted, in virtual time: what is tried, what is dead, and how it comes back.

import t from 'tap'
import { CHECK_MS, EndpointChecks, type Outcome } from '../../agent/endpoint-checks.ts'

const STEP_MS = 100
const KEY = '10.244.2.10 8080'

type World = {
  readonly checks: EndpointChecks
  /** Every attempt. */
  readonly tried: { key: string; atMs: number }[]
  /** Every change of the dead. */
  readonly changes: { dead: string; atMs: number }[]
}
/** @param outcome of an attempt that begins now. @param doubted what calls go unanswered now. */
function run(
  untilMs: number,
  outcome: (nowMs: number, key: string) => Outcome,
  doubted: (nowMs: number) => readonly string[],
): World {
  const checks = new EndpointChecks()
  const tried: World['tried'] = []
  const changes: World['changes'] = []
  const running: { key: string; endsMs: number; outcome: Outcome }[] = []
  for (let nowMs = 0; nowMs <= untilMs; nowMs += STEP_MS) {
    for (const key of doubted(nowMs)) checks.doubt(key, 'own calls', nowMs)
    for (const done of running.splice(0)) {
      if (done.endsMs <= nowMs) checks.result(done.key, done.outcome, nowMs)
      else running.push(done)
    }
    for (const key of checks.step(nowMs)) {
      tried.push({ key, atMs: nowMs })
      const how = outcome(nowMs, key)
      running.push({ key, endsMs: nowMs + (how === 'silent' ? CHECK_MS : STEP_MS), outcome: how })
    }
    const dead = [...checks.dead].map(([key, verdict]) => `${key} ${verdict}`).join()
    if (dead !== (changes.at(-1)?.dead ?? '')) changes.push({ dead, atMs: nowMs })
  }
  return { checks, tried, changes }
}
const once = (atMs: number) => (nowMs: number) => (nowMs === atMs ? [KEY] : [])

t.test('what nobody doubts is not tried', async (t) => {
  t.strictSame(
    run(
      10_000,
      () => 'silent',
      () => [],
    ).tried,
    [],
  )
})

t.test('suspicion alone leaves out nothing', async (t) => {
  const { tried, changes, checks } = run(
    10_000,
    () => 'open',
    (nowMs) => (nowMs < 5_000 ? [KEY] : []),
  )
  t.strictSame(changes, [])
  t.ok(tried.length <= 6, `${tried.length} attempts in 5 s of suspicion`)
  t.ok(checks.idle)
})

t.test('what is dead leaves at once, and comes back when it answers', async (t) => {
  for (const [verdict, leavesMs, backMs] of [
    ['refused', 1_100, 11_000],
    ['silent', 1_000 + CHECK_MS, 12_200],
  ] as const) {
    const { changes } = run(20_000, (nowMs) => (nowMs < 10_000 ? verdict : 'open'), once(1_000))
    t.equal(changes.length, 2, verdict)
    t.match(changes[0], { dead: `${KEY} ${verdict}`, atMs: leavesMs }, verdict)
    t.ok(changes[1]!.dead === '' && changes[1]!.atMs <= backMs, `${verdict}: back at ${changes[1]!.atMs} ms`)
  }
})

t.test('dead for long: still looked at every few seconds', async (t) => {
  const { tried, changes } = run(600_000, (nowMs) => (nowMs < 590_000 ? 'refused' : 'open'), once(1_000))
  t.equal(changes.length, 2)
  t.ok(changes[1]!.atMs <= 593_000, `back at ${changes[1]!.atMs} ms`)
  t.ok(tried.length < 400, `${tried.length} attempts in 10 minutes`)
})

t.test('what was never anything but silent is tried by calls again, ever later', async (t) => {
  const { changes } = run(
    300_000,
    () => 'silent',
    () => [KEY],
  )
  const backs = changes.filter(({ dead }) => dead === '').map(({ atMs }) => atMs)
  t.ok(backs.length >= 2 && backs.length <= 4, `on trial at ${backs.join(', ')} ms`)
  t.ok(backs[0]! >= 30_000 && backs[1]! - backs[0]! >= 60_000)
  for (const [i, { dead, atMs }] of changes.entries())
    if (dead === '' && changes[i + 1] !== undefined)
      t.ok(changes[i + 1]!.atMs - atMs <= 2_000, 'dead again as soon as it fails')
})

t.test('on trial and well: forgotten', async (t) => {
  const { checks, changes } = run(200_000, () => 'silent', once(1_000))
  t.equal(changes.length, 2)
  t.ok(checks.idle)
})

t.test('what is no endpoint any more is forgotten', async (t) => {
  const { checks } = run(5_000, () => 'refused', once(1_000))
  t.equal(checks.dead.size, 1)
  checks.retain(() => false)
  t.equal(checks.dead.size, 0)
  t.ok(checks.idle)
})

t.test('a thousand doubts: bounded, and each in its turn', async (t) => {
  const keys = Array.from({ length: 1_000 }, (_, i) => `10.244.${i >> 8}.${i & 255} 80`)
  const { tried, checks } = run(
    30_000,
    () => 'refused',
    () => keys,
  )
  t.ok(tried.length <= 50 * 31, `${tried.length} attempts in 30 s`)
  t.equal(new Set(tried.map(({ key }) => key)).size, 512)
  t.equal(checks.dead.size, 512)
})

t.test('what others say is looked into, not handed on, and does not end a trial', async (t) => {
  const checks = new EndpointChecks()
  const fail = (nowMs: number) => {
    for (const key of checks.step(nowMs)) checks.result(key, 'silent', nowMs)
  }
  checks.doubt(KEY, 'others', 0)
  fail(0)
  t.strictSame([checks.dead.size, checks.met], [1, []], 'dead here too')
  for (let nowMs = 1_000; nowMs <= 40_000; nowMs += 1_000) {
    checks.doubt(KEY, 'others', nowMs)
    fail(nowMs)
  }
  t.equal(checks.dead.size, 0, 'on trial, whatever others say')
  checks.doubt(KEY, 'own calls', 41_000)
  fail(41_000)
  t.strictSame([checks.dead.size, checks.met], [1, [KEY]])
})
