// The way from the relay to a port of a node, however the node hides: a stream on the session that its agent holds. What
// runs on it is opaque to the relay; the agent decides what may be dialled.

import type { Duplex } from 'node:stream'
import type { ResetReason } from '../lib/wire/mux.ts'

/** Where a kubelet listens unless its node's object says otherwise. */
export const KUBELET_PORT = 10250

export type NodeTarget = {
  /**
   * The node's own name for the node itself, wherever its kubelet listens; else an address or a name, which the agent
   * resolves.
   */
  readonly host: string
  readonly port: number
}

/**
 * Opens a stream to a port on or near a node.
 * @param node its Kubernetes name.
 * @param signal ends the attempt; an open stream is ended by `destroy`.
 * @returns a stream with half-close: `end()` reaches the target as a FIN after all data, `destroy()` as a reset.
 * @throws NodeDialError within 10 s.
 */
export type DialNode = (node: string, target: NodeTarget, signal: AbortSignal) => Promise<Duplex>

/**
 * - `offline`: no session with the node, or it died meanwhile
 * - `refused`: the node's agent may not or does not want to dial that
 * - `failed`: it tried, and the target did not answer as it should
 * - `timeout`: nothing was heard in time
 * - `busy`: a bound on streams or dials is reached
 */
export type NodeDialFailure = 'offline' | 'refused' | 'failed' | 'timeout' | 'busy'

/** Its message tells an operator what is wrong, in one line: `edge-7 offline 14m`. */
export class NodeDialError extends Error {
  readonly code = 'FULMAR_NODE_DIAL'
  override readonly name = 'NodeDialError'
  readonly failure: NodeDialFailure
  constructor(failure: NodeDialFailure, message: string, options?: ErrorOptions) {
    super(message, options)
    this.failure = failure
  }
}

/** What a stream that was refused failed by. */
export const failureOf = (reason: ResetReason): NodeDialFailure => FAILURES[reason]
const FAILURES: { readonly [R in ResetReason]: NodeDialFailure } = {
  refused: 'refused',
  failed: 'failed',
  timeout: 'timeout',
  busy: 'busy',
  cancelled: 'offline',
  broken: 'offline',
}

/** The HTTP status that says the same. */
export function statusOf(failure: NodeDialFailure): 403 | 502 | 503 | 504 {
  switch (failure) {
    case 'refused':
      return 403
    case 'failed':
      return 502
    case 'timeout':
      return 504
    case 'offline':
    case 'busy':
      return 503
  }
}
