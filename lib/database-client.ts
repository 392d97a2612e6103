// Opens a SQLite file for a daemon's own state: write-ahead log, so that kill -9 loses nothing; a corrupt file is put
// aside and said, for a daemon must start whatever its disk holds.

import { existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import type { Log } from './log.ts'

export type DatabaseLayout = {
  /** Counts changes of the schema; the tables of a file of another version are dropped. */
  readonly version: number
  readonly tables: readonly string[]
  readonly schema: string
  /** The owner looks after `needsCheckpoint`; else SQLite checkpoints by itself, in the midst of a commit. */
  readonly asksForCheckpoints?: boolean
}

/** How long another process may hold the file. */
const BUSY_MS = 2_000
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

/** @throws whatever SQLite or the file system says, but not for a corrupt file, which becomes `FILE.corrupt`. */
export function openDatabase(file: string, layout: DatabaseLayout, log: Log): DatabaseSync {
  mkdirSync(dirname(file), { recursive: true })
  try {
    return open(file, layout)
  } catch (error) {
    if (!isCorrupt(error)) throw error
    const aside = `${file}.corrupt`
    log.warn({ file, aside, err: error }, 'database is corrupt; starting empty')
    renameSync(file, aside)
    for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true })
    return open(file, layout)
  }
}

/** For a disk that went read-only: what it holds is still good. Undefined where there is nothing to be read. */
export function openDatabaseReadOnly(file: string): DatabaseSync | undefined {
  return existsSync(file) ? new DatabaseSync(file, { readOnly: true, timeout: BUSY_MS }) : undefined
}

/** Runs `write` in one transaction: all of it or nothing. */
export function transaction(database: DatabaseSync, write: () => void): void {
  database.exec('BEGIN IMMEDIATE')
  try {
    write()
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

/** A log of this size is to be copied into the database; one of four times the size is, in the midst of a commit. */
const LOG_BYTES = 16 << 20
const PAGE_BYTES = 4096

export const needsCheckpoint = (file: string): boolean =>
  (statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES

/** In a thread of its own: it waits for the disk, on flash for very long. Nothing is to be written meanwhile. */
export function checkpoint(file: string): Promise<void> {
  const worker = new Worker(CHECKPOINT, { eval: true, workerData: file })
  return new Promise((resolve, reject) => {
    worker.once('error', reject)
    worker.once('exit', () => resolve())
  })
}
const CHECKPOINT = `
  const { DatabaseSync } = require('node:sqlite')
  const database = new DatabaseSync(require('node:worker_threads').workerData, { timeout: ${BUSY_MS} })
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)')
  database.close()`

function open(file: string, { version, tables, schema, asksForCheckpoints = false }: DatabaseLayout): DatabaseSync {
  const database = new DatabaseSync(file, { timeout: BUSY_MS })
  try {
    // A power cut may cost the last transactions with NORMAL, never the file; and fsync is dear on flash.
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    if (asksForCheckpoints) database.exec(`PRAGMA wal_autocheckpoint = ${(4 * LOG_BYTES) / PAGE_BYTES}`)
    const check = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check']
    if (check !== 'ok') throw Object.assign(new Error(`quick_check: ${String(check)}`), { errcode: SQLITE_CORRUPT })
    if (database.prepare('PRAGMA user_version').get()?.['user_version'] !== version)
      database.exec(
        `${tables.map((table) => `DROP TABLE IF EXISTS ${table};`).join('')} ${schema}; PRAGMA user_version = ${version}`,
      )
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** The low byte of SQLite's code is the kind, the rest says where. */
function isCorrupt(error: unknown): boolean {
  const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB
}
