// Waiting in tests: for what must come, however busy the machine is.

import { setTimeout as sleep } from 'node:timers/promises'

const POLL_MS = 5
const WITHIN_MS = 40_000

/** Resolves when it is so. @throws Error naming what did not come in 40 s. */
export async function until(is: () => boolean | Promise<boolean>, what = is.toString()): Promise<void> {
  for (const endMs = performance.now() + WITHIN_MS; !(await is()); await sleep(POLL_MS))
    if (performance.now() > endMs) throw new Error(`not within ${WITHIN_MS / 1000} s: ${what}`)
}
