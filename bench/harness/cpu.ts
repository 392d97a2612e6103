// CPU time by the kernel's accounting: of a cgroup2 group with all below it, or of one process.

import { readFileSync } from 'node:fs'

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

/** @param group its folder. @returns milliseconds used since it was made; kernel work on behalf of others is not in it. */
export function cgroupCpuMs(group: string): number {
  const usec = /^usage_usec (\d+)$/m.exec(readFileSync(`${group}/cpu.stat`, 'utf8'))?.[1]
  if (usec === undefined) throw new Error(`${group}/cpu.stat has no usage_usec`)
  return Number(usec) / 1000
}

/** User and system time of a process, in steps of 10 ms. */
export function processCpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The command's name may hold blanks and parentheses; fields 14 and 15 are counted behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND
}
