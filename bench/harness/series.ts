// What repeated figures come to: median and maximum, the values themselves, and whether every round kept its bound.

import { millisecondsText, renderTable } from '../../lib/text-table.ts'
import type { Figure, Series } from './question.ts'
import { percentile } from './statistics.ts'

export type FigureResult = Figure & {
  readonly median: number
  readonly max: number
  /** One for each round; NaN for a round that did not bring it. */
  readonly values: readonly number[]
  readonly holds: boolean
}
export type SeriesResult = {
  readonly question: string
  readonly rounds: number
  readonly notes: readonly string[]
  readonly figures: Readonly<Record<string, FigureResult>>
  /** False if any bound falls short in any round. */
  readonly holds: boolean
}

export function seriesResultOf(
  { text, figures }: Pick<Series, 'text' | 'figures'>,
  notes: readonly string[],
  samples: readonly Readonly<Record<string, number>>[],
): SeriesResult {
  const results = Object.entries(figures).map(([name, figure]): [string, FigureResult] => {
    const values = samples.map((sample) => sample[name] ?? NaN)
    const { bound } = figure
    const holds = bound === undefined || values.every((value) => value <= bound)
    const known = values.filter(Number.isFinite)
    const [median, max] = known.length === 0 ? [NaN, NaN] : [percentile(known, 0.5), Math.max(...known)]
    return [name, { ...figure, median, max, values, holds }]
  })
  return {
    question: text,
    rounds: samples.length,
    notes,
    figures: Object.fromEntries(results),
    holds: results.every(([, { holds }]) => holds),
  }
}

export function renderSeries({ question, rounds, notes, figures }: SeriesResult): string {
  const columns = ['', 'median', 'maximum', 'bound', ''].map((title, index) => ({
    title,
    align: index === 1 || index === 2 ? ('right' as const) : ('left' as const),
  }))
  const rows = Object.values(figures).map(({ title, unit, median, max, bound, holds }) => {
    const shown = (value: number) => (unit === 'ms' ? millisecondsText(value) : String(value))
    const verdict = bound === undefined ? '' : holds ? 'holds' : 'FALLS SHORT'
    return [title, shown(median), shown(max), bound === undefined ? '' : `≤ ${shown(bound)}`, verdict]
  })
  return [
    `${question}\n`,
    `${rounds} rounds\n`,
    ...notes.map((note) => `${note}\n`),
    '\n',
    renderTable(columns, rows),
  ].join('')
}
