// Runs the two sides of a question in interleaved rounds: A B, B A, A B, … so that drift hits both and neither is always
// the one that finds the caches warm. One round before counts for nothing.

import type { Prepared, Sample } from './question.ts'

export type Round = { readonly subject: Sample; readonly peer: Sample }
export type RoundsOptions = { readonly rounds: number; readonly callsPerRound: number }

const MIN_WARM_UP_CALLS = 50

/** @param onRound after each round that counts. */
export async function runRounds(
  { subject, peer }: Pick<Prepared, 'subject' | 'peer'>,
  { rounds, callsPerRound }: RoundsOptions,
  onRound: (index: number, round: Round) => void,
  signal: AbortSignal,
): Promise<readonly Round[]> {
  for (const side of [subject, peer]) await side.run(Math.max(MIN_WARM_UP_CALLS, callsPerRound), signal)
  const done: Round[] = []
  for (let index = 0; index < rounds; index++) {
    signal.throwIfAborted()
    const samples = new Map<string, Sample>()
    for (const key of index % 2 === 0 ? (['subject', 'peer'] as const) : (['peer', 'subject'] as const))
      samples.set(key, await { subject, peer }[key].run(callsPerRound, signal))
    const round = { subject: samples.get('subject')!, peer: samples.get('peer')! }
    done.push(round)
    onRound(index, round)
  }
  return done
}
