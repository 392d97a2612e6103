// What a bench is made of: a question with two sides, what is measured of each, and bounds that must hold.

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

export type Question = {
  readonly text: string
  readonly rounds: number
  readonly callsPerRound: number
  /** The subject's highest ratio to its peer. A ratio above it falls short. */
  readonly bounds: Partial<Readonly<Record<Metric, number>>>
  /** @param progress for people, a line at a time. Whatever was made when it throws is removed again. */
  readonly prepare: (progress: (line: string) => void, signal: AbortSignal) => Promise<Prepared>
}
