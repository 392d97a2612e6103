// Which nodes count as alive, by what is heard of them, in virtual time.

import t from 'tap'
import { Liveness } from '../../lib/liveness.ts'

const STEP_MS = 200
const members = new Set(['bay2', 'bay3'])

/** Runs from 0 in steps. @param answers what a node's kernel or agent does when it is asked. */
function run(
  untilMs: number,
  hears: (node: string, nowMs: number) => boolean,
  answers: (node: string, nowMs: number) => boolean = () => false,
  skip: (nowMs: number) => boolean = () => false,
) {
  const liveness = new Liveness()
  const asked: { node: string; atMs: number }[] = []
  const silent: { nodes: string; atMs: number }[] = []
  for (let nowMs = 0; nowMs <= untilMs; nowMs += STEP_MS) {
    if (skip(nowMs)) continue
    for (const node of members) if (nowMs % 1_000 === 0 && hears(node, nowMs)) liveness.sign(node, nowMs)
    for (const node of liveness.step(members, nowMs)) {
      asked.push({ node, atMs: nowMs })
      if (answers(node, nowMs)) liveness.sign(node, nowMs)
    }
    const nodes = liveness.silent(nowMs).join()
    if (nodes !== (silent.at(-1)?.nodes ?? '')) silent.push({ nodes, atMs: nowMs })
  }
  return { asked, silent }
}

t.test('a node that speaks is not asked', async (t) => {
  t.strictSame(
    run(20_000, () => true),
    { asked: [], silent: [] },
  )
})

t.test('one that stops is asked, and silent within 3 s; heard again at once', async (t) => {
  const { asked, silent } = run(20_000, (node, nowMs) => node !== 'bay3' || nowMs <= 5_000 || nowMs >= 15_000)
  t.strictSame(silent, [
    { nodes: 'bay3', atMs: 7_600 },
    { nodes: '', atMs: 15_000 },
  ])
  t.ok(asked.filter(({ atMs }) => atMs < 7_600).length >= 3, 'several questions before it is believed')
  const later = asked.filter(({ atMs }) => atMs >= 8_000 && atMs < 15_000).length
  t.ok(later >= 5 && later <= 8, `and one a second from then on: ${later} in 7 s`)
})

t.test('one whose agent is dead and whose kernel refuses is alive', async (t) => {
  const hears = (node: string, nowMs: number) => node !== 'bay3' || nowMs <= 5_000
  const refused = run(20_000, hears, () => true)
  t.strictSame(refused.silent, [])
  t.ok(refused.asked.length <= 10, `${refused.asked.length} questions in 15 s`)
  const died = run(20_000, hears, (_, nowMs) => nowMs < 10_000)
  t.match(died.silent, [{ nodes: 'bay3' }])
  t.ok(died.silent[0]!.atMs <= 13_000, `silent at ${died.silent[0]!.atMs} ms`)
})

t.test('one that was never heard is not known to be silent, nor one that left', async (t) => {
  t.strictSame(run(10_000, (node) => node === 'bay2').silent, [])
  const liveness = new Liveness()
  liveness.sign('bay9', 0)
  liveness.step(members, 200)
  t.strictSame(liveness.silent(10_000), [])
})

t.test('who did not run itself blames nobody', async (t) => {
  const stalled = (nowMs: number) => nowMs > 5_000 && nowMs < 12_000
  t.strictSame(run(20_000, () => true, undefined, stalled).silent, [])
})
