// A gateway that is told to end hands its role over when its pool can follow: agents lead what goes to other pools to whoever
// is active, and where one is away for a moment, being upgraded too, its node goes on as before. That does no harm but on
// two nodes: ours would send through devices that peers no longer listen to, and the successor's back to us.

import type { Pool } from '../lib/k8s/pools.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'

export type FollowingAgents = {
  readonly node: string
  readonly pool: () => Pool | undefined
  readonly isActive: () => boolean
  /** Who would be active after us; undefined while nobody stands by. */
  readonly successor: () => string | undefined
  /** Whether a node's agent runs. */
  readonly hasAgent: (node: string) => Promise<boolean> | boolean
  readonly log: Log
}

/** An agent that is replaced is back in a few seconds where its image is on the node. */
const WAIT_MS = 6_000
const LOOK_MS = 100

/** Resolves at once where there is nobody to hand over to; else when it can be done, or the time is up. */
export async function awaitAgents(options: FollowingAgents, signal: AbortSignal, waitMs = WAIT_MS): Promise<void> {
  const endMs = performance.now() + waitMs
  for (;;) {
    const why = await lacking(options)
    if (why === undefined || signal.aborted) return
    if (performance.now() >= endMs) return options.log.warn({ why }, 'the role is handed over all the same')
    await pause(LOOK_MS, signal)
  }
}

async function lacking({ node, pool, isActive, successor, hasAgent }: FollowingAgents): Promise<string | undefined> {
  if (!isActive() || (pool()?.gateways.length ?? 0) < 2) return undefined
  const next = successor()
  if (next === undefined) return undefined
  for (const name of [node, next]) if (!(await hasAgent(name))) return `no agent runs on ${name}`
  return undefined
}
