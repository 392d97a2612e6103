// Objects that outlive their process: names in a BPF file system.

import { closeSync, existsSync, readdirSync, rmdirSync, statfsSync, unlinkSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { run } from '../net/exec.ts'
import { linkedTo, detachLink } from './program.ts'
import { Attributes, bpf, type BpfError } from './syscall.ts'

const BPF_FS_MAGIC = 0xcafe4a11
const MODE = 0o700

/** Makes a folder for pins in a BPF file system, which is mounted where there is none yet. @throws Error, ExecError */
export async function makePinFolder(folder: string): Promise<void> {
  const root = dirname(folder)
  await mkdir(root, { recursive: true })
  if (statfsSync(root).type !== BPF_FS_MAGIC) {
    if (readdirSync(root).length > 0) throw new Error(`${root} is no BPF file system, and holds other files`)
    await run('mount', ['-t', 'bpf', 'bpf', root])
  }
  await mkdir(folder, { recursive: true, mode: MODE })
}

/** @throws BpfError: EEXIST if the name is taken. */
export function pin(path: string, fd: number): void {
  bpf('OBJ_PIN', pathAttributes(path).u32(8, fd), `pin ${path}`)
}

/** @returns a descriptor of what is pinned there; undefined if nothing is. @throws BpfError */
export function openPin(path: string): number | undefined {
  if (!existsSync(path)) return undefined
  try {
    return bpf('OBJ_GET', pathAttributes(path), `pin ${path}`)
  } catch (error) {
    if ((error as BpfError).code === 'ENOENT') return undefined
    throw error
  }
}

/** Takes the name away; what nothing else holds ends with it. */
export function unpin(path: string): void {
  if (existsSync(path)) unlinkSync(path)
}

/** Takes the name away, and detaches a link although a program that still runs may hold it. */
export function removePin(path: string): void {
  let fd: number | undefined
  try {
    fd = openPin(path)
    if (fd !== undefined && isLink(fd)) detachLink(fd)
  } catch {
    // A kernel before 5.9 cannot; the link then ends with its last holder.
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
  unpin(path)
}

/** Removes all pins of a folder, and it. @returns the names that went; none if there is no such folder. */
export function removePins(folder: string): readonly string[] {
  if (!existsSync(folder)) return []
  const names = readdirSync(folder)
  for (const name of names) removePin(join(folder, name))
  rmdirSync(folder)
  return names
}

const isLink = (fd: number) => linkedTo(fd)?.hook !== undefined

const pathAttributes = (path: string) => new Attributes(16).pointer(0, Buffer.from(`${path}\0`))
