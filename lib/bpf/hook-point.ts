// The group of processes that programs are attached to: everything on the machine, unless told otherwise.

import { readFileSync, statSync } from 'node:fs'
import { BpfError } from './syscall.ts'

/** The inode of the one group that holds all others; a container's own view of cgroup2 begins further down. */
const ROOT_INODE = 1n

/** Where cgroup2 is mounted. @throws BpfError */
export function cgroupMount(): string {
  const mounted = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2')?.[1]
  if (mounted !== undefined) return mounted
  throw new BpfError('no cgroup2 file system is mounted here: mount the host’s /sys/fs/cgroup', 'FULMAR_NO_BPF')
}

/**
 * The root of all groups, where this process belongs to the machine itself: one in another network namespace has other
 * services than the rest of the machine, and must say which group is its own.
 * @throws BpfError
 */
export function machineGroup(): string {
  const root = cgroupMount()
  if (groupId(root) !== ROOT_INODE)
    throw new BpfError(`${root} is not the machine’s root of cgroup2: mount the host’s /sys/fs/cgroup`, 'FULMAR_NO_BPF')
  if (!inFirstNetwork())
    throw new BpfError('this is not the machine’s own network: name the group of its processes', 'FULMAR_NO_BPF')
  return root
}

/** @throws BpfError where the first process is none of ours to look at. */
function inFirstNetwork(): boolean {
  try {
    const [own, first] = ['self', '1'].map((process) => statSync(`/proc/${process}/ns/net`, { bigint: true }).ino)
    return own === first
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const message = `whether this is the machine’s own network cannot be seen (${code}): name the group of its processes`
    throw new BpfError(message, 'FULMAR_NO_BPF', { cause })
  }
}

/** As links and programs know a group. @param group its folder. @throws BpfError where there is none. */
export function groupId(group: string): bigint {
  const found = statSync(group, { bigint: true, throwIfNoEntry: false })
  if (found !== undefined) return found.ino
  throw new BpfError(`there is no cgroup ${group}`, 'FULMAR_NO_BPF')
}
