// What the embedded API keeps on disk: objects with their versions, so that clients go on after a restart; what each
// file held last, so that a file that breaks stays served over a restart; and what was written through the API.
// Each change is on disk before anybody hears of it. Without a usable disk it serves from memory and says so.

import type { DatabaseSync } from 'node:sqlite'
import { openDatabase, transaction, type DatabaseLayout } from '../../lib/database-client.ts'
import type { KubernetesObject } from '../../lib/k8s/objects.ts'
import type { Log } from '../../lib/log.ts'
import { objectKey, type Folder } from './folder.ts'
import { KINDS, resourceKeyOf, type Kind } from './kinds.ts'
import type { ManifestObject } from './manifest-file.ts'
import type { Change, Placed, Restored } from './registry.ts'

export type Written = Placed & {
  /** A patch of the status of an object of the folder, or an object of its own. */
  readonly form: 'status' | 'object'
}
export type RestoredState = Restored & { readonly byFile: Folder['byFile']; readonly written: readonly Written[] }
export type Save = {
  readonly changes: readonly Change[]
  /** Files that give something else than before; absent if there are none. */
  readonly byFile?: Folder['byFile']
  readonly written?: readonly Written[]
  readonly erased?: readonly Pick<Placed, 'kind' | 'namespace' | 'name'>[]
}
export type State = {
  readonly restored: RestoredState
  /** @param everything all there is, which is written instead once the disk has missed something. */
  readonly save: (save: Save, everything: () => Save) => void
  readonly error: () => string | undefined
  readonly close: () => void
}

const LAYOUT: DatabaseLayout = {
  version: 1,
  tables: ['object', 'manifest', 'written', 'version', 'origin'],
  schema: `
    CREATE TABLE object (
      resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL,
      PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
    CREATE TABLE manifest (
      file TEXT NOT NULL, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
      place TEXT NOT NULL, flawed INTEGER NOT NULL, json TEXT NOT NULL,
      PRIMARY KEY (file, resource, namespace, name)) WITHOUT ROWID;
    CREATE TABLE written (
      resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, form TEXT NOT NULL, json TEXT NOT NULL,
      PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
    CREATE TABLE version (resource TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE origin (directory TEXT NOT NULL, base INTEGER NOT NULL)`,
}

/** @param directory of the manifests: what another folder left is not taken over. Never throws. */
export function openState(file: string, directory: string, nowMs: number, log: Log): State {
  const fresh: RestoredState = {
    version: Math.floor(nowMs * 1000),
    base: Math.floor(nowMs * 1000),
    lastChange: new Map(),
    objects: [],
    byFile: new Map(),
    written: [],
  }
  let database: DatabaseSync | undefined
  let restored = fresh
  let failure: string | undefined
  let missed = false
  const failed = (error: unknown): void => {
    if (failure === undefined)
      log.warn({ file, err: error }, 'state of the Kubernetes API cannot be written; serving from memory')
    failure = `${file}: ${(error as Error).message}; free or repair the disk`
  }
  try {
    database = openDatabase(file, LAYOUT, log)
    const known = load(database, directory, log)
    if (known === undefined) initialise(database, directory, fresh.base)
    else restored = known
  } catch (error) {
    failed(error)
  }

  return {
    restored,
    save: (save, everything) => {
      if (database === undefined) return
      const db = database
      try {
        transaction(db, () => {
          if (!missed) return write(db, save)
          // Whoever resumes from before now would never hear of what was missed: nobody may.
          const version = Math.max(...save.changes.map((change) => change.version), restored.base)
          initialise(db, directory, version)
          write(db, everything())
        })
        missed = false
        if (failure !== undefined) log.info({ file }, 'state of the Kubernetes API is written again')
        failure = undefined
      } catch (error) {
        missed = true
        failed(error)
      }
    },
    error: () => failure,
    close: () => database?.close(),
  }
}

function initialise(database: DatabaseSync, directory: string, base: number): void {
  for (const table of LAYOUT.tables) database.exec(`DELETE FROM ${table}`)
  database.prepare('INSERT INTO origin VALUES (?, ?)').run(directory, base)
}

function write(database: DatabaseSync, { changes, byFile, written = [], erased = [] }: Save): void {
  const put = database.prepare('INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?)')
  const remove = database.prepare('DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?')
  const advance = database.prepare('INSERT OR REPLACE INTO version VALUES (?, ?)')
  for (const { type, kind, namespace, name, object, version } of changes) {
    const resource = resourceKeyOf(kind)
    if (type === 'DELETED') remove.run(resource, namespace, name)
    else put.run(resource, namespace, name, JSON.stringify(object))
    advance.run(resource, version)
  }
  const putWritten = database.prepare('INSERT OR REPLACE INTO written VALUES (?, ?, ?, ?, ?)')
  for (const { kind, namespace, name, form, object } of written)
    putWritten.run(resourceKeyOf(kind), namespace, name, form, JSON.stringify(object))
  const erase = database.prepare('DELETE FROM written WHERE resource = ? AND namespace = ? AND name = ?')
  for (const { kind, namespace, name } of erased) erase.run(resourceKeyOf(kind), namespace, name)
  if (byFile === undefined) return
  const clear = database.prepare('DELETE FROM manifest WHERE file = ?')
  const putManifest = database.prepare('INSERT INTO manifest VALUES (?, ?, ?, ?, ?, ?, ?)')
  for (const [file, contribution] of byFile) {
    clear.run(file)
    for (const { kind, namespace, name, place, flawed, object } of contribution.values())
      putManifest.run(file, resourceKeyOf(kind), namespace, name, place, flawed ? 1 : 0, JSON.stringify(object))
  }
}

/** Undefined where the file is new or belongs to another folder. */
function load(database: DatabaseSync, directory: string, log: Log): RestoredState | undefined {
  const origin = database.prepare('SELECT directory, base FROM origin').get()
  if (origin === undefined || origin['directory'] !== directory) return undefined
  const rows = (table: string) => database.prepare(`SELECT * FROM ${table}`).all() as Row[]
  const placed = (row: Row): Placed | undefined => {
    const kind = kinds.get(String(row['resource']))
    if (kind === undefined) return undefined
    try {
      const object = JSON.parse(String(row['json'])) as KubernetesObject
      return { kind, namespace: String(row['namespace']), name: String(row['name']), object }
    } catch (error) {
      log.warn({ resource: row['resource'], name: row['name'], err: error }, 'object on disk cannot be read; left out')
      return undefined
    }
  }
  const byFile = new Map<string, Map<string, ManifestObject>>()
  for (const row of rows('manifest')) {
    const object = placed(row)
    if (object === undefined) continue
    const file = String(row['file'])
    const contribution = byFile.get(file) ?? new Map<string, ManifestObject>()
    const manifest = { ...object, place: String(row['place']), flawed: row['flawed'] === 1 }
    byFile.set(file, contribution.set(objectKey(object.kind, object.namespace, object.name), manifest))
  }
  const lastChange = new Map(rows('version').map((row) => [String(row['resource']), Number(row['version'])]))
  const base = Number(origin['base'])
  return {
    base,
    version: Math.max(base, ...lastChange.values()),
    lastChange,
    objects: rows('object').flatMap((row) => placed(row) ?? []),
    byFile,
    written: rows('written').flatMap((row) => {
      const object = placed(row)
      return object === undefined
        ? []
        : [{ ...object, form: row['form'] === 'status' ? ('status' as const) : ('object' as const) }]
    }),
  }
}

type Row = Readonly<Record<string, unknown>>
const kinds = new Map<string, Kind>(KINDS.map((kind) => [resourceKeyOf(kind), kind]))
