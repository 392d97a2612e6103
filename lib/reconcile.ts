// A level-triggered worker: however often it is triggered, one run at a time, and one more after the last trigger. A run
// that fails is logged and tried again after a back-off; what it was asked for is read anew each time.

import { backoffMs } from './backoff.ts'

export type Reconciler = {
  /** Something changed: run soon. */
  readonly trigger: () => void
  /** Resolves when no run is under way and none is due. */
  readonly idle: () => Promise<void>
}

const RETRY = { baseMs: 100, capMs: 5_000 }

/**
 * @param run brings the world to what is wanted now; applying twice equals once.
 * @param onError called for each failed run, before it is tried again.
 * @param pause resolves after so many milliseconds, or at once when the owner ends.
 */
export function createReconciler(
  run: () => Promise<void>,
  onError: (error: unknown, failures: number) => void,
  pause: (ms: number) => Promise<void>,
  ended: () => boolean,
): Reconciler {
  let wanted = false
  let running: Promise<void> | undefined
  let failures = 0

  const work = async (): Promise<void> => {
    while (wanted && !ended()) {
      wanted = false
      try {
        await run()
        failures = 0
      } catch (error) {
        failures++
        wanted = true
        onError(error, failures)
        await pause(backoffMs(RETRY, failures, 1))
      }
    }
    running = undefined
  }
  return {
    trigger: () => {
      wanted = true
      running ??= work()
    },
    idle: async () => {
      while (running !== undefined) await running
    },
  }
}
