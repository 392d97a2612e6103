import t from 'tap'
import { mean, medianOf, pairedRatio, percentile, studentT95 } from '../../../bench/harness/statistics.ts'

const hundred = Array.from({ length: 100 }, (_, i) => 100 - i)
const percentiles: readonly [name: string, values: readonly number[], p: number, expected: number][] = [
  ['the only one', [7], 0.99, 7],
  ['median of an odd number', [3, 1, 2], 0.5, 2],
  ['median of an even number: the lower', [4, 1, 3, 2], 0.5, 2],
  ['p99 of a hundred', hundred, 0.99, 99],
  ['p100', hundred, 1, 100],
  ['p0', hundred, 0, 1],
]
for (const [name, values, p, expected] of percentiles) t.equal(percentile(values, p), expected, name)
t.throws(() => percentile([], 0.5), RangeError)
t.equal(mean([1, 2, 6]), 3)

// Quantiles from printed tables of Student's t.
const quantiles: readonly [freedom: number, expected: number][] = [
  [1, 12.706],
  [9, 2.262],
  [10, 2.228],
  [11, 2.201],
  [20, 2.086],
  [30, 2.042],
  [39, 2.042],
  [40, 2.021],
  [5000, 1.962],
]
for (const [freedom, expected] of quantiles) t.equal(studentT95(freedom), expected, `t with ${freedom}`)

const near = (actual: number, expected: number): boolean => Math.abs(actual - expected) < 1e-3

t.test('ratios of pairs', async (t) => {
  const equal = pairedRatio([
    [2, 2],
    [5, 5],
  ])
  t.same(equal, { ratio: 1, low: 1, high: 1 }, 'equal sides, whatever the rounds')
  const drifting = pairedRatio([
    [1.1, 1],
    [11, 10],
    [110, 100],
  ])
  t.ok(
    near(drifting.ratio, 1.1) && near(drifting.low, 1.1) && near(drifting.high, 1.1),
    'drift that hits both is no noise',
  )
  const symmetric = pairedRatio([
    [2, 1],
    [1, 2],
  ])
  t.ok(near(symmetric.ratio, 1), 'twice and half are even')
  // logs 0.0953, 0.1823, 0.2624: mean 0.18, deviation 0.08355, t 4.303: margin 0.2076
  const worked = pairedRatio([
    [1.1, 1],
    [1.2, 1],
    [1.3, 1],
  ])
  t.ok(near(worked.ratio, 1.1972) && near(worked.low, 0.9728) && near(worked.high, 1.4734), 'worked by hand')
  t.same(pairedRatio([[3, 2]]), { ratio: 1.5, low: 0, high: Infinity }, 'one round tells nothing of its error')
})

t.test('the interval covers the truth about 95 times in 100', async (t) => {
  let state = 12345
  const random = (): number => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31
  const normal = (): number => Math.sqrt(-2 * Math.log(random() || 1e-9)) * Math.cos(2 * Math.PI * random())
  let covered = 0
  for (let trial = 0; trial < 1000; trial++) {
    const { low, high } = pairedRatio(Array.from({ length: 10 }, () => [1.2 * Math.exp(0.1 * normal()), 1] as const))
    if (low <= 1.2 && 1.2 <= high) covered++
  }
  t.ok(covered > 925 && covered < 975, `${covered} of 1000`)
})

t.test('the median lies between values that hold the true one', async (t) => {
  const count = (n: number): number[] => Array.from({ length: n }, (_, i) => n - i)
  const rows: readonly [n: number, median: number, low: number, high: number][] = [
    [1, 1, -Infinity, Infinity],
    [5, 3, -Infinity, Infinity],
    // 2 × 0.5^6 = 3.1 %
    [6, 3.5, 1, 6],
    [10, 5.5, 2, 9],
    [12, 6.5, 3, 10],
    [20, 10.5, 6, 15],
  ]
  for (const [n, ratio, low, high] of rows) t.same(medianOf(count(n)), { ratio, low, high }, `${n} values`)
  t.throws(() => medianOf([]), RangeError)
})
