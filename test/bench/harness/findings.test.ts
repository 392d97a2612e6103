import t from 'tap'
import { compareTriples, renderFindings, studyResultOf, type Finding } from '../../../bench/harness/findings.ts'

const judge = (finding: Partial<Finding>) => {
  const all = { name: 'x', title: 'x', unit: 'ms' as const, value: 10, ...finding }
  return studyResultOf({ text: 'How?' }, { findings: [all], notes: [] }).holds
}
const beyond = { of: 'ratio', is: 'at least', limit: 0.98, beyondSame: true } as const
const ratio = { ratio: 0.97, low: 0.9, high: 1 }

t.test('bounds', async (t) => {
  const rows: readonly [name: string, finding: Partial<Finding>, holds: boolean][] = [
    ['none', {}, true],
    ['a value under its limit', { bound: { of: 'value', is: 'at most', limit: 10 } }, true],
    ['a value over it', { bound: { of: 'value', is: 'at most', limit: 9.9 } }, false],
    ['a value that is enough', { bound: { of: 'value', is: 'at least', limit: 10 } }, true],
    ['a value that is not', { bound: { of: 'value', is: 'at least', limit: 10.1 } }, false],
    ['nothing measured', { value: NaN, bound: { of: 'value', is: 'at most', limit: 10 } }, false],
    ['a ratio', { ratio, bound: { of: 'ratio', is: 'at least', limit: 0.95 } }, true],
    ['a ratio that is too low', { ratio, bound: { of: 'ratio', is: 'at least', limit: 0.98 } }, false],
    ['a ratio that equal sides show too', { ratio, same: { ratio: 1, low: 0.96, high: 1.04 }, bound: beyond }, true],
    ['or the other way round', { ratio, same: { ratio: 1.03, low: 1.02, high: 1.04 }, bound: beyond }, true],
    ['one that they do not show', { ratio, same: { ratio: 1, low: 0.98, high: 1.02 }, bound: beyond }, false],
    ['one of too few rounds', { ratio, same: { ratio: 1, low: -Infinity, high: Infinity }, bound: beyond }, false],
    ['no ratio', { bound: { of: 'ratio', is: 'at least', limit: 0.1 } }, false],
  ]
  for (const [name, finding, holds] of rows) t.equal(judge(finding), holds, name)
})

t.test('drift over a round is no difference', async (t) => {
  const triples = Array.from({ length: 10 }, (_, i) => ({ before: 90 + i, value: 100 + i, after: 110 + i }))
  const { value, peer, ratio, same } = compareTriples(triples)
  t.same([value, peer, ratio.ratio], [104.5, 104.5, 1])
  t.ok(same.ratio > 1.2, 'but between equal sides it shows')
})

t.test('a table for people', async (t) => {
  const findings: Finding[] = [
    {
      name: 'rtt',
      title: 'RTT',
      unit: 'ms',
      value: 1.05,
      peer: 1,
      ratio: { ratio: 1.05, low: 1, high: 1.1 },
      same: { ratio: 1, low: -Infinity, high: Infinity },
      bound: { of: 'ratio', is: 'at most', limit: 1.04 },
    },
    { name: 'idle', title: 'idle', unit: 'bytes/h', value: 123456 },
  ]
  const text = renderFindings(studyResultOf({ text: 'How?' }, { findings, notes: ['by hand'] }))
  t.match(text, /^How\?\nby hand\n/)
  t.match(text, /RTT +1\.05 ms +1\.00 ms +1\.050 +1\.000 – 1\.100 +1\.000 \(too few rounds\) +≤ 1\.04 +FALLS SHORT/)
  t.match(text, /idle +123,456 bytes\/h\n/)
})
