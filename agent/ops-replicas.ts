// Which replicas of the relay an agent holds sessions with: the first two in its own order that can be had, so that the
// end of one leaves the node within reach. Pure; sessions come and go, and what is to be done now is a value.

/** With as many replicas as that, or with all where there are fewer. */
export const SESSIONS = 2

export type ReplicaSession = { readonly replica: string; readonly connected: boolean }

export type ReplicasPlan = {
  readonly dial: readonly string[]
  /** Sessions that others have made needless: they take no more streams. */
  readonly leave: readonly string[]
  /** When to plan anew if nothing happens before; Infinity for never. */
  readonly againMs: number
}

/**
 * @param order names of all replicas, the agent's own first.
 * @param sessions those that were dialled and take streams, or will.
 * @param retryMs when one that failed may be dialled again.
 * @param quietMs not before then is anybody dialled while there is a session: those who lost the same replica come one by
 * one.
 */
export function planReplicas(
  order: readonly string[],
  sessions: readonly ReplicaSession[],
  retryMs: ReadonlyMap<string, number>,
  quietMs: number,
  nowMs: number,
): ReplicasPlan {
  const wanted = Math.min(SESSIONS, order.length)
  const rank = (name: string): number => (order.includes(name) ? order.indexOf(name) : order.length)
  const connected = sessions
    .filter((session) => session.connected)
    .map(({ replica }) => replica)
    .toSorted((a, b) => rank(a) - rank(b))
  const earliestMs = connected.length > 0 ? quietMs : -Infinity
  const dial: string[] = []
  let againMs = Infinity
  let chosen = 0
  for (const replica of order) {
    if (chosen === wanted) break
    const dueMs = Math.max(retryMs.get(replica) ?? -Infinity, earliestMs)
    if (sessions.some((session) => session.replica === replica)) chosen++
    else if (dueMs <= nowMs) {
      dial.push(replica)
      chosen++
    } else againMs = Math.min(againMs, dueMs)
  }
  return { dial, leave: connected.slice(wanted), againMs }
}
