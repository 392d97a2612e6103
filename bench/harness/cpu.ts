// CPU time by the kernel's accounting: of a cgroup2 group with all below it, of one process, or of all that one started.

import { existsSync, readdirSync, readFileSync } from 'node:fs'

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100

/** @param group its folder. @returns milliseconds used since it was made; kernel work on behalf of others is not in it. */
export function cgroupCpuMs(group: string): number {
  const usec = /^usage_usec (\d+)$/m.exec(readFileSync(`${group}/cpu.stat`, 'utf8'))?.[1]
  if (usec === undefined) throw new Error(`${group}/cpu.stat has no usage_usec`)
  return Number(usec) / 1000
}

/** User and system time of a process, in steps of 10 ms. */
export const processCpuMs = (pid: number): number => statMs(pid, [11, 12])

/** Of a process and all that it started, those that have ended included. Most of it in nanoseconds. */
export const treeCpuMs = (pid: number): number =>
  treeOf(pid).reduce(
    (sum, each) => sum + threadsOf(each).reduce((ms, thread) => ms + thread.cpuMs, statMs(each, [13, 14])),
    0,
  )

/** A process and all that it started and that still run. */
function treeOf(pid: number): readonly number[] {
  return [pid, ...threadsOf(pid).flatMap(({ children }) => children.flatMap(treeOf))]
}

function threadsOf(pid: number): readonly { readonly cpuMs: number; readonly children: readonly number[] }[] {
  const folder = `/proc/${pid}/task`
  // What was about to end may have ended.
  const threads = existsSync(folder) ? readdirSync(folder) : []
  return threads.map((thread) => {
    const read = (file: string): readonly number[] =>
      readFileSync(`${folder}/${thread}/${file}`, 'utf8').trim().split(' ').filter(Boolean).map(Number)
    return { cpuMs: read('schedstat')[0]! / 1e6, children: read('children') }
  })
}

/** @param fields as counted behind the command's name, which may hold blanks and parentheses. */
function statMs(pid: number, fields: readonly number[]): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const values = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return fields.reduce((ticks, field) => ticks + Number(values[field]), 0) * (1000 / TICKS_PER_SECOND)
}
