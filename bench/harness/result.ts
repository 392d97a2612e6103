// The answer to a question: for each metric both sides, their ratio with its interval and whether its bound holds; as one
// object for machines and a table for people.

import { millisecondsText, renderTable } from '../../lib/text-table.ts'
import { METRICS, type Comparison, type Metric, type Sample } from './question.ts'
import type { Round } from './rounds.ts'
import { mean, pairedRatio, percentile, type Ratio } from './statistics.ts'

export type MetricResult = Ratio & {
  /** Milliseconds: a percentile over all calls of all rounds, or CPU per call. */
  readonly subject: number
  readonly peer: number
  readonly bound?: number
  readonly holds: boolean
}
export type Result = {
  readonly question: string
  readonly subject: string
  readonly peer: string
  readonly rounds: number
  readonly callsPerRound: number
  readonly notes: readonly string[]
  readonly metrics: Readonly<Record<Metric, MetricResult>>
  /** False if any bound falls short. */
  readonly holds: boolean
}

const MEASURE: Readonly<Record<Metric, (sample: Sample) => number>> = {
  p50: ({ latenciesMs }) => percentile(latenciesMs, 0.5),
  p99: ({ latenciesMs }) => percentile(latenciesMs, 0.99),
  cpu: ({ cpuMs, latenciesMs }) => cpuMs / latenciesMs.length,
}
/** Accounting in ticks may show no CPU at all in a short round; a ratio needs some. */
const LEAST_MS = 1e-6

export function resultOf(
  { text, bounds, callsPerRound }: Pick<Comparison, 'text' | 'bounds' | 'callsPerRound'>,
  names: { readonly subject: string; readonly peer: string; readonly notes: readonly string[] },
  rounds: readonly Round[],
): Result {
  const metricOf = (metric: Metric): MetricResult => {
    const measure = (sample: Sample): number => Math.max(LEAST_MS, MEASURE[metric](sample))
    const ratio = pairedRatio(rounds.map(({ subject, peer }) => [measure(subject), measure(peer)]))
    const bound = bounds[metric]
    return {
      subject: overall(
        metric,
        rounds.map((round) => round.subject),
      ),
      peer: overall(
        metric,
        rounds.map((round) => round.peer),
      ),
      ...ratio,
      ...(bound === undefined ? {} : { bound }),
      holds: bound === undefined || ratio.ratio <= bound,
    }
  }
  const metrics = { p50: metricOf('p50'), p99: metricOf('p99'), cpu: metricOf('cpu') }
  return {
    question: text,
    ...names,
    rounds: rounds.length,
    callsPerRound,
    metrics,
    holds: Object.values(metrics).every(({ holds }) => holds),
  }
}

function overall(metric: Metric, samples: readonly Sample[]): number {
  if (metric === 'cpu') return mean(samples.map(MEASURE.cpu))
  return MEASURE[metric]({ latenciesMs: samples.flatMap(({ latenciesMs }) => latenciesMs), cpuMs: 0 })
}

const TITLES: Readonly<Record<Metric, string>> = { p50: 'p50', p99: 'p99', cpu: 'CPU per call' }

export function renderResult(result: Result): string {
  const { question, subject, peer, rounds, callsPerRound, notes, metrics } = result
  const titles = ['', subject, peer, 'ratio', '95 % interval', 'bound', '']
  const rows = METRICS.map((metric) => {
    const { subject, peer, ratio, low, high, bound, holds } = metrics[metric]
    return [
      TITLES[metric],
      millisecondsText(subject),
      millisecondsText(peer),
      ratio.toFixed(2),
      `${low.toFixed(2)} – ${high.toFixed(2)}`,
      bound === undefined ? '' : `≤ ${bound.toFixed(2)}`,
      bound === undefined ? '' : holds ? 'holds' : 'FALLS SHORT',
    ]
  })
  const columns = titles.map((title, index) => ({
    title,
    align: index >= 1 && index <= 3 ? ('right' as const) : ('left' as const),
  }))
  return [
    `${question}\n`,
    `${rounds} interleaved rounds of ${callsPerRound} calls a side\n`,
    ...notes.map((note) => `${note}\n`),
    '\n',
    renderTable(columns, rows),
  ].join('')
}
