// The store's copy on disk: objects as JSON in SQLite, written in batches behind the hot path. A full or read-only disk
// costs the copy, never the service.

import type { DatabaseSync } from 'node:sqlite'
import { setImmediate as tick, setTimeout as sleep } from 'node:timers/promises'
import {
  checkpoint,
  type DatabaseLayout,
  needsCheckpoint,
  openDatabase,
  openDatabaseReadOnly,
  transaction,
} from '../database-client.ts'
import type { Log } from '../log.ts'
import { trimAllocated } from '../net/memory.ts'
import type { KubernetesObject } from './objects.ts'

export type StoredResource = {
  /** Read as they are asked for: there may be no room for all of them. */
  readonly objects: () => Iterable<KubernetesObject>
  readonly updatedAt: number
}
export type StoreDisk = {
  /** What the disk held at start of a resource, once; undefined for one that was never listed. */
  readonly take: (resource: string) => StoredResource | undefined
  /** To be written soon, and not asked for before; undefined removes. */
  readonly put: (
    resource: string,
    namespace: string,
    name: string,
    object: (() => KubernetesObject) | undefined,
  ) => void
  /** The resource was heard of at this time (Unix ms). */
  readonly heard: (resource: string, atMs: number) => void
  /** Why the disk is not written at present. */
  readonly error: () => string | undefined
  /** Resolves when nothing is outstanding, or cannot be written at present. */
  readonly settled: () => Promise<void>
  /** Writes what is outstanding and closes the file. */
  readonly close: () => Promise<void>
}

const LAYOUT: DatabaseLayout = {
  version: 1,
  asksForCheckpoints: true,
  tables: ['object', 'resource'],
  schema: `
    CREATE TABLE object (
      resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL,
      PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
    CREATE TABLE resource (key TEXT PRIMARY KEY, updated_at INTEGER NOT NULL) WITHOUT ROWID;`,
}
/** What changes again and again is written once; and lists, the first ones above all, are served before they are written. */
const FLUSH_DELAY_MS = 500
const FLUSH_DELAY_MAX_MS = 5_000
/** One batch blocks the event loop for so long, and its end for as long again. */
const BATCH_MS = 1
const BATCH_ROWS = 50
const RETRY_MS = 30_000
/** Bookmarks arrive all the time; the disk hears of them this often, for flash wears out. */
const HEARD_MS = 60_000

type Row = {
  readonly resource: string
  readonly namespace: string
  readonly name: string
  readonly object: (() => KubernetesObject) | undefined
}

