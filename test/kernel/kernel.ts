// Debian's kernel, unpacked into a cache and never installed: its image, and the modules that networks need.

import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

export type Kernel = {
  /** As `uname -r` prints it. */
  readonly version: string
  /** Holds boot/vmlinuz-VERSION and lib/modules/VERSION. */
  readonly folder: string
}

/** Neither in the cache nor to be had. */
export class KernelError extends Error {
  readonly code = 'FULMAR_KERNEL'
  override readonly name = 'KernelError'
}

const CACHE = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'fulmar', 'kernel')
/** Depends on the newest kernel of this Debian. */
const META_PACKAGE = 'linux-image-amd64'
const PREFIX = 'linux-image-'
/** 60 of the 400 MB that the package unpacks to. */
const WANTED = [
  './boot/vmlinuz-*',
  './lib/modules/*/modules.*',
  ...['arch', 'crypto', 'lib', 'net', 'fs/9p', 'fs/fscache', 'fs/netfs', 'fs/overlayfs', 'drivers/virtio'].map(
    (folder) => `./lib/modules/*/kernel/${folder}`,
  ),
  ...['*.ko*', 'vxlan', 'wireguard'].map((files) => `./lib/modules/*/kernel/drivers/net/${files}`),
]
const PATIENCE_MS = 180_000

/**
 * The kernel of the newest package that apt knows, else the newest in the cache.
 * @throws KernelError saying what is missing.
 */
export async function ensureKernel(say: (line: string) => void): Promise<Kernel> {
  try {
    return await newest(say).catch(async () => {
      say('apt-get update, since the package lists of this machine do not do')
      await run(CACHE, 'apt-get', '-qq', 'update')
      return newest(say)
    })
  } catch (error) {
    const reason = (error as Error).message.trimEnd()
    const cached = await newestCached()
    if (cached === undefined) throw missing(reason, error)
    say(`${reason}\ngoing on with ${cached.version}, which is in ${CACHE}`)
    return cached
  }
}

async function newest(say: (line: string) => void): Promise<Kernel> {
  const name = await packageName()
  const kernel = kernelOf(name.slice(PREFIX.length))
  if (!existsSync(kernel.folder)) await unpack(name, kernel, say)
  return kernel
}

const missing = (reason: string, cause: unknown) =>
  new KernelError(
    `the package that ${META_PACKAGE} depends on is neither in ${CACHE} nor can apt-get download it: ${reason}`,
    { cause },
  )

const kernelOf = (version: string): Kernel => ({ version, folder: join(CACHE, version) })

async function packageName(): Promise<string> {
  const name = /Depends: (linux-image-\S+)/.exec(await run(CACHE, 'apt-cache', 'depends', META_PACKAGE))?.[1]
  if (name === undefined) throw new Error(`apt-cache depends ${META_PACKAGE} names no kernel`)
  return name
}

/** In a folder beside the final one, which is there only when all of it is. */
async function unpack(name: string, { version, folder }: Kernel, say: (line: string) => void): Promise<void> {
  const temporary = await mkdtemp(join(CACHE, '.new-'))
  try {
    say(`downloading ${name}, about 70 MB, to ${folder}, where about 60 MB stay; nothing of it is installed`)
    // Else it complains that its own user may not write here.
    await run(temporary, 'apt-get', '-qq', '-o', 'APT::Sandbox::User=root', 'download', name)
    const unpacking = 'dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards --no-wildcards-match-slash "$@"; rm *.deb'
    await run(temporary, 'bash', '-euo', 'pipefail', '-c', unpacking, 'unpack', ...WANTED)
    await run(temporary, 'depmod', '--basedir', '.', version)
    await rename(temporary, folder)
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

async function newestCached(): Promise<Kernel | undefined> {
  const versions = (await readdir(CACHE)).filter((name) => !name.startsWith('.'))
  const newest = versions.toSorted((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1)
  return newest === undefined ? undefined : kernelOf(newest)
}

/** @returns its stdout. @throws Error naming the command, with what it printed on stderr. */
async function run(cwd: string, program: string, ...args: readonly string[]): Promise<string> {
  await mkdir(cwd, { recursive: true })
  return (await promisify(execFile)(program, args, { cwd, timeout: PATIENCE_MS })).stdout
}
