// Files that are whole or absent, whatever dies when: written beside, synced, and then moved or linked into place.

import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Keys and secrets: their owner's alone. */
export const PRIVATE_MODE = 0o600

/** Writes or replaces a file. Once it returns, the new content survives a power cut. */
export async function writeWhole(path: string, content: string, mode = 0o644): Promise<void> {
  const temporary = await writeBeside(path, content, mode)
  await rename(temporary, path)
  await syncFolder(path)
}

/**
 * Writes a file unless there is one, also when many try at once.
 * @returns false if it was there before.
 */
export async function writeNew(path: string, content: string, mode = 0o644): Promise<boolean> {
  const temporary = await writeBeside(path, content, mode)
  try {
    await link(temporary, path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  } finally {
    await unlink(temporary)
  }
  await syncFolder(path)
  return true
}

/** @returns undefined where there is no such file. */
export async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    throw error
  }
}

/** A folder that only its owner may enter, with those above it. */
export async function makePrivateFolder(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 })
}

async function writeBeside(path: string, content: string, mode: number): Promise<string> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`
  const file = await open(temporary, 'wx', mode)
  try {
    await file.writeFile(content)
    await file.sync()
  } catch (error) {
    // A full disk would fill with them.
    await unlink(temporary)
    // What fails at a descriptor names no file.
    if (error instanceof Error) error.message += ` '${path}'`
    throw error
  } finally {
    await file.close()
  }
  return temporary
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
