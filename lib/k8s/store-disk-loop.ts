// The store's copy on disk: objects as JSON in SQLite, written in batches behind the hot path. It survives kill -9
// (write-ahead log); a corrupt file is put aside and said; a full or read-only disk costs the copy, never the service.

import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setImmediate as tick, setTimeout as sleep } from 'node:timers/promises'
import type { Log } from '../log.ts'
import type { KubernetesObject } from './objects.ts'

export type StoredResource = { readonly objects: readonly KubernetesObject[]; readonly updatedAt: number }
export type StoreDisk = {
  /** What the disk held at start of a resource, once; undefined for one that was never listed. */
  readonly take: (resource: string) => StoredResource | undefined
  /** To be written soon; undefined removes. The object is read when it is written. */
  readonly put: (resource: string, namespace: string, name: string, object: KubernetesObject | undefined) => void
  /** The resource was heard of at this time (Unix ms). */
  readonly heard: (resource: string, atMs: number) => void
  /** Why the disk is not written at present. */
  readonly error: () => string | undefined
  /** Writes what is outstanding and closes the file. */
  readonly close: () => Promise<void>
}

/** Counts changes of the tables below; a file of another version is started anew. */
const SCHEMA_VERSION = 1
const SCHEMA = `
  CREATE TABLE IF NOT EXISTS object (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS resource (key TEXT PRIMARY KEY, updated_at INTEGER NOT NULL) WITHOUT ROWID;
`
const BUSY_MS = 2_000
const FLUSH_DELAY_MS = 200
/** One batch blocks the event loop for about a millisecond. */
const BATCH_ROWS = 100
const RETRY_MS = 30_000
/** Bookmarks arrive all the time; the disk hears of them this often, for flash wears out. */
const HEARD_MS = 60_000
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

type Row = { readonly resource: string; readonly namespace: string; readonly name: string; readonly object: KubernetesObject | undefined }

/** Never throws: without a usable file it serves as a disk that is empty and forgets. */
export function openStoreDisk(file: string, log: Log): StoreDisk {
  const { restored, ...opened } = open(file, log)
  let { database, error: failure } = opened
  const rows = new Map<string, Row>()
  const heardAt = new Map<string, number>()
  const writtenAt = new Map<string, number>()
  let flushing: Promise<void> | undefined
  const closing = new AbortController()

  const writeBatch = (db: DatabaseSync): void => {
    const batch = [...rows].slice(0, BATCH_ROWS)
    db.exec('BEGIN IMMEDIATE')
    try {
      const put = db.prepare('INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)')
      const remove = db.prepare('DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?')
      for (const [, { resource, namespace, name, object }] of batch) {
        if (object === undefined) remove.run(resource, namespace, name)
        else put.run(resource, namespace, name, JSON.stringify(object))
      }
      // Only with the last of its objects may a resource count as complete.
      if (batch.length === rows.size) {
        const heard = db.prepare('INSERT OR REPLACE INTO resource VALUES (?, ?)')
        for (const [key, at] of heardAt) heard.run(key, at)
      }
      db.exec('COMMIT')
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      throw error
    }
    for (const [key, row] of batch) if (rows.get(key) === row) rows.delete(key)
    if (rows.size === 0) {
      for (const [key, at] of heardAt) writtenAt.set(key, at)
      heardAt.clear()
    }
  }

  const flush = async (): Promise<void> => {
    await sleep(FLUSH_DELAY_MS, undefined, { signal: closing.signal }).catch(() => undefined)
    while (rows.size > 0 || heardAt.size > 0) {
      try {
        database ??= create(file)
        writeBatch(database)
        if (failure !== undefined) log.info({ file }, 'store is written to disk again')
        failure = undefined
        await tick()
      } catch (error) {
        if (failure === undefined) log.warn({ file, err: error }, 'store cannot be written to disk; serving from memory')
        failure = `${file}: ${(error as Error).message}`
        if (closing.signal.aborted) return
        await sleep(RETRY_MS, undefined, { signal: closing.signal }).catch(() => undefined)
      }
    }
  }
  const schedule = (): void => {
    flushing ??= flush().finally(() => (flushing = undefined))
  }

  return {
    take: (resource) => {
      const stored = restored.get(resource)
      restored.delete(resource)
      return stored
    },
    put: (resource, namespace, name, object) => {
      rows.set(`${resource}\0${namespace}\0${name}`, { resource, namespace, name, object })
      schedule()
    },
    heard: (resource, atMs) => {
      if (atMs - (writtenAt.get(resource) ?? 0) < HEARD_MS) return
      heardAt.set(resource, atMs)
      schedule()
    },
    error: () => failure,
    close: async () => {
      closing.abort()
      await flushing
      database?.close()
    },
  }
}

