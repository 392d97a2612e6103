// Calls that go unanswered, by when each endpoint was last called and last answered.

import t from 'tap'
import { Unanswered, WATCH_MS } from '../../agent/call-watch.ts'

const KEY = '10.244.2.10 8080'

/** When calls left and answers came, ms. @returns when it was found late. */
function late(calls: readonly number[], answers: readonly number[], everyMs = 500, endMs = 6_000): readonly number[] {
  const unanswered = new Unanswered()
  const found: number[] = []
  const last = (of: readonly number[], nowMs: number) => of.filter((atMs) => atMs <= nowMs).at(-1)
  const ages = (of: readonly number[], nowMs: number) => {
    const atMs = last(of, nowMs)
    return new Map(atMs === undefined || nowMs - atMs >= WATCH_MS ? [] : [[KEY, nowMs - atMs]])
  }
  for (let nowMs = everyMs; nowMs <= endMs; nowMs += everyMs)
    if (unanswered.look(ages(calls, nowMs), ages(answers, nowMs), nowMs).length > 0) found.push(nowMs)
  return found
}
const every = (ms: number, fromMs: number, toMs: number) =>
  Array.from({ length: Math.floor((toMs - fromMs) / ms) }, (_, i) => fromMs + i * ms)

t.test('which calls are late', async (t) => {
  const steady = every(20, 0, 6_000)
  for (const [name, found] of [
    ['no calls', late([], [])],
    [
      'a steady stream that is answered',
      late(
        steady,
        steady.map((ms) => ms + 1),
      ),
    ],
    ['answered after 300 ms', late(every(100, 0, 6_000), every(100, 300, 6_000))],
    ['one call just before a look, answered after it', late([499], [501])],
    ['calls a second apart, each answered', late(every(1_000, 490, 6_000), every(1_000, 510, 6_000))],
  ] as const)
    t.strictSame(found, [], name)
  for (const [name, found, firstMs] of [
    ['a steady stream that is not answered any more', late(steady, every(20, 1, 2_000)), 2_500],
    ['never answered', late(steady, []), 1_000],
    ['one call alone', late([1_050], []), 1_500],
    ['a call every 2 s, the first answered', late([0, 2_000, 4_000], [1]), 2_500],
  ] as const)
    t.ok(found[0] !== undefined && found[0] <= firstMs, `${name}: found at ${found[0]} ms`)
  t.ok(late(steady, every(20, 1, 2_000)).length >= 7, 'and found at each look, as long as it goes on')
})
