// What a bench is made of: a question with two sides (a comparison), with figures to be repeated (a series), or with
// several findings of their own kinds (a study), and bounds that must hold.

import type { Finding } from './findings.ts'

/** What one side's part of a round brought. */
export type Sample = {
  /** One for each call; in the order of the calls. */
  readonly latenciesMs: readonly number[]
  /** CPU of all that took part in the calls, by the kernel's accounting. */
  readonly cpuMs: number
}
export type Side = { readonly name: string; readonly run: (calls: number, signal: AbortSignal) => Promise<Sample> }

export type Metric = 'p50' | 'p99' | 'cpu'
export const METRICS: readonly Metric[] = ['p50', 'p99', 'cpu']

export type Prepared = {
  readonly subject: Side
  readonly peer: Side
  /** Facts that a reader needs to judge the numbers. */
  readonly notes: readonly string[]
  readonly close: () => Promise<void>
}

export type Question = Comparison | Series | Study

export type Study = {
  readonly kind: 'study'
  readonly text: string
  readonly rounds: number
  /** Whatever was made is removed again, also when it throws. */
  readonly run: (options: StudyOptions) => Promise<StudyReport>
}
export type StudyOptions = {
  readonly rounds: number
  /** For people, a line at a time. */
  readonly progress: (line: string) => void
  readonly signal: AbortSignal
}
export type StudyReport = {
  readonly findings: readonly Finding[]
  /** Facts that a reader needs to judge the numbers. */
  readonly notes: readonly string[]
}

/** The same thing done again and again, each time from nothing, with some figures each time. */
export type Series = {
  readonly kind: 'series'
  readonly text: string
  readonly rounds: number
  readonly figures: Readonly<Record<string, Figure>>
  readonly run: (progress: (line: string) => void, signal: AbortSignal) => Promise<Readonly<Record<string, number>>>
}
export type Figure = {
  readonly title: string
  readonly unit: 'ms' | ''
  /** The highest that any round may show; a figure without a bound is for information. */
  readonly bound?: number
}

export type Comparison = {
  readonly kind: 'comparison'
  readonly text: string
  readonly rounds: number
  readonly callsPerRound: number
  /** The subject's highest ratio to its peer. A ratio above it falls short. */
  readonly bounds: Partial<Readonly<Record<Metric, number>>>
  /** @param progress for people, a line at a time. Whatever was made when it throws is removed again. */
  readonly prepare: (progress: (line: string) => void, signal: AbortSignal) => Promise<Prepared>
}
