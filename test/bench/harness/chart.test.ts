import t from 'tap'
import { renderChart } from '../../../bench/harness/chart.ts'
import type { Finding } from '../../../bench/harness/findings.ts'

const finding = (title: string, ratio: number, [low, high] = [ratio / 1.1, ratio * 1.1]): Finding => ({
  name: title,
  title,
  unit: 'µs',
  value: ratio,
  ratio: { ratio, low: low!, high: high! },
  same: { ratio: 1, low: 0.9, high: 1.1 },
})
const chartOf = (...findings: readonly Finding[]): string =>
  renderChart({
    question: 'a < b & c?',
    notes: ['a note'],
    findings: findings.map((each) => ({ ...each, holds: true })),
    holds: true,
  })
const centres = (svg: string): readonly number[] =>
  [...svg.matchAll(/<circle cx="([\d.]+)"/g)].map(([, x]) => Number(x))

t.test('a panel for each metric, a row for each figure', async (t) => {
  const svg = chartOf(finding('RTT: BPF', 1), finding('RTT: nft', 2), finding('connect: BPF', 0.5))
  t.equal(svg.match(/<g /g)?.length, 2)
  t.match(svg, />RTT, µs</)
  t.match(svg, />connect, µs</)
  t.equal(svg.match(/>BPF</g)?.length, 2)
  t.match(svg, 'a &lt; b &amp; c?', 'text is escaped')
  const [one, two, half] = centres(svg)
  t.ok(one! < two! && half! < one!, 'more is further to the right')
})

t.test('twice and half are as far from 1', async (t) => {
  const [half, one, two] = centres(chartOf(finding('x: a', 0.5), finding('x: b', 1), finding('x: c', 2)))
  t.ok(Math.abs(two! - one! - (one! - half!)) < 0.2)
})

t.test('what has no ratio, no interval or no metric', async (t) => {
  const { ratio: _ratio, ...bare } = finding('memory: agent', 1)
  t.equal(centres(chartOf(bare)).length, 0)
  t.notMatch(chartOf(finding('x: few rounds', 1.2, [-Infinity, Infinity])), /NaN|Infinity/)
  t.match(chartOf(finding('one stream', 1)), />one stream</)
  t.notMatch(chartOf(), /NaN|Infinity/)
})
