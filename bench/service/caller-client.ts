// The bench's end of a calling process (caller.ts).

import type { Remote } from '../../test/lib/netns.ts'

export type Target = { readonly address: string; readonly port: number }
export type Proof = {
  /** `ADDRESS:PORT` of the caller and of whom it called, as the caller knows them. */
  readonly own: string
  readonly peer: string
  /** The caller's, as the server knows it. */
  readonly seen: string
}
/** Microseconds from before connect(): until it returned, and until a message was answered as well. */
export type Connects = { readonly connected: readonly number[]; readonly answered: readonly number[] }
export type Count = { readonly count: number; readonly seconds: number }

/** All take milliseconds to go on for, and go round the targets. */
export type Caller = {
  readonly prove: (target: Target) => Promise<Proof>
  /** On one connection, a message at a time. @returns microseconds. */
  readonly roundTrips: (targets: readonly Target[], ms: number) => Promise<readonly number[]>
  /** A connection for each message. */
  readonly connects: (targets: readonly Target[], ms: number) => Promise<Connects>
  /** As many messages as are answered, one under way on each of so many connections. */
  readonly requests: (targets: readonly Target[], connections: number, ms: number) => Promise<Count>
  /** Bytes that arrived, over one connection. */
  readonly bulk: (targets: readonly Target[], ms: number) => Promise<Count>
}

export const driveCaller = (remote: Remote): Caller => ({
  prove: (target) => remote.call('prove', target),
  roundTrips: (targets, ms) => remote.call('roundTrips', targets, ms),
  connects: (targets, ms) => remote.call('connects', targets, ms),
  requests: (targets, connections, ms) => remote.call('requests', targets, connections, ms),
  bulk: (targets, ms) => remote.call('bulk', targets, ms),
})
