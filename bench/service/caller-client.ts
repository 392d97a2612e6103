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
/** How many in all, and microseconds for one, by batches: those that another process of the machine interrupts stand out. */
export type Batches = { readonly count: number; readonly each: readonly number[] }

/** All go round the targets; `ms` is for how long they go on. */
export type Caller = {
  readonly prove: (target: Target) => Promise<Proof>
  /** On one connection, a message at a time. @returns microseconds. */
  readonly roundTrips: (targets: readonly Target[], ms: number) => Promise<readonly number[]>
  /** A connection for each message. */
  readonly connects: (targets: readonly Target[], ms: number) => Promise<Connects>
  /** So many connections, until `close`, for `requests`. */
  readonly open: (targets: readonly Target[], connections: number) => Promise<void>
  /** As many messages as are answered, one under way on each of them. */
  readonly requests: (ms: number) => Promise<Batches>
  readonly close: () => Promise<void>
  /** Megabytes that arrived, over one connection. */
  readonly bulk: (targets: readonly Target[], ms: number) => Promise<Batches>
}

export const driveCaller = (remote: Remote): Caller => ({
  prove: (target) => remote.call('prove', target),
  roundTrips: (targets, ms) => remote.call('roundTrips', targets, ms),
  connects: (targets, ms) => remote.call('connects', targets, ms),
  open: (targets, connections) => remote.call('open', targets, connections),
  requests: (ms) => remote.call('requests', ms),
  close: () => remote.call('close'),
  bulk: (targets, ms) => remote.call('bulk', targets, ms),
})
