// The control group of a service. systemd and container runtimes end all processes of one together, so what is to outlive
// the service must leave it.

import { mkdir, readFile } from 'node:fs/promises'

/** By the names that systemd gives to units, or below the groups that runtimes without systemd make. */
const SERVICE = /\.(service|scope)(\/|$)|^\/(kubepods|docker)\//

/** At the root of cgroup2, since the groups of slices and pods end too. */
const OUTSIDE = 'fulmar-wireguard-go'

/** Where a container's group is not to be left: /sys/fs/cgroup is not the machine's, or not writable. */
const CLOSED: readonly unknown[] = ['EACCES', 'EPERM', 'EROFS']

/** @param group as /proc/self/cgroup names it. */
export const isOfService = (group: string): boolean => SERVICE.test(group)

/** The folder of a group that nobody ends. @returns undefined if this process is in no service's group or cannot leave it. */
export async function groupOutside(): Promise<string | undefined> {
  const own = /^0::(.*)$/m.exec(await readFile('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  const root = /^\S+ (\S+) cgroup2 /m.exec(await readFile('/proc/mounts', 'utf8'))?.[1]
  if (root === undefined || !isOfService(own)) return undefined
  try {
    await mkdir(`${root}/${OUTSIDE}`, { recursive: true })
    return `${root}/${OUTSIDE}`
  } catch (error) {
    if (!CLOSED.includes((error as NodeJS.ErrnoException).code)) throw error
    return undefined
  }
}
