// A cgroup with a bound on memory, for processes that are started in it: what they allocate, and what is read from files
// for them first. By the first version's hierarchy, since a lab's own groups are of the second.

import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'

export type MemoryGroup = {
  /** What `start` begins at once is in the group, with its children. */
  readonly around: <T>(start: () => T) => T
  readonly setLimit: (bytes: number) => void
  readonly read: () => {
    /** Most at a time since `setLimit`, bytes, files included. */
    readonly peak: number
    /** Now, of no file. */
    readonly anonymous: number
    /** Processes that the kernel ended for want of memory, since the group was made. */
    readonly killed: number
  }
  readonly close: () => void
}

const ROOT = '/sys/fs/cgroup/memory'

/** Why there can be none here; false where there can. */
export function lacksMemoryGroups(): string | false {
  try {
    readFileSync(`${ROOT}/memory.limit_in_bytes`)
    return false
  } catch {
    return `needs the memory controller of cgroup v1 at ${ROOT}`
  }
}

export function makeMemoryGroup(name: string): MemoryGroup {
  const folder = `${ROOT}/${name}`
  mkdirSync(folder)
  const put = (file: string, value: number): void => writeFileSync(`${folder}/${file}`, String(value))
  const text = (file: string): string => readFileSync(`${folder}/${file}`, 'utf8')
  return {
    around(start) {
      put('cgroup.procs', process.pid)
      try {
        return start()
      } finally {
        writeFileSync(`${ROOT}/cgroup.procs`, String(process.pid))
      }
    },
    setLimit(bytes) {
      put('memory.limit_in_bytes', bytes)
      put('memory.max_usage_in_bytes', 0)
    },
    read: () => ({
      peak: Number(text('memory.max_usage_in_bytes')),
      anonymous: Number(/^total_rss (\d+)/m.exec(text('memory.stat'))?.[1]),
      killed: Number(/^oom_kill (\d+)/m.exec(text('memory.oom_control'))?.[1]),
    }),
    close: () => rmdirSync(folder),
  }
}
