// The control group of a service. systemd and container runtimes end all processes of one together, so what is to outlive
// the service must leave it.

import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { setTimeout as pause } from 'node:timers/promises'

/** By the names that systemd gives to units, or below the groups that runtimes without systemd make. */
const SERVICE = /\.(service|scope)(\/|$)|^\/(kubepods|docker)\//

/** At the root of cgroup2, since the groups of slices and pods end too. */
const OUTSIDE = 'fulmar-wireguard-go'

/** Of 100 that a group has by default. */
const CPU_WEIGHT = '1000'

/** Where a container's group is not to be left: /sys/fs/cgroup is not the machine's, or not writable. */
const CLOSED: readonly unknown[] = ['EACCES', 'EPERM', 'EROFS']

/** @param group as /proc/self/cgroup names it. */
export const isOfService = (group: string): boolean => SERVICE.test(group)

/** The folder of a group that nobody ends. @returns undefined if this process is in no service's group or cannot leave it. */
export async function groupOutside(): Promise<string | undefined> {
  const own = /^0::(.*)$/m.exec(await readFile('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  const root = await cgroupRoot()
  if (root === undefined || !isOfService(own)) return undefined
  try {
    await mkdir(`${root}/${OUTSIDE}`, { recursive: true })
    await prefer(`${root}/${OUTSIDE}`)
    return `${root}/${OUTSIDE}`
  } catch (error) {
    if (!CLOSED.includes((error as NodeJS.ErrnoException).code)) throw error
    return undefined
  }
}

/** A tunnel goes on when pods take all processors. Without the controller `cpu` there is nothing to be set. */
async function prefer(folder: string): Promise<void> {
  try {
    await writeFile(`${folder}/cpu.weight`, CPU_WEIGHT, { flag: 'r+' })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

/** A wireguard-go ends by itself once its device is gone, but not at once. */
const EMPTY_MS = 2_000
const EMPTY_POLL_MS = 20

/** `processes` that stay in it serve devices of another network of this machine, and keep it. */
export type GroupOutside = { readonly folder: string; readonly processes: readonly number[] }

/** Removes that group once it is empty. @returns what became of it; undefined if there is none. */
export async function removeGroupOutside(): Promise<GroupOutside | undefined> {
  const root = await cgroupRoot()
  if (root === undefined) return undefined
  const folder = `${root}/${OUTSIDE}`
  for (const endMs = performance.now() + EMPTY_MS; ;)
    try {
      await rmdir(folder)
      return { folder, processes: [] }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'ENOENT' || CLOSED.includes(code)) return undefined
      if (code !== 'EBUSY') throw error
      if (performance.now() > endMs) return { folder, processes: await processesIn(folder) }
      await pause(EMPTY_POLL_MS)
    }
}

const processesIn = async (folder: string): Promise<readonly number[]> =>
  (await readFile(`${folder}/cgroup.procs`, 'utf8')).split('\n').filter(Boolean).map(Number)

const cgroupRoot = async () => /^\S+ (\S+) cgroup2 /m.exec(await readFile('/proc/mounts', 'utf8'))?.[1]
