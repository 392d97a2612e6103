// The store of whole objects: restored from disk before any network, then kept up to date by one informer a resource,
// and written back to disk. Readers get values that never change under them.

import { after } from '../net/after.ts'
import type { Log } from '../log.ts'
import type { MetadataStatus } from '../status.ts'
import type { ApiClient } from './api-client.ts'
import { runInformer } from './informer-loop.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import { openStoreDisk, type StoreDisk } from './store-disk-loop.ts'
import type { StoreView } from './store.ts'

export type StoreOptions = {
  readonly resources: readonly Resource[]
  /** By plural: what stays of an object in memory and is listed, with its metadata; the disk has the whole. */
  readonly kept?: Readonly<Record<string, (object: KubernetesObject) => KubernetesObject>>
  readonly client: ApiClient
  /** The SQLite file; its folder is made where missing. */
  readonly file: string
  readonly log: Log
  /** Something changed since the last call; at most once in COALESCE_MS. Not called for what was restored from disk. */
  readonly onChange: () => void
  /** A resource was read as a whole: most of the memory that it took is free again. */
  readonly onListed?: () => void
}
export type Store = StoreView & {
  /** Resolves after the signal aborted and the disk is written and closed. */
  readonly done: Promise<void>
}

/** Between two announcements: of a burst of changes, those after the first are one to those who plan from them. */
const COALESCE_MS = 5
/** More new names than this are sorted, fewer are put in their places. */
const PLACED_MAX = 100

/** Resolves as soon as the disk is read; never rejects. */
export async function runStore(options: StoreOptions, signal: AbortSignal): Promise<Store> {
  const { resources, kept = {}, client, log, onListed: listed = () => undefined } = options
  const disk = openStoreDisk(options.file, log)
  let revision = 0
  let announcedMs = -COALESCE_MS
  let due: (() => void) | undefined
  const changed = (): void => {
    revision++
    if (!signal.aborted) due ??= after(announcedMs + COALESCE_MS - performance.now(), announce)
  }
  const announce = (): void => {
    due = undefined
    announcedMs = performance.now()
    options.onChange()
  }

  const followed = new Map(
    resources.map((resource) => {
      const keep = kept[resource.plural] ?? ((object) => object)
      return [keyOf(resource), new Followed({ resource, keep, disk, log, changed, listed })] as const
    }),
  )
  const informers = resources.map((resource) =>
    runInformer({ client, resource }, followed.get(keyOf(resource))!, signal),
  )
  const done = Promise.all(informers).then(() => {
    due?.()
    return disk.close()
  })

  return {
    list: <T extends KubernetesObject>(resource: Resource<T>) =>
      (followed.get(keyOf(resource))?.list() ?? []) as readonly T[],
    synced: (resource) => followed.get(keyOf(resource))?.synced ?? false,
    get revision() {
      return revision
    },
    status: () => statusOf([...followed.values()], client.server, disk.error()),
    done,
  }
}

type FollowedOptions = {
  readonly resource: Resource
  readonly keep: (object: KubernetesObject) => KubernetesObject
  readonly disk: StoreDisk
  readonly log: Log
  readonly changed: () => void
  readonly listed: () => void
}

/** One resource's objects, and how they stand to the server's. */
class Followed {
  readonly resource: Resource
  synced = false
  live = false
  updatedAt: number | undefined
  error: string | undefined
  readonly #key: string
  readonly #keep: FollowedOptions['keep']
  readonly #objects = new Map<string, KubernetesObject>()
  readonly #disk: StoreDisk
  readonly #log: Log
  readonly #changed: () => void
  readonly #listed: () => void
  #list: readonly KubernetesObject[] = []
  /** In the order of the list. */
  #names: string[] = []
  /** Names that the list does not know of yet. */
  readonly #unlisted = new Set<string>()
  /** What the list under way has brought so far. */
  #present: Set<string> | undefined

