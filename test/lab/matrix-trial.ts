// What a trial of one pair tells, from what both ends sent and got, where the core saw the packets, and when the gateways
// moved. Pure.

import type { Passage } from './matrix-core.ts'
import type { Pair, Round } from './matrix-plan.ts'
import type { StreamEnd } from './matrix-traffic.ts'

/** `mixed`: packets went more than one way at once; `nothing`: none arrived. */
export type ActualPath = 'direct' | 'relay-udp' | 'relay-tcp' | 'mixed' | 'nothing'

/** Times in milliseconds since the first packet of the pair. */
export type Trial = {
  readonly pair: Pair
  readonly round: Round
  /** Which way the packets went in the end, by what the core saw. */
  readonly path: ActualPath
  /** What the two gateways said then. */
  readonly said: readonly [string, string]
  /** When the first packet had arrived; over the relay, as the first of a pair does. */
  readonly relayedMs: number | undefined
  /** When both gateways had moved to the path that the pair should have. */
  readonly settledMs: number | undefined
  readonly sent: number
  /** Of those sent after the first that arrived, and before anything was cut. */
  readonly lost: number
  /** Of those sent before the first that arrived. */
  readonly lostBefore: number
  /** From the cut of the direct path, the longest time in which nothing arrived one way. */
  readonly outageMs: number | undefined
}

/** How the packets of one length went between two samples. */
export function pathOf(
  before: readonly Passage[],
  after: readonly Passage[],
  length: number,
  a: readonly string[],
  b: readonly string[],
  arrived: boolean,
): ActualPath {
  const count = (passages: readonly Passage[], isIt: (passage: Passage) => boolean) =>
    passages
      .filter((passage) => passage.length === length && isIt(passage))
      .reduce((sum, { packets }) => sum + packets, 0)
  const grown = (isIt: (passage: Passage) => boolean) => count(after, isIt) - count(before, isIt)
  const isDirect = ({ from, to }: Passage) =>
    (a.includes(from) && b.includes(to)) || (b.includes(from) && a.includes(to))
  const isOurs = ({ from, to }: Passage) => [...a, ...b].some((address) => address === from || address === to)
  const direct = grown(isDirect)
  const relayed = grown((passage) => isOurs(passage) && !isDirect(passage))
  if (direct > 0 && relayed > 0) return 'mixed'
  if (direct > 0) return 'direct'
  if (relayed > 0) return 'relay-udp'
  // Inside the connections to the relay lengths cannot be told apart.
  return arrived ? 'relay-tcp' : 'nothing'
}

export type Losses = { readonly sent: number; readonly lost: number; readonly lostBefore: number }

/** @param untilMs only packets that left before count (Unix milliseconds). */
export function lossesOf(sender: StreamEnd, receiver: StreamEnd, untilMs: number): Losses {
  const arrived = new Set(receiver.arrived.map(([number]) => number))
  const first = Math.min(...arrived)
  const sent = sender.sentAt.filter((at) => at < untilMs).length
  const missing = Array.from({ length: sent }, (_, number) => number).filter((number) => !arrived.has(number))
  const lost = missing.filter((number) => number > first).length
  return { sent, lost, lostBefore: missing.length - lost }
}

/** The longest time between two arrivals, or since the last, of those that end after `sinceMs`. */
export function longestGapMs({ arrived }: StreamEnd, sinceMs: number, endMs: number): number {
  const times = [...arrived.map(([, at]) => at), endMs].toSorted((a, b) => a - b)
  return Math.max(0, ...times.slice(1).map((at, index) => (at > sinceMs ? at - times[index]! : 0)))
}

export function firstArrivalMs({ arrived }: StreamEnd): number | undefined {
  return arrived.length === 0 ? undefined : Math.min(...arrived.map(([, at]) => at))
}
