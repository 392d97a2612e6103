// One round of all kinds: each figure is taken in short passes, in which every kind has its turn right after another, so
// that what drifts hits all alike.

import type { Caller } from './caller-client.ts'
import type { Figures } from './figures.ts'
import { orderOf, type Kind } from './kinds.ts'
import type { Party } from './world.ts'
import { percentile } from '../harness/statistics.ts'

export const CONNECTIONS = 32
const PASSES = 5
const ROUND_TRIPS_MS = 30
const CONNECTS_MS = 50
const REQUESTS_MS = 60
const BULK_MS = 60

export type Processors = {
  /** For what goes on by turns: a call of a sleeping processor would cost more than the way to it. */
  readonly one: readonly number[]
  readonly all: readonly number[]
}

/** @param shift where the first pass begins. */
export async function measureRound(
  parties: ReadonlyMap<Kind, Party>,
  processors: Processors,
  shift: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<Kind, Figures>> {
  const kinds = [...parties.keys()]
  let passes = shift
  /** @returns what each kind's turns brought. */
  const inTurns = async <T>(
    on: readonly number[],
    turn: (party: Party, caller: Caller) => Promise<T>,
  ): Promise<(kind: Kind) => readonly T[]> => {
    const found = new Map<Kind, T[]>(kinds.map((kind) => [kind, []]))
    for (const party of parties.values()) party.keepOn(on)
    for (let pass = 0; pass < PASSES; pass++)
      for (const kind of orderOf(kinds, passes++)) {
        signal.throwIfAborted()
        const party = parties.get(kind)!
        found.get(kind)!.push(await turn(party, party.caller))
      }
    return (kind) => found.get(kind)!
  }
  const { one, all } = processors
  const requests = (connections: number) => async (party: Party, caller: Caller) => {
    const before = party.cpuMs()
    const counted = await caller.requests(party.targets.echo, connections, REQUESTS_MS)
    return { ...counted, cpuMs: party.cpuMs() - before }
  }

  const roundTrips = await inTurns(one, ({ targets }, caller) => caller.roundTrips(targets.echo, ROUND_TRIPS_MS))
  const connects = await inTurns(one, ({ targets }, caller) => caller.connects(targets.echo, CONNECTS_MS))
  const single = await inTurns(one, requests(1))
  const many = await inTurns(all, requests(CONNECTIONS))
  const bulk = await inTurns(all, ({ targets }, caller) => caller.bulk(targets.sink, BULK_MS))

  return new Map(
    kinds.map((kind) => {
      const rtt = roundTrips(kind).flat()
      const connected = connects(kind).flatMap(({ connected }) => connected)
      const answered = connects(kind).flatMap(({ answered }) => answered)
      return [
        kind,
        {
          rttP50: percentile(rtt, 0.5),
          rttP99: percentile(rtt, 0.99),
          connectP50: percentile(connected, 0.5),
          connectP99: percentile(connected, 0.99),
          firstAnswerP50: percentile(answered, 0.5),
          requests1: rate(single(kind)),
          requests32: rate(many(kind)),
          gigabits: (rate(bulk(kind)) * 8) / 1e9,
          cpu: (sumOf(many(kind), ({ cpuMs }) => cpuMs) * 1000) / sumOf(many(kind), ({ count }) => count),
        },
      ]
    }),
  )
}

const rate = (counts: readonly { readonly count: number; readonly seconds: number }[]): number =>
  sumOf(counts, ({ count }) => count) / sumOf(counts, ({ seconds }) => seconds)
const sumOf = <T>(values: readonly T[], of: (value: T) => number): number =>
  values.reduce((sum, value) => sum + of(value), 0)
