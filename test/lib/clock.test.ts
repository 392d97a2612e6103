import t from 'tap'
import { createClock } from '../../lib/clock.ts'

const T = Date.parse('2027-03-01T12:00:00Z')
const HOUR_MS = 3_600_000

t.test('a clock has a floor', (t) => {
  let wallMs = T + HOUR_MS
  const kept: number[] = []
  const clock = createClock(
    T,
    (floorMs) => void kept.push(floorMs),
    () => wallMs,
  )
  const rows: readonly [name: string, wallMs: number, isBehind: boolean, nowMs: number][] = [
    ['right', T + HOUR_MS, false, T + HOUR_MS],
    ['a minute late', T - 60_000, false, T - 60_000],
    ['an hour late', T - HOUR_MS, true, T],
    ['1970', 30_000, true, T],
  ]
  for (const [name, wall, isBehind, nowMs] of rows) {
    wallMs = wall
    t.equal(clock.isBehind(), isBehind, name)
    t.equal(clock.now(), nowMs, name)
  }
  clock.atLeast(T - 1)
  clock.atLeast(NaN)
  t.same(kept, [], 'what is older says nothing')
  clock.atLeast(T + 2 * HOUR_MS)
  t.same(kept, [T + 2 * HOUR_MS])
  t.equal(clock.now(), T + 2 * HOUR_MS, 'still in 1970')
  wallMs = T + 3 * HOUR_MS
  t.notOk(clock.isBehind(), 'set')
  t.end()
})
