// Deletes stale UDP flows after services changed, beside the way of the rules themselves: one pass over the kernel's
// table at a time, however many services changed.

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Log } from '../lib/log.ts'
import { deleteUdpFlows, type UdpFlow } from '../lib/net/conntrack.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { staleFlow, type UdpTargets } from './conntrack.ts'

/** Deleted in one pass, which is 0.1 s. */
const FLOWS_MAX = 2_000
/** Each pass lists all flows. */
const COALESCE_MS = 50
const NOBODY: ReadonlySet<string> = new Set()

export type FlowCleaner = {
  /**
   * Targets changed: what is stale is deleted.
   * @param gone what may not be called by any more (`address port`): whoever answers there is stale, unless it is back.
   */
  readonly check: (gone: readonly string[]) => void
  readonly idle: () => Promise<void>
  /** Why stale flows stay. */
  readonly problem: () => string | undefined
}

export function createFlowCleaner(
  { targets, log }: { targets: () => UdpTargets; log: Log },
  signal: AbortSignal,
): FlowCleaner {
  let due = false
  let gone = new Set<string>()
  let problem: string | undefined
  const passes = createUpkeep(
    {
      pass: async () => {
        if (!due) return
        due = false
        const left = gone
        gone = new Set()
        try {
          const now = targets()
          const all = new Map([
            ...now,
            ...[...left].filter((key) => !now.has(key)).map((key) => [key, NOBODY] as const),
          ])
          const { deleted, more } = await deleteStaleFlows(all, signal)
          if (deleted > 0) log.debug({ flows: deleted }, 'deleted stale UDP flows')
          problem = undefined
          if (more) again(left)
        } catch (error) {
          again(left)
          throw error
        }
      },
      onError: (err, failures) => {
        problem = `stale UDP flows are not deleted: ${(err as Error).message}`
        if (failures === 1) log.warn({ err }, 'cannot delete stale UDP flows')
      },
      coalesceMs: COALESCE_MS,
    },
    signal,
  )
  const again = (keys: Iterable<string>): void => {
    due = true
    for (const key of keys) gone.add(key)
    passes.trigger()
  }
  return {
    check: again,
    idle: passes.idle,
    problem: () => problem,
  }
}

/** @returns the number of flows that were deleted and whether there may be more. @throws Error without conntrack-tools. */
async function deleteStaleFlows(targets: UdpTargets, signal: AbortSignal): Promise<{ deleted: number; more: boolean }> {
  if (targets.size === 0) return { deleted: 0, more: false }
  const stale: UdpFlow[] = []
  let more = false
  for (const family of ['ipv4', 'ipv6'])
    for await (const line of listFlows(family, signal)) {
      const flow = staleFlow(line, targets)
      if (flow === undefined) continue
      if (stale.length < FLOWS_MAX) stale.push(flow)
      else more = true
    }
  if (stale.length > 0 && !signal.aborted) await deleteUdpFlows(stale)
  return { deleted: stale.length, more }
}

async function* listFlows(family: string, signal: AbortSignal): AsyncGenerator<string> {
  const child = spawn('conntrack', ['-L', '-f', family, '-p', 'udp'], { stdio: ['ignore', 'pipe', 'ignore'], signal })
  const ended = new Promise<Error | undefined>((resolve) => {
    child.on('error', (cause) => resolve(new Error(`conntrack: ${cause.message}; install conntrack`, { cause })))
    child.on('exit', () => resolve(undefined))
  })
  yield* createInterface({ input: child.stdout })
  const error = await ended
  if (error !== undefined && !signal.aborted) throw error
}