type Opened = { database: DatabaseSync | undefined; restored: Map<string, StoredResource>; error: string | undefined }

function open(file: string, log: Log): Opened {
  let database: DatabaseSync | undefined
  try {
    database = create(file)
    return { database, restored: load(database, log), error: undefined }
  } catch (error) {
    database?.close()
    const { errcode } = error as { errcode?: number }
    // The low byte is the primary code; the rest says where.
    const code = (errcode ?? 0) & 0xff
    if (code === SQLITE_CORRUPT || code === SQLITE_NOTADB) return startAnew(file, error, log)
    log.warn({ file, err: error }, 'store cannot be written to disk; serving from memory')
    return { database: undefined, restored: loadReadOnly(file, log), error: `${file}: ${(error as Error).message}` }
  }
}

function startAnew(file: string, cause: unknown, log: Log): Opened {
  const aside = `${file}.corrupt`
  log.warn({ file, aside, err: cause }, 'store on disk is corrupt; starting empty')
  try {
    renameSync(file, aside)
    for (const suffix of ['-wal', '-shm']) rmSync(file + suffix, { force: true })
    return { database: create(file), restored: new Map(), error: undefined }
  } catch (error) {
    log.warn({ file, err: error }, 'store cannot be written to disk; serving from memory')
    return { database: undefined, restored: new Map(), error: `${file}: ${(error as Error).message}` }
  }
}

function create(file: string): DatabaseSync {
  mkdirSync(dirname(file), { recursive: true })
  const database = new DatabaseSync(file, { timeout: BUSY_MS })
  try {
    // A power cut may cost the last transactions with NORMAL, never the file; and fsync is dear on flash.
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL')
    const version = database.prepare('PRAGMA user_version').get()?.['user_version']
    if (version !== SCHEMA_VERSION) {
      database.exec(`DROP TABLE IF EXISTS object; DROP TABLE IF EXISTS resource; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}`)
    }
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** A disk that went read-only still holds what is needed to start. */
function loadReadOnly(file: string, log: Log): Map<string, StoredResource> {
  if (!existsSync(file)) return new Map()
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(file, { readOnly: true, timeout: BUSY_MS })
    return load(database, log)
  } catch (error) {
    log.warn({ file, err: error }, 'store on disk cannot be read; starting empty')
    return new Map()
  } finally {
    database?.close()
  }
}

function load(database: DatabaseSync, log: Log): Map<string, StoredResource> {
  const check = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check']
  if (check !== 'ok') throw Object.assign(new Error(`quick_check: ${String(check)}`), { errcode: SQLITE_CORRUPT })
  const restored = new Map<string, { objects: KubernetesObject[]; updatedAt: number }>()
  for (const { key, updated_at } of database.prepare('SELECT key, updated_at FROM resource').all())
    restored.set(String(key), { objects: [], updatedAt: Number(updated_at) })
  for (const { resource, namespace, name, json } of database.prepare('SELECT * FROM object').iterate()) {
    try {
      restored.get(String(resource))?.objects.push(JSON.parse(String(json)) as KubernetesObject)
    } catch (error) {
      log.warn({ resource, namespace, name, err: error }, 'object on disk cannot be read; left out')
    }
  }
  return restored
}
