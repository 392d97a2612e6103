import t from 'tap'
import type { Sample } from '../../../bench/harness/question.ts'
import { renderResult, resultOf } from '../../../bench/harness/result.ts'
import { runRounds, type Round } from '../../../bench/harness/rounds.ts'

const sample = (ms: number, cpuMs: number): Sample => ({ latenciesMs: Array.from({ length: 100 }, () => ms), cpuMs })
const rounds: readonly Round[] = [
  { subject: sample(1.1, 60), peer: sample(1, 50) },
  { subject: sample(2.2, 60), peer: sample(2, 50) },
]
const question = { text: 'What does a call cost?', bounds: { p50: 1.15, cpu: 1.1 }, callsPerRound: 100 }

t.test('a bound that holds and one that falls short', async (t) => {
  const result = resultOf(question, { subject: 'fulmar', peer: 'by hand', notes: ['2 cores'] }, rounds)
  t.equal(result.holds, false)
  t.match(result.metrics, {
    p50: { holds: true, bound: 1.15 },
    p99: { holds: true },
    cpu: { holds: false, subject: 0.6, peer: 0.5 },
  })
  t.equal(
    renderResult(result),
    `What does a call cost?
2 interleaved rounds of 100 calls a side
2 cores

                 fulmar  by hand  ratio  95 % interval  bound
  p50           1.10 ms  1.00 ms   1.10  1.10 – 1.10    ≤ 1.15  holds
  p99           2.20 ms  2.00 ms   1.10  1.10 – 1.10
  CPU per call  0.60 ms  0.50 ms   1.20  1.20 – 1.20    ≤ 1.10  FALLS SHORT
`,
  )
})

t.test('rounds are interleaved, and the first does not count', async (t) => {
  const order: string[] = []
  const side = (name: string) => ({
    name,
    run: async (calls: number) => {
      order.push(`${name} ${calls}`)
      return sample(1, 1)
    },
  })
  const sides = { subject: side('a'), peer: side('b') }
  const seen: number[] = []
  const done = await runRounds(
    sides,
    { rounds: 3, callsPerRound: 60 },
    (index) => seen.push(index),
    new AbortController().signal,
  )
  t.same(order, ['a 60', 'b 60', 'a 60', 'b 60', 'b 60', 'a 60', 'a 60', 'b 60'])
  t.same(seen, [0, 1, 2])
  t.equal(done.length, 3)
  const stopped = AbortSignal.abort(new Error('stopped'))
  await t.rejects(
    runRounds(sides, { rounds: 1, callsPerRound: 1 }, () => {}, stopped),
    /stopped/,
  )
})
