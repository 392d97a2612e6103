// What rounds of all kinds come to: each kind's figures beside those of a direct connection, which is there twice, so that
// the ratio of the two says what the machine makes of equal sides.

import { compareTriples, type Bound, type Finding } from '../harness/findings.ts'
import { COMPARED, TITLES, type Compared, type Kind } from './kinds.ts'

/** Microseconds, numbers a second, Gbit/s, and microseconds of CPU for a request. */
export type Figures = {
  readonly rttP50: number
  readonly rttP99: number
  readonly connectP50: number
  readonly connectP99: number
  readonly firstAnswerP50: number
  readonly requests1: number
  readonly requests32: number
  readonly gigabits: number
  readonly cpu: number
}
export type Metric = keyof Figures
type Described = { readonly title: string; readonly unit: Finding['unit'] }

const METRICS: Readonly<Record<Metric, Described>> = {
  rttP50: { title: 'RTT p50', unit: 'µs' },
  rttP99: { title: 'RTT p99', unit: 'µs' },
  connectP50: { title: 'connect p50', unit: 'µs' },
  connectP99: { title: 'connect p99', unit: 'µs' },
  firstAnswerP50: { title: 'first answer p50', unit: 'µs' },
  requests1: { title: '1 connection', unit: 'requests/s' },
  requests32: { title: '32 connections', unit: 'requests/s' },
  gigabits: { title: 'bulk', unit: 'Gbit/s' },
  cpu: { title: 'a request', unit: 'µs CPU' },
}

const atMost = (limit: number): Bound => ({ of: 'ratio', is: 'at most', limit, beyondSame: true })
const atLeast = (limit: number): Bound => ({ of: 'ratio', is: 'at least', limit, beyondSame: true })
const BOUNDS: Readonly<Partial<Record<Compared, Readonly<Partial<Record<Metric, Bound>>>>>> = {
  bpf: { rttP50: atMost(1.03), connectP50: atMost(1.1), requests1: atLeast(0.97), requests32: atLeast(0.97) },
  nft: { rttP50: atMost(1.15) },
}

/** @param rounds all of the same kinds. */
export function findingsOf(rounds: readonly ReadonlyMap<Kind, Figures>[]): readonly Finding[] {
  const there = COMPARED.filter((kind) => rounds.every((round) => round.has(kind)))
  return (Object.keys(METRICS) as Metric[]).flatMap((metric) =>
    there.map((kind): Finding => {
      const { title, unit } = METRICS[metric]
      const bound = BOUNDS[kind]?.[metric]
      const triples = rounds.map((round) => ({
        before: round.get('direct')![metric],
        value: round.get(kind)![metric],
        after: round.get('again')![metric],
      }))
      return {
        name: `${metric}${kind[0]!.toUpperCase()}${kind.slice(1)}`,
        title: `${title}: ${TITLES[kind]}`,
        unit,
        ...compareTriples(triples),
        ...(bound !== undefined && { bound }),
      }
    }),
  )
}
