// What a lab needs of the machine: root, programs, cgroup2.

import { accessSync, constants, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { readdirSync } from 'node:fs'
import { UsageError } from '../../lib/net/lifetime.ts'

const PROGRAMS = {
  ip: 'iproute2',
  nft: 'nftables',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  mount: 'mount',
} as const

/** @throws UsageError naming everything that is missing. */
export function checkMachine(): void {
  const missing = Object.entries(PROGRAMS).filter(([program]) => !isInstalled(program))
  const problems = [
    ...(process.getuid?.() === 0 ? [] : ['not root: network namespaces need it; run it through sudo']),
    ...missing.map(([program, debianPackage]) => `${program} is not installed; on Debian: apt-get install ${debianPackage}`),
    ...(findCgroupRoot() === undefined ? ['no cgroup2: mount it with: mount -t cgroup2 none /sys/fs/cgroup'] : []),
  ]
  if (problems.length > 0) throw new UsageError(problems.join('\n'))
}

/** Where cgroup2 is mounted: /sys/fs/cgroup, or beside the old hierarchies. @throws UsageError */
export function cgroupRoot(): string {
  const root = findCgroupRoot()
  if (root === undefined) throw new UsageError('no cgroup2 on this machine')
  return root
}

function findCgroupRoot(): string | undefined {
  const line = readFileSync('/proc/mounts', 'utf8').split('\n').find((text) => text.split(' ')[2] === 'cgroup2')
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

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(':').some((directory) => {
    try {
      accessSync(`${directory}/${program}`, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}