/** Never throws: without a usable file it is a disk that is empty and forgets. */
export function openStoreDisk(file: string, log: Log): StoreDisk {
  const { restored, ...opened } = open(file, log)
  let { database, error: failure } = opened
  const rows = new Map<string, Row>()
  const heardAt = new Map<string, number>()
  const writtenAt = new Map<string, number>()
  const closing = new AbortController()
  const pause = (ms: number) => sleep(ms, undefined, { signal: closing.signal }).catch(() => undefined)
  let flushing: Promise<void> | undefined
  let puts = 0
  let waiting: (() => void)[] = []
  const settle = (): void => {
    for (const resolve of waiting) resolve()
    waiting = []
  }
  let statements: ReturnType<typeof statementsOf> | undefined

  const writeBatch = (db: DatabaseSync): void => {
    const { put, remove, heard } = (statements ??= statementsOf(db))
    const batch: string[] = []
    let complete: readonly (readonly [string, number])[] = []
    transaction(db, () => {
      const endMs = performance.now() + BATCH_MS
      for (const [key, { resource, namespace, name, object }] of rows) {
        if (object === undefined) remove.run(resource, namespace, name)
        else put.run(resource, namespace, name, JSON.stringify(object()))
        if (batch.push(key) === BATCH_ROWS || performance.now() > endMs) break
      }
      // Only with the last of its objects may a resource count as complete.
      if (batch.length === rows.size) complete = [...heardAt]
      for (const [key, at] of complete) heard.run(key, at)
    })
    for (const key of batch) rows.delete(key)
    for (const [key, at] of complete) {
      writtenAt.set(key, at)
      heardAt.delete(key)
    }
  }

  const flush = async (): Promise<void> => {
    const latestMs = performance.now() + FLUSH_DELAY_MAX_MS
    for (let count = -1; count !== puts && performance.now() < latestMs && !closing.signal.aborted;) {
      count = puts
      await pause(FLUSH_DELAY_MS)
    }
    while (rows.size > 0 || heardAt.size > 0) {
      try {
        if (database === undefined) {
          database = openDatabase(file, LAYOUT, log)
          statements = undefined
        }
        writeBatch(database)
        if (needsCheckpoint(file) && !closing.signal.aborted) await checkpoint(file)
        // What was written is not asked for again while this process lives.
        if (rows.size === 0) database.exec('PRAGMA shrink_memory')
        if (failure !== undefined) log.info({ file }, 'store is written to disk again')
        failure = undefined
        await tick()
      } catch (error) {
        if (failure === undefined)
          log.warn({ file, err: error }, 'store cannot be written to disk; serving from memory')
        failure = describe(file, error)
        settle()
        if (closing.signal.aborted) return
        await pause(RETRY_MS)
      }
    }
    // In the turn in which the loop found nothing more: what comes later starts another.
    flushing = undefined
    trimAllocated()
    settle()
  }
  const schedule = (): void => {
    flushing ??= flush()
  }

  return {
    take: (resource) => {
      const stored = restored.get(resource)
      restored.delete(resource)
      return stored
    },
    put: (resource, namespace, name, object) => {
      rows.set(`${resource}\0${namespace}\0${name}`, { resource, namespace, name, object })
      puts++
      schedule()
    },
    heard: (resource, atMs) => {
      if (atMs - (writtenAt.get(resource) ?? 0) < HEARD_MS) return
      heardAt.set(resource, atMs)
      schedule()
    },
    error: () => failure,
    settled: () => (flushing === undefined ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    close: async () => {
      closing.abort()
      await flushing
      database?.close()
    },
  }
}

type Opened = {
  readonly database: DatabaseSync | undefined
  readonly restored: Map<string, StoredResource>
  readonly error: string | undefined
}

function open(file: string, log: Log): Opened {
  try {
    const database = openDatabase(file, LAYOUT, log)
    return { database, restored: load(database, log), error: undefined }
  } catch (error) {
    log.warn({ file, err: error }, 'store cannot be written to disk; serving from memory')
    return { database: undefined, restored: loadReadOnly(file, log), error: describe(file, error) }
  }
}

function loadReadOnly(file: string, log: Log): Map<string, StoredResource> {
  let database: DatabaseSync | undefined
  try {
    database = openDatabaseReadOnly(file)
    if (database === undefined) return new Map()
    const restored = [...load(database, log)].map(([key, { objects, updatedAt }]) => {
      const all = [...objects()]
      return [key, { objects: () => all, updatedAt }] as const
    })
    return new Map(restored)
  } catch (error) {
    log.warn({ file, err: error }, 'store on disk cannot be read; starting empty')
    return new Map()
  } finally {
    database?.close()
  }
}

function load(database: DatabaseSync, log: Log): Map<string, StoredResource> {
  const rows = database.prepare('SELECT key, updated_at FROM resource').all()
  return new Map(
    rows.map(({ key, updated_at }) => [
      String(key),
      { objects: () => objectsOf(database, String(key), log), updatedAt: Number(updated_at) },
    ]),
  )
}

function* objectsOf(database: DatabaseSync, resource: string, log: Log): Generator<KubernetesObject> {
  const query = database.prepare('SELECT namespace, name, json FROM object WHERE resource = ?')
  try {
    for (const { namespace, name, json } of query.iterate(resource)) {
      const object = parsed(String(json))
      if (object !== undefined) yield object
      else log.warn({ resource, namespace, name }, 'object on disk cannot be read; left out')
    }
  } catch (error) {
    log.warn({ resource, err: error }, 'objects on disk cannot be read to their end')
  }
}

function parsed(json: string): KubernetesObject | undefined {
  try {
    return JSON.parse(json) as KubernetesObject
  } catch {
    return undefined
  }
}

const statementsOf = (database: DatabaseSync) => ({
  put: database.prepare('INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)'),
  remove: database.prepare('DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?'),
  heard: database.prepare('INSERT OR REPLACE INTO resource VALUES (?, ?)'),
})

const describe = (file: string, error: unknown) => `${file}: ${(error as Error).message}; free or repair the disk`
