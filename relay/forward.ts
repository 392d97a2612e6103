// The way to a node when there are several relays: this relay's own session with it, else that of a replica, which is
// asked once and asks nobody else.

import { durationText } from '../lib/text-table.ts'
import { NodeDialError, type DialNode } from './node-dial.ts'

export type ForwardOptions = {
  /** This relay's own sessions. */
  readonly own: {
    readonly dial: DialNode
    readonly absence: (node: string) => string | undefined
    /** Unix milliseconds. */
    readonly lostAt: (node: string) => number | undefined
  }
  /** Names of replicas that hold a session with a node, in the order in which to ask. */
  readonly holders: (node: string) => readonly string[]
  /** When the last of them lost it, Unix milliseconds. */
  readonly lostAt: (node: string) => number | undefined
  readonly forward: (replica: string, ...dial: Parameters<DialNode>) => ReturnType<DialNode>
  readonly now: () => number
}

export type NodeWays = {
  readonly dial: DialNode
  /** Why a node cannot be reached now; undefined if it can. */
  readonly absence: (node: string) => string | undefined
  /** When who has no session any more lost it, Unix milliseconds; undefined for one that was never seen. */
  readonly lostAt: (node: string) => number | undefined
}

export function createWays({ own, holders, lostAt, forward, now }: ForwardOptions): NodeWays {
  /** Why a node that nobody holds is away: who saw it last knows best. */
  const reason = (node: string): string => {
    const lostAtMs = lostAt(node) ?? -Infinity
    const isLater = lostAtMs > (own.lostAt(node) ?? -Infinity)
    return isLater ? `${node} offline ${durationText(Math.max(0, now() - lostAtMs))}` : own.absence(node)!
  }
  const absence = (node: string): string | undefined =>
    own.absence(node) === undefined || holders(node).length > 0 ? undefined : reason(node)
  const dial: DialNode = async (node, target, signal) => {
    let failure: NodeDialError | undefined
    if (own.absence(node) === undefined)
      try {
        return await own.dial(node, target, signal)
      } catch (error) {
        failure = offline(error, signal)
      }
    for (const replica of holders(node))
      try {
        return await forward(replica, node, target, signal)
      } catch (error) {
        failure = offline(error, signal)
      }
    if (failure !== undefined) throw failure
    try {
      // It may have come back meanwhile; if not, it is counted there.
      return await own.dial(node, target, signal)
    } catch (error) {
      const cause = offline(error, signal)
      throw new NodeDialError('offline', absence(node) ?? cause.message, { cause })
    }
  }
  return { dial, absence, lostAt: (node) => lostAt(node) ?? own.lostAt(node) }
}

/** Another session is tried only where this one was none: whatever else a node answers, it would answer again. */
function offline(error: unknown, signal: AbortSignal): NodeDialError {
  if (!(error instanceof NodeDialError) || error.failure !== 'offline' || signal.aborted) throw error
  return error
}