  constructor({ resource, keep, disk, log, changed, listed }: FollowedOptions) {
    this.resource = resource
    this.#key = keyOf(resource)
    this.#keep = keep
    this.#disk = disk
    this.#log = log
    this.#changed = changed
    this.#listed = listed
    const restored = disk.take(this.#key)
    if (restored === undefined) return
    for (const object of restored.objects()) {
      this.#objects.set(nameOf(object), keep(object))
      this.#unlisted.add(nameOf(object))
    }
    this.synced = true
    this.updatedAt = restored.updatedAt
  }

  get size(): number {
    return this.#objects.size
  }

  /** Among very many objects a change must not cost a sort of all. */
  list(): readonly KubernetesObject[] {
    const names = [...this.#unlisted]
    this.#unlisted.clear()
    if (names.length === 0) return this.#list
    if (names.length > PLACED_MAX) {
      this.#names = [...this.#objects.keys()].sort()
      this.#list = this.#names.map((name) => this.#objects.get(name)!)
      return this.#list
    }
    const list = [...this.#list]
    for (const name of names) {
      const at = placeOf(this.#names, name)
      const object = this.#objects.get(name)
      const had = this.#names[at] === name ? 1 : 0
      if (object === undefined) {
        this.#names.splice(at, had)
        list.splice(at, had)
      } else {
        this.#names.splice(at, had, name)
        list.splice(at, had, object)
      }
    }
    this.#list = list
    return list
  }

  listing = (): void => {
    this.#present = new Set()
  }

  listed = (): void => {
    for (const name of [...this.#objects.keys()]) if (!this.#present?.has(name)) this.#set(name, undefined)
    this.#present = undefined
    // The first list is a change even if it is empty: absent now means absent.
    if (!this.synced) this.#changed()
    this.synced = true
    this.#reached()
    this.#listed()
  }

  put = (object: KubernetesObject): void => {
    const name = nameOf(object)
    this.#present?.add(name)
    const known = this.#objects.get(name)?.metadata
    const { resourceVersion, uid } = object.metadata ?? {}
    if (
      known !== undefined &&
      resourceVersion !== undefined &&
      known.resourceVersion === resourceVersion &&
      known.uid === uid
    )
      return
    this.#set(name, withoutManagedFields(object))
  }

  remove = (object: KubernetesObject): void => {
    const name = nameOf(object)
    if (this.#objects.has(name)) this.#set(name, undefined)
  }

  heard = (): void => {
    if (this.error !== undefined) this.#log.info({ resource: this.#key }, 'watch is up again')
    this.live = true
    this.error = undefined
    this.#reached()
  }

  failed = (error: Error): void => {
    // Once per outage: the attempts that follow say the same.
    if (this.error === undefined)
      this.#log.warn({ resource: this.#key, err: error }, 'watch failed; serving last known good')
    this.live = false
    this.error = error.message
  }

  #reached(): void {
    this.updatedAt = Date.now()
    this.#disk.heard(this.#key, this.updatedAt)
  }

  #set(name: string, object: KubernetesObject | undefined): void {
    const [namespace = '', plain = ''] = name.split('\0')
    if (object === undefined) this.#objects.delete(name)
    else this.#objects.set(name, this.#keep(object))
    this.#unlisted.add(name)
    this.#disk.put(this.#key, namespace, plain, object)
    this.#changed()
  }
}

function statusOf(followed: readonly Followed[], server: string, diskError: string | undefined): MetadataStatus {
  const error = followed.find((each) => each.error !== undefined)?.error ?? diskError
  const times = followed.flatMap(({ updatedAt }) => updatedAt ?? [])
  return {
    source: followed.every(({ live }) => live) ? 'cloud' : followed.some(({ synced }) => synced) ? 'disk' : 'none',
    server,
    ...(times.length > 0 && { updatedAt: Math.max(...times) }),
    objects: Object.fromEntries(followed.map(({ resource, size }) => [resource.plural, size])),
    ...(error !== undefined && { error }),
  }
}

/** The index of the first that is not before the name. */
function placeOf(sorted: readonly string[], name: string): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (sorted[middle]! < name) low = middle + 1
    else high = middle
  }
  return low
}

const keyOf = ({ group, version, plural }: Resource) => `${group}/${version}/${plural}`
/** Sorts by namespace, then name. */
const nameOf = ({ metadata }: KubernetesObject) => `${metadata?.namespace ?? ''}\0${metadata?.name ?? ''}`

function withoutManagedFields(object: KubernetesObject): KubernetesObject {
  if (object.metadata?.managedFields === undefined) return object
  const { managedFields: _, ...metadata } = object.metadata
  return { ...object, metadata }
}
