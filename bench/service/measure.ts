// One round of all kinds: each figure is taken in short passes, in which every kind has its turn right after another, so
// that what drifts hits all alike.

import type { Batches, Caller } from './caller-client.ts'
import type { Figures } from './figures.ts'
import { orderOf, type Kind } from './kinds.ts'
import type { Party } from './world.ts'
import { percentile } from '../harness/statistics.ts'

export const CONNECTIONS = 32
const PASSES = 5
const ROUND_TRIPS_MS = 30
const CONNECTS_MS = 50
const REQUESTS_MS = 50
const BULK_MS = 80

/** @param index of the round, from 0: turns are others in each. */
export async function measureRound(
  parties: ReadonlyMap<Kind, Party>,
  index: number,
  signal: AbortSignal,
): Promise<ReadonlyMap<Kind, Figures>> {
  const kinds = [...parties.keys()]
  /** @returns what each kind's turns brought. */
  const inTurns = async <T>(
    turn: (party: Party, caller: Caller) => Promise<T>,
  ): Promise<(kind: Kind) => readonly T[]> => {
    const found = new Map<Kind, T[]>(kinds.map((kind) => [kind, []]))
    for (let pass = 0; pass < PASSES; pass++)
      for (const kind of orderOf(kinds, index * PASSES + pass)) {
        signal.throwIfAborted()
        const party = parties.get(kind)!
        found.get(kind)!.push(await turn(party, party.caller))
      }
    return (kind) => found.get(kind)!
  }
  const requests = (connections: number) => async (party: Party, caller: Caller) => {
    await caller.open(party.targets.echo, connections)
    const before = party.cpuMs()
    const counted = await caller.requests(REQUESTS_MS)
    const cpuMs = party.cpuMs() - before
    await caller.close()
    return { ...counted, cpuMs }
  }

  const roundTrips = await inTurns(({ targets }, caller) => caller.roundTrips(targets.echo, ROUND_TRIPS_MS))
  const connects = await inTurns(({ targets }, caller) => caller.connects(targets.echo, CONNECTS_MS))
  const single = await inTurns(requests(1))
  const many = await inTurns(requests(CONNECTIONS))
  const bulk = await inTurns(({ targets }, caller) => caller.bulk(targets.sink, BULK_MS))

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
          requests1: 1e6 / middle(single(kind)),
          requests32: 1e6 / middle(many(kind)),
          gigabits: 8e3 / middle(bulk(kind)),
          cpu: (sumOf(many(kind), ({ cpuMs }) => cpuMs) * 1000) / sumOf(many(kind), ({ count }) => count),
        },
      ]
    }),
  )
}

/** Microseconds for one, in the median batch. */
const middle = (turns: readonly Batches[]): number =>
  percentile(
    turns.flatMap(({ each }) => each),
    0.5,
  )
const sumOf = <T>(values: readonly T[], of: (value: T) => number): number =>
  values.reduce((sum, value) => sum + of(value), 0)
