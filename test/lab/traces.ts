// What a lab leaves on the machine, which is nothing after its end.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cgroupRoot } from './machine.ts'

/** Namespaces, groups, files, processes and mounts. */
export function tracesOf(id: string): readonly string[] {
  const names = (directory: string) => (existsSync(directory) ? readdirSync(directory) : [])
  const processes = names('/proc').filter(
    (pid) => /^\d+$/.test(pid) && commandOf(pid).includes(`/run/fulmar-lab/${id}/`),
  )
  return [
    ...names('/run/netns').filter((name) => name.startsWith(`fm-${id}-`)),
    ...names(cgroupRoot()).filter((name) => name.startsWith(`fm-${id}`)),
    ...names('/run/fulmar-lab').filter((name) => name.startsWith(id)),
    ...processes.map((pid) => `process ${pid}`),
    ...readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(`/fulmar-lab/${id}`)),
  ]
}
function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}
