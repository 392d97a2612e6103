// Counts the starts of a daemon, on disk: what it said before the last one is told from what it says now (lib/wire/lan.ts).

import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Log } from '../log.ts'
import { readIfPresent, writeWhole } from './files.ts'

/** @returns which start this is, from 1. A disk that refuses is logged. */
export async function countBoot(path: string, log: Log): Promise<number> {
  const boot = (Number(await readIfPresent(path)) || 0) + 1
  try {
    await mkdir(dirname(path), { recursive: true })
    await writeWhole(path, `${boot}\n`)
  } catch (err) {
    log.warn({ err, path }, 'cannot save; others of this pool may not believe us after a restart')
  }
  return boot
}
