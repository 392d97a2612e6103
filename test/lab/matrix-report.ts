// What the trials of a matrix come to, pair by pair, and where that falls short. Pure.

import { renderTable, type Column } from '../../lib/text-table.ts'
import { expectedPath, type ExpectedPath } from './matrix-expected.ts'
import { describePart, pairsOf, type Pair } from './matrix-plan.ts'
import type { PartResult } from './matrix-run.ts'
import type { ActualPath, Trial } from './matrix-trial.ts'

/** Of a pair: medians and sums over its rounds without loss, and how it did in those with. Times in milliseconds. */
export type Row = {
  readonly a: string
  readonly b: string
  readonly expected: ExpectedPath
  /** How often each path was seen in the core, most frequent first. */
  readonly actual: readonly (readonly [ActualPath, number])[]
  readonly rounds: number
  readonly asExpected: number
  readonly relayedMs: number | undefined
  readonly settledMs: number | undefined
  readonly settledMaxMs: number | undefined
  readonly sent: number
  readonly lost: number
  readonly lostBefore: number
  readonly outageMs: number | undefined
  readonly outageMaxMs: number | undefined
  readonly lossRounds: number
  readonly lossAsExpected: number
  readonly lossSettledMs: number | undefined
}

/** Of the rounds at 0 % loss. */
export const SHARE_MIN = 0.95
export const DIRECT_WITHIN_MS = 1_500

export const rowsOf = ({ part, trials }: PartResult): readonly Row[] =>
  pairsOf(part.sites).map((pair) => {
    const { sites, underlay, firewall6 } = part
    const expected = expectedPath(sites.get(pair.a)!, sites.get(pair.b)!, underlay, firewall6)
    return rowOf(
      pair,
      expected,
      trials.filter((trial) => trial.pair.a === pair.a && trial.pair.b === pair.b),
    )
  })

function rowOf({ a, b }: Pair, expected: ExpectedPath, trials: readonly Trial[]): Row {
  const whole = trials.filter(({ round }) => round.lossPercent === 0)
  const lossy = trials.filter(({ round }) => round.lossPercent > 0)
  const counts = new Map<ActualPath, number>()
  for (const { path } of whole) counts.set(path, (counts.get(path) ?? 0) + 1)
  const sum = (of: 'sent' | 'lost' | 'lostBefore') => whole.reduce((total, trial) => total + trial[of], 0)
  const times = (of: 'relayedMs' | 'settledMs' | 'outageMs', among = whole) =>
    among.map((trial) => trial[of]).filter((ms) => ms !== undefined)
  return {
    a,
    b,
    expected,
    actual: [...counts].toSorted(([, one], [, other]) => other - one),
    rounds: whole.length,
    asExpected: counts.get(expected) ?? 0,
    relayedMs: median(times('relayedMs')),
    settledMs: median(times('settledMs')),
    settledMaxMs: largest(times('settledMs')),
    sent: sum('sent'),
    lost: sum('lost'),
    lostBefore: sum('lostBefore'),
    outageMs: median(times('outageMs')),
    outageMaxMs: largest(times('outageMs')),
    lossRounds: lossy.length,
    lossAsExpected: lossy.filter(({ path }) => path === expected).length,
    lossSettledMs: median(times('settledMs', lossy)),
  }
}

/** What else ran on the machine takes time from gateways, which then take their paths for silent. */
const FOREIGN_MAX = 0.2

/** @returns undefined where the machine had time for the lab. */
export function contentionOf({ part, busy, busyByLab }: PartResult): string | undefined {
  if (busy - busyByLab < FOREIGN_MAX || busy < 1 - FOREIGN_MAX) return undefined
  return `${describePart(part)}: other programs had ${percent(busy - busyByLab)} of the processors: try again when they are done`
}

/** @returns a line for each thing that is not as it should be. */
export function faultsOf(row: Row): readonly string[] {
  const { a, b, expected, rounds, asExpected, actual, settledMs, lost, sent } = row
  const name = `${a} ↔ ${b}`
  const shares = actual.map(([path, count]) => `${path} ${count}`).join(', ')
  const faults = [
    asExpected < SHARE_MIN * rounds && `${name}: ${expected} in ${asExpected} of ${rounds} rounds (${shares})`,
    expected === 'direct' &&
      settledMs !== undefined &&
      settledMs >= DIRECT_WITHIN_MS &&
      `${name}: direct after ${Math.round(settledMs)} ms in the median, not under ${DIRECT_WITHIN_MS}`,
    lost > 0 && `${name}: ${lost} of ${sent} packets lost over the switch`,
  ]
  return faults.filter((fault) => fault !== false)
}

export function renderPart(result: PartResult): string {
  const { part, rounds, tookMs, busy, busyByLab } = result
  const rows = rowsOf(result)
  const cells = rows.map((row) => [
    `${row.a} ↔ ${row.b}`,
    row.expected,
    row.actual.map(([path, count]) => `${path} ${count}/${row.rounds}`).join(', ') || '-',
    ms(row.relayedMs),
    ms(row.settledMs),
    ms(row.settledMaxMs),
    `${row.lost}/${row.sent}`,
    ms(row.outageMs),
    ms(row.outageMaxMs),
    row.lossRounds === 0 ? '-' : `${row.lossAsExpected}/${row.lossRounds}`,
    ms(row.lossSettledMs),
  ])
  const before = rows.reduce((sum, { lostBefore }) => sum + lostBefore, 0)
  return [
    `${describePart(part)}: ${rows.length} pairs, ${rounds} rounds in ${Math.round(tookMs / 1000)} s; processors ${percent(busy)} busy, ${percent(busyByLab)} with this lab\n\n`,
    renderTable(COLUMNS, cells, '  ', TABLE_WIDTH),
    before === 0 ? '' : `\n${before} packets were lost before the first of their stream arrived.\n`,
  ].join('')
}

const percent = (share: number): string => `${Math.round(share * 100)} %`
const TABLE_WIDTH = 200
const COLUMNS: readonly Column[] = [
  { title: 'pair' },
  { title: 'expected' },
  { title: 'actual' },
  { title: 'relayed ms', align: 'right' },
  { title: 'settled ms', align: 'right' },
  { title: 'max', align: 'right' },
  { title: 'lost', align: 'right' },
  { title: 'outage ms', align: 'right' },
  { title: 'max', align: 'right' },
  { title: 'at loss', align: 'right' },
  { title: 'settled ms', align: 'right' },
]

const ms = (value: number | undefined): string => (value === undefined ? '-' : String(Math.round(value)))

function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted.length === 0 ? undefined : (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2
}
const largest = (values: readonly number[]): number | undefined =>
  values.length === 0 ? undefined : Math.max(...values)
