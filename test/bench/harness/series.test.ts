import t from 'tap'
import { renderSeries, seriesResultOf } from '../../../bench/harness/series.ts'

const figures = {
  directMs: { title: 'direct', unit: 'ms', bound: 3000 },
  lost: { title: 'packets lost', unit: '', bound: 0 },
  counted: { title: 'packets counted', unit: '' },
} as const

t.test('median, maximum, and bounds that every round must keep', async (t) => {
  const samples = [
    { directMs: 900, lost: 0, counted: 1000 },
    { directMs: 2900, lost: 0, counted: 1010 },
    { directMs: 1100, lost: 1, counted: 990 },
  ]
  const result = seriesResultOf({ text: 'How soon?', figures }, ['2 cores'], samples)
  t.match(result.figures, {
    directMs: { median: 1100, max: 2900, holds: true },
    lost: { median: 0, max: 1, holds: false },
    counted: { median: 1000, holds: true },
  })
  t.equal(result.holds, false)
  t.match(renderSeries(result), /packets lost +0 +1 +≤ 0 +FALLS SHORT/)
})

t.test('a figure that a round did not bring falls short', async (t) => {
  t.equal(seriesResultOf({ text: '', figures }, [], [{ directMs: 1 }]).figures['lost']?.holds, false)
})
