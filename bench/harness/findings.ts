// What a study found: figures of many units, some of them beside a peer's and with the ratio of both, some with a bound.

import { millisecondsText, renderTable } from '../../lib/text-table.ts'
import type { Study, StudyReport } from './question.ts'
import { medianOf, type Ratio } from './statistics.ts'

export type Finding = {
  /** In JSON. */
  readonly name: string
  readonly title: string
  readonly unit: Unit
  readonly value: number
  /** The same figure of what it is compared with. */
  readonly peer?: number
  /** Median over the rounds of value by peer. */
  readonly ratio?: Ratio
  /** The same of the peer by the peer, measured in the same rounds: what the machine alone makes of two equal sides. */
  readonly same?: Ratio
  readonly bound?: Bound
}
export type Unit =
  | 'MB'
  | '% of a core'
  | 'pairs'
  | 'Mbit/s'
  | 'Gbit/s'
  | 'packets/s'
  | 'queries/s'
  | 'requests/s'
  | 'ms'
  | 'µs'
  | 'ns'
  | 'ms CPU/Gbit'
  | 'µs CPU'
  | 'ms CPU/s'
  | 'bytes/h'
  | 'bytes'
  | 'agents'
  | 'streams'
  | 'descriptors'
export type Bound = {
  readonly of: 'value' | 'ratio'
  readonly is: 'at least' | 'at most'
  readonly limit: number
  /** A ratio no further from 1 than equal sides, by the far end of their interval, cannot be told from theirs: it holds. */
  readonly beyondSame?: true
}

export type StudyResult = {
  readonly question: string
  readonly notes: readonly string[]
  readonly findings: readonly (Finding & { readonly holds: boolean })[]
  /** False if any bound falls short. */
  readonly holds: boolean
}

export function studyResultOf({ text }: Pick<Study, 'text'>, { findings, notes }: StudyReport): StudyResult {
  const judged = findings.map((finding) => ({ ...finding, holds: holds(finding) }))
  return { question: text, notes, findings: judged, holds: judged.every((finding) => finding.holds) }
}

/** A figure that could not be measured keeps no bound. */
function holds({ value, ratio, same, bound }: Finding): boolean {
  if (bound === undefined) return true
  const measured = bound.of === 'value' ? value : (ratio?.ratio ?? NaN)
  if (!Number.isFinite(measured)) return false
  const spread = same === undefined || !Number.isFinite(same.low) ? 1 : Math.max(apart(same.low), apart(same.high))
  if (bound.beyondSame && apart(measured) <= spread) return true
  return bound.is === 'at least' ? measured >= bound.limit : measured <= bound.limit
}

const apart = (ratio: number): number => Math.max(ratio, 1 / ratio)

/** One side's part of a round, run between two runs of its peer: what drifts over the round hits both alike. */
export type Around<T> = { readonly before: T; readonly value: T; readonly after: T }
export type Triple = Around<number>

export const triplesOf = <T>(rounds: readonly Around<T>[], figure: (side: T) => number): readonly Triple[] =>
  rounds.map(({ before, value, after }) => ({ before: figure(before), value: figure(value), after: figure(after) }))

/** Of both, the medians, their ratio, and the ratio of the peer's two runs. */
export function compareTriples(
  triples: readonly Triple[],
): Required<Pick<Finding, 'value' | 'peer' | 'ratio' | 'same'>> {
  const peerOf = ({ before, after }: Triple): number => (before + after) / 2
  return {
    value: medianOf(triples.map(({ value }) => value)).ratio,
    peer: medianOf(triples.map(peerOf)).ratio,
    ratio: medianOf(triples.map((triple) => triple.value / peerOf(triple))),
    same: medianOf(triples.map(({ before, after }) => after / before)),
  }
}

export function renderFindings({ question, notes, findings }: StudyResult): string {
  const titles = ['', 'measured', 'beside', 'ratio', '95 % interval', 'equal sides', 'bound', '']
  const columns = titles.map((title, index) => ({
    title,
    align: index >= 1 && index <= 3 ? ('right' as const) : ('left' as const),
  }))
  const rows = findings.map(({ title, unit, value, peer, ratio, same, bound, holds }) => [
    title,
    shown(value, unit),
    peer === undefined ? '' : shown(peer, unit),
    ratio?.ratio.toFixed(3) ?? '',
    ratio === undefined ? '' : interval(ratio),
    same === undefined ? '' : `${same.ratio.toFixed(3)} (${interval(same)})`,
    bound === undefined
      ? ''
      : `${bound.is === 'at least' ? '≥' : '≤'} ${bound.of === 'ratio' ? bound.limit.toFixed(2) : shown(bound.limit, unit)}`,
    bound === undefined ? '' : holds ? 'holds' : 'FALLS SHORT',
  ])
  return [`${question}\n`, ...notes.map((note) => `${note}\n`), '\n', renderTable(columns, rows)].join('')
}

const interval = ({ low, high }: Ratio): string =>
  Number.isFinite(low) ? `${low.toFixed(3)} – ${high.toFixed(3)}` : 'too few rounds'

function shown(value: number, unit: Unit): string {
  if (Number.isNaN(value)) return 'none'
  if (value === Infinity) return 'lost'
  if (unit === 'ms') return millisecondsText(value)
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0
  return `${value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits })} ${unit}`
}
