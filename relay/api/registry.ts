// The objects that are served, each change with a version of its own, and the recent changes for those who watch.
// Versions only grow, over restarts too: they are microseconds of the clock, or one more where the clock stands or jumps.

import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import type { KubernetesObject, ObjectMeta } from '../../lib/k8s/objects.ts'
import { objectKey } from './folder.ts'
import { resourceKeyOf, type Kind } from './kinds.ts'

export type Placed = {
  readonly kind: Kind
  readonly namespace: string
  readonly name: string
  readonly object: KubernetesObject
}
export type Change = {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
  readonly version: number
  readonly kind: Kind
  readonly namespace: string
  readonly name: string
  readonly object: KubernetesObject
  /** Before the change; undefined for what is new. */
  readonly previous: KubernetesObject | undefined
}

/** What a restarted registry goes on from. */
export type Restored = {
  /** The last version that was given out. */
  readonly version: number
  /** Before this version nothing is known. */
  readonly base: number
  /** The last version of each resource, by resource key. */
  readonly lastChange: ReadonlyMap<string, number>
  readonly objects: readonly Placed[]
}

/** Changes kept per resource; whoever lags behind more lists again. */
const HISTORY_MAX = 2_048
const HISTORY_DROP = 512

type Shelf = {
  readonly kind: Kind
  readonly objects: Map<string, KubernetesObject>
  readonly history: Change[]
  /** A watch may resume from here on. */
  floor: number
  sorted: readonly KubernetesObject[] | undefined
  readonly listeners: Set<(change: Change) => void>
}

export class Registry {
  readonly #shelves = new Map<string, Shelf>()
  readonly #base: number
  readonly #lastChange: ReadonlyMap<string, number>
  readonly #restoredVersion: number
  /** What each object was made from: the same thing again needs no comparison. */
  readonly #sources = new Map<string, KubernetesObject>()
  #firstVersion: number | undefined
  #version: number

  constructor(restored: Restored) {
    this.#version = this.#restoredVersion = restored.version
    this.#base = restored.base
    this.#lastChange = restored.lastChange
    for (const { kind, namespace, name, object } of restored.objects)
      this.#shelf(kind).objects.set(objectKey(kind, namespace, name), object)
  }

  get version(): number {
    return this.#version
  }

  get(kind: Kind, namespace: string, name: string): KubernetesObject | undefined {
    return this.#shelf(kind).objects.get(objectKey(kind, namespace, name))
  }

  /** In the order of namespace and name. */
  list(kind: Kind): readonly KubernetesObject[] {
    const shelf = this.#shelf(kind)
    shelf.sorted ??= [...shelf.objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object)
    return shelf.sorted
  }

  /** Changes after a version, oldest first; undefined if they are not all known: the asker has to list again. */
  since(kind: Kind, version: number): readonly Change[] | undefined {
    const { floor, history } = this.#shelf(kind)
    // Versions that were given out but could not be kept on disk mean a state that nobody knows any more.
    const lost = version > this.#restoredVersion && version < (this.#firstVersion ?? Infinity)
    if (version < floor || version > this.#version || lost) return undefined
    return history.filter((change) => change.version > version)
  }

  /** @returns a function that ends the subscription. */
  subscribe(kind: Kind, listener: (change: Change) => void): () => void {
    const { listeners } = this.#shelf(kind)
    listeners.add(listener)
    return () => void listeners.delete(listener)
  }

  /** The changes that make `wanted`, by object key, the whole contents; they have to be committed. */
  planAll(wanted: ReadonlyMap<string, Placed>, nowMs: number): readonly Change[] {
    const changes: Change[] = []
    const next = this.#versions(nowMs)
    for (const { kind, objects } of this.#shelves.values())
      for (const [key, object] of objects) if (!wanted.has(key)) changes.push(removal(kind, object, next()))
    for (const placed of wanted.values()) changes.push(...this.#planOne(placed, next, nowMs))
    return changes
  }

  plan(placed: Placed, nowMs: number): readonly Change[] {
    return this.#planOne(placed, this.#versions(nowMs), nowMs)
  }

  /** Makes planned changes the truth, and tells who watches. */
  commit(changes: readonly Change[]): void {
    for (const change of changes) {
      const shelf = this.#shelf(change.kind)
      const key = objectKey(change.kind, change.namespace, change.name)
      if (change.type === 'DELETED') {
        shelf.objects.delete(key)
        this.#sources.delete(key)
      } else shelf.objects.set(key, change.object)
      shelf.sorted = undefined
      this.#version = change.version
      this.#firstVersion ??= change.version
      shelf.history.push(change)
      if (shelf.history.length > HISTORY_MAX) shelf.floor = shelf.history.splice(0, HISTORY_DROP).at(-1)!.version
      for (const listener of shelf.listeners) listener(change)
    }
  }

  #planOne({ kind, namespace, name, object }: Placed, next: () => number, nowMs: number): readonly Change[] {
    const key = objectKey(kind, namespace, name)
    if (this.#sources.get(key) === object) return []
    this.#sources.set(key, object)
    const previous = this.get(kind, namespace, name)
    if (previous !== undefined && isDeepStrictEqual(bare(previous), bare(object))) return []
    const version = next()
    const metadata: ObjectMeta = {
      ...bare(object).metadata,
      uid: previous?.metadata?.uid ?? object.metadata?.uid ?? uidOf(`${key} ${version}`),
      creationTimestamp:
        previous?.metadata?.creationTimestamp ?? object.metadata?.creationTimestamp ?? timestampOf(nowMs),
      resourceVersion: String(version),
    }
    const type = previous === undefined ? 'ADDED' : 'MODIFIED'
    return [{ type, version, kind, namespace, name, previous, object: { ...object, metadata } }]
  }

  #versions(nowMs: number): () => number {
    let version = this.#version
    return () => (version = Math.max(version + 1, Math.floor(nowMs * 1000)))
  }

  #shelf(kind: Kind): Shelf {
    const key = resourceKeyOf(kind)
    let shelf = this.#shelves.get(key)
    if (shelf === undefined) {
      const floor = Math.max(this.#base, this.#lastChange.get(key) ?? 0)
      shelf = { kind, objects: new Map(), history: [], floor, sorted: undefined, listeners: new Set() }
      this.#shelves.set(key, shelf)
    }
    return shelf
  }
}

function removal(kind: Kind, previous: KubernetesObject, version: number): Change {
  const { namespace = '', name = '' } = previous.metadata ?? {}
  const object = { ...previous, metadata: { ...previous.metadata, resourceVersion: String(version) } }
  return { type: 'DELETED', version, kind, namespace, name, previous, object }
}

/** Without what a server adds, so that equal means: as it was written. */
function bare(object: KubernetesObject): KubernetesObject {
  const { resourceVersion, uid, creationTimestamp, generation, managedFields, selfLink, ...metadata } =
    object.metadata ?? {}
  return { ...object, metadata }
}

/** In the form of an RFC 9562 version 8 UUID; the version of the first change makes it differ after a deletion. */
function uidOf(seed: string): string {
  const hex = createHash('sha256').update(seed).digest('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

/** Kubernetes' Time has whole seconds. */
const timestampOf = (nowMs: number) => new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z')
