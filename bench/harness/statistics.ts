// What rounds of two sides say: percentiles, and the ratio of the sides with its 95 % interval.
//
// Both sides run once in each round, one right after the other, so a round is a pair and what drifts (other load, heat)
// hits both. The logarithms of the rounds' ratios are averaged: x and 1/x weigh the same. The interval is Student's t
// over the rounds, not over the calls, which are not independent of each other.

export type Ratio = {
  /** Over the rounds; 1 means equal. */
  readonly ratio: number
  readonly low: number
  readonly high: number
}

/** @param values in any order, at least one. @param p from 0 to 1. Nearest rank: always one of the values. */
export function percentile(values: readonly number[], p: number): number {
  if (values.length === 0) throw new RangeError('percentile of no values')
  const sorted = Float64Array.from(values).toSorted()
  return sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)]!
}

export const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length

/** The geometric mean.
 * @param pairs of positive numbers, a subject's and its peer's of one round each. One round has no interval: it is infinite. */
export function pairedRatio(pairs: readonly (readonly [subject: number, peer: number])[]): Ratio {
  const logs = pairs.map(([subject, peer]) => Math.log(subject / peer))
  const middle = mean(logs)
  if (logs.length < 2) return { ratio: Math.exp(middle), low: 0, high: Infinity }
  const variance = logs.reduce((sum, log) => sum + (log - middle) ** 2, 0) / (logs.length - 1)
  const margin = studentT95(logs.length - 1) * Math.sqrt(variance / logs.length)
  return { ratio: Math.exp(middle), low: Math.exp(middle - margin), high: Math.exp(middle + margin) }
}

/**
 * The median, and an interval that holds the true one with 95 % or more whatever the distribution: between two of the
 * values, by the binomial distribution of how many of them lie below it. Fewer than six values have no such interval.
 * @param values in any order, at least one.
 */
export function medianOf(values: readonly number[]): Ratio {
  if (values.length === 0) throw new RangeError('median of no values')
  const sorted = Float64Array.from(values).toSorted()
  const count = sorted.length
  const ratio = (sorted[(count - 1) >> 1]! + sorted[count >> 1]!) / 2
  // P(at most k of n below the median), summed until it would pass 2.5 %.
  let probability = 0.5 ** count
  let below = 0
  let left = -1
  while ((below += probability) <= 0.025) {
    left++
    probability *= (count - left) / (left + 1)
  }
  return left < 0
    ? { ratio, low: -Infinity, high: Infinity }
    : { ratio, low: sorted[left]!, high: sorted[count - 1 - left]! }
}

/** The two-sided 95 % quantile of Student's t; between the rows of the table the next smaller freedom, which is wider. */
export function studentT95(freedom: number): number {
  const row = T95.findLast(([least]) => freedom >= least)
  if (row === undefined) throw new RangeError(`Student's t with ${freedom} degrees of freedom`)
  return row[1]
}

const T95: readonly (readonly [freedom: number, t: number])[] = [
  ...[12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228].map((t, i) => [i + 1, t] as const),
  ...[2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086].map((t, i) => [i + 11, t] as const),
  ...[2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042].map((t, i) => [i + 21, t] as const),
  [40, 2.021],
  [60, 2],
  [120, 1.98],
  [1000, 1.962],
]
