// Looks at this host for what lib/preflight.ts lists. Reads files where it can; one program is run (nft), all at once,
// so that a host which has everything passes in some milliseconds.

import { accessSync, closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs'
import { execFile } from 'node:child_process'
import { release } from 'node:os'
import { join } from 'node:path'
import type { Finding, Probe, Requirement } from '../preflight.ts'
import { withRootPath } from './root-path.ts'

const CAP_NET_ADMIN = 12n
const CAP_SYS_ADMIN = 21n
const NFT_TIMEOUT_MS = 5_000

export const probe = (requirements: readonly Requirement[]): Promise<readonly Finding[]> =>
  Promise.all(requirements.map(async (requirement) => ({ requirement, problem: await problemOf(requirement.probe) })))

/** Debian and what is made from it, where apt-get brings what is missing. */
export function isDebian(): boolean {
  try {
    const fields = readFileSync('/etc/os-release', 'utf8')
    return /^(ID|ID_LIKE)=.*\bdebian\b/m.test(fields) && find('apt-get') !== undefined
  } catch {
    return false
  }
}

/** The path of a program, in PATH or where root's programs are. */
export function find(program: string): string | undefined {
  const folders = withRootPath(process.env['PATH']).split(':')
  return folders.map((folder) => join(folder, program)).find(executable)
}

async function problemOf(wanted: Probe): Promise<string | undefined> {
  switch (wanted.kind) {
    case 'program':
      return find(wanted.program) === undefined ? 'is not installed, or not in PATH' : undefined
    case 'device':
      return openProblem(wanted.path)
    case 'root':
      return rootProblem()
    case 'cgroup2':
      return / cgroup2 /.test(readText('/proc/mounts')) ? undefined : 'no cgroup2 file system is mounted'
    case 'nftables':
      return nftProblem()
    case 'wireguard':
      return hasWireguard() ? undefined : 'neither the module for this kernel nor wireguard-go is there'
  }
}

function rootProblem(): string | undefined {
  if (process.geteuid!() !== 0) return 'this is not root'
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readText('/proc/self/status'))?.[1] ?? '0'}`)
  const has = (capability: bigint): boolean => (effective & (1n << capability)) !== 0n
  return has(CAP_NET_ADMIN) && has(CAP_SYS_ADMIN) ? undefined : 'this is root without CAP_NET_ADMIN or CAP_SYS_ADMIN'
}

function nftProblem(): Promise<string | undefined> {
  const nft = find('nft')
  if (nft === undefined) return Promise.resolve('cannot be tried without nft')
  return new Promise((resolve) => {
    execFile(nft, ['list', 'tables'], { timeout: NFT_TIMEOUT_MS }, (error, _stdout, stderr) =>
      resolve(error === null ? undefined : `nft list tables fails: ${stderr.trim().split('\n')[0] || error.message}`),
    )
  })
}

const hasWireguard = (): boolean => find('wireguard-go') !== undefined || hasWireguardModule()

/** Loaded, or to be loaded; a container does not see what lies in the host's /lib/modules. */
export function hasWireguardModule(): boolean {
  if (existsSync('/sys/module/wireguard')) return true
  const modules = `/lib/modules/${release()}`
  return /\/wireguard\.ko/.test(readText(`${modules}/modules.dep`) + readText(`${modules}/modules.builtin`))
}

function openProblem(path: string): string | undefined {
  try {
    closeSync(openSync(path, constants.O_RDWR))
    return undefined
  } catch (error) {
    return `cannot be opened: ${(error as Error).message}`
  }
}

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
