// What a lab needs of the machine: root, programs, cgroup2 and groups in it.

import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { UsageError } from '../../lib/net/lifetime.ts'
import { probe } from '../../lib/net/preflight.ts'
import { missing, report, requirementsOf } from '../../lib/preflight.ts'

/** What only tests need; a lab runs without. */
const OPTIONAL: readonly string[] = ['kubectl', 'ping', 'conntrack']

/** @throws UsageError naming everything that is missing and how to get it. */
export async function checkMachine(): Promise<void> {
  const findings = await probe(requirementsOf('lab').filter(({ name }) => !OPTIONAL.includes(name)))
  const [problem] = missing(findings)
  if (problem !== undefined) throw new UsageError(`this machine cannot have a lab:\n${report(findings)}`)
}

/** Where cgroup2 is mounted: /sys/fs/cgroup, or beside the old hierarchies. @throws UsageError */
export function cgroupRoot(): string {
  const root = findCgroupRoot()
  if (root === undefined) throw new UsageError('no cgroup2 on this machine')
  return root
}

function findCgroupRoot(): string | undefined {
  const line = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .find((text) => text.split(' ')[2] === 'cgroup2')
  return line?.split(' ')[1]
}

export function makeCgroups(groups: readonly string[]): void {
  for (const group of groups) mkdirSync(`${cgroupRoot()}/${group}`, { recursive: true })
}

/** Ends every process of a group and its descendants; a group that is not there has none. */
export function killCgroup(group: string): void {
  try {
    writeFileSync(`${cgroupRoot()}/${group}/cgroup.kill`, '1')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

/** @returns false while a process in it has not ended yet. */
export function removeCgroup(group: string): boolean {
  return removeTree(`${cgroupRoot()}/${group}`)
}

function removeTree(directory: string): boolean {
  try {
    const children = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory())
    if (!children.map(({ name }) => removeTree(`${directory}/${name}`)).every(Boolean)) return false
    rmdirSync(directory)
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return true
    if (code === 'EBUSY') return false
    throw error
  }
}
