// The processor time of the data path: it comes before pods, as it does where the kernel has WireGuard.

import { writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'

/** As for `nice`. */
export const NICENESS = -10

/**
 * For this process, and for its session where the kernel schedules by sessions (autogroup). Where it is not permitted, in a
 * container without SYS_NICE, the process has the common priority.
 */
export function preferProcess(): void {
  for (const prefer of [
    () => setPriority(NICENESS),
    () => writeFileSync('/proc/self/autogroup', String(NICENESS), { flag: 'r+' }),
  ])
    try {
      prefer()
    } catch {}
}
