// Takes a lab down by its names alone, whatever state it is in: supervisor, processes, namespaces, mounts, groups, files.
// Links and rules go with their namespaces. Twice is fine.

import { existsSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from '../../lib/net/exec.ts'
import { cgroupRoot, killCgroup, removeCgroup } from './machine.ts'
import { cgroupOf, LABS_DIR, namespacePrefix, pathsOf } from './names.ts'
import { isAlive, labIds, ownerOf } from './state.ts'

/** A supervisor takes its lab down on SIGTERM; one that takes longer is killed. */
const SUPERVISOR_GRACE_MS = 10_000
const PROCESSES_GRACE_MS = 5_000
const POLL_MS = 20
const NETNS_DIR = '/run/netns'

/** Ends the supervisor, if another process is it, then removes the lab. */
export async function takeDown(id: string): Promise<void> {
  const owner = ownerOf(id)
  if (owner !== undefined && owner.pid !== process.pid) {
    process.kill(owner.pid, 'SIGTERM')
    if (!(await until(() => !isAlive(owner), SUPERVISOR_GRACE_MS))) {
      process.kill(owner.pid, 'SIGKILL')
      await until(() => !isAlive(owner), PROCESSES_GRACE_MS)
    }
  }
  await removeLab(id)
  const { lock, log } = pathsOf(id)
  rmSync(lock, { force: true })
  rmSync(log, { force: true })
}

/** Removes everything of a lab but its lock, which whoever calls this holds. */
export async function removeLab(id: string): Promise<void> {
  const namespaces = readNames(NETNS_DIR).filter((name) => name.startsWith(namespacePrefix(id)))
  killCgroup(cgroupOf(id))
  for (const pid of processesIn(namespaces)) killProcess(pid)
  await attempt(
    () => run('ip', ['-force', '-batch', '-'], { input: namespaces.map((name) => `netns del ${name}\n`).join('') }),
    () => namespaces.some((name) => existsSync(`${NETNS_DIR}/${name}`)),
  )
  const { directory } = pathsOf(id)
  const isMounted = () => mountsOn(directory) > 0
  for (let mounts = mountsOn(directory); mounts > 0; mounts--)
    await attempt(() => run('umount', ['-l', directory]), isMounted)
  rmSync(directory, { recursive: true, force: true })
  if (!(await until(() => removeCgroup(cgroupOf(id)), PROCESSES_GRACE_MS)))
    throw new Error(`lab ${id}: processes in cgroup ${cgroupRoot()}/${cgroupOf(id)} do not end; see its cgroup.procs`)
}

/** Does what is left to do; what another `down` does at the same time is no error. */
async function attempt(body: () => Promise<unknown>, isLeft: () => boolean): Promise<void> {
  if (!isLeft()) return
  try {
    await body()
  } catch (error) {
    if (isLeft()) throw error
  }
}

/** Every lab of which anything is left. */
export function findLabs(): readonly string[] {
  const idOf = (name: string) => /^fm-([a-z][a-z0-9]*)(-|$)/.exec(name)?.[1] ?? []
  return [
    ...new Set([...labIds(), ...readNames(NETNS_DIR).flatMap(idOf), ...readNames(cgroupRoot()).flatMap(idOf)]),
  ].toSorted()
}

/** Removes the labs' folder once it is empty. */
export function removeEmptyFolder(): void {
  try {
    rmdirSync(LABS_DIR)
  } catch {
    // Another lab is there, or has just come; or another one's end has done it.
  }
}

/** Processes that entered a namespace without its group, such as a person's shell. */
function processesIn(namespaces: readonly string[]): readonly number[] {
  const wanted = new Set(
    namespaces.flatMap((name) => {
      const found = statSync(`${NETNS_DIR}/${name}`, { throwIfNoEntry: false })
      return found === undefined ? [] : [`net:[${found.ino}]`]
    }),
  )
  return readNames('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && wanted.has(networkOf(pid)))
}

function networkOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`)
  } catch {
    return ''
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

const mountsOn = (directory: string) =>
  readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.split(' ')[1] === directory).length

function readNames(directory: string): readonly string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

async function until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) return false
    await sleep(POLL_MS)
  }
  return true
}
