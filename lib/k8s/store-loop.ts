// The store of whole objects: restored from disk before any network, then kept up to date by one informer a resource,
// and written back to disk. Readers get values that never change under them.

import type { Log } from '../log.ts'
import type { MetadataStatus } from '../status.ts'
import type { ApiClient } from './api-client.ts'
import { runInformer } from './informer-loop.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import { openStoreDisk, type StoreDisk } from './store-disk-loop.ts'
import type { StoreView } from './store.ts'

export type StoreOptions = {
  readonly resources: readonly Resource[]
  readonly client: ApiClient
  /** The SQLite file; its folder is made where missing. */
  readonly file: string
  readonly log: Log
  /** Something changed since the last call; at most once in COALESCE_MS. Not called for what was restored from disk. */
  readonly onChange: () => void
}
export type Store = StoreView & {
  /** Resolves after the signal aborted and the disk is written and closed. */
  readonly done: Promise<void>
}

/** A list of a thousand objects, or an edit of a folder, is one change to those who plan from it. */
const COALESCE_MS = 5

/** Resolves as soon as the disk is read; never rejects. */
export async function runStore(options: StoreOptions, signal: AbortSignal): Promise<Store> {
  const { resources, client, log } = options
  const disk = openStoreDisk(options.file, log)
  let revision = 0
  let timer: NodeJS.Timeout | undefined
  const changed = (): void => {
    revision++
    if (!signal.aborted) timer ??= setTimeout(announce, COALESCE_MS)
  }
  const announce = (): void => {
    timer = undefined
    options.onChange()
  }

  const followed = new Map(resources.map((resource) => [keyOf(resource), new Followed(resource, disk, log, changed)]))
  const informers = resources.map((resource) => runInformer(client, resource, followed.get(keyOf(resource))!, signal))
  const done = Promise.all(informers).then(() => {
    clearTimeout(timer)
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

/** One resource's objects, and how they stand to the server's. */
class Followed {
  readonly resource: Resource
  synced = false
  live = false
  updatedAt: number | undefined
  error: string | undefined
  readonly #key: string
  readonly #objects = new Map<string, KubernetesObject>()
  readonly #disk: StoreDisk
  readonly #log: Log
  readonly #changed: () => void
  #list: readonly KubernetesObject[] | undefined

  constructor(resource: Resource, disk: StoreDisk, log: Log, changed: () => void) {
    this.resource = resource
    this.#key = keyOf(resource)
    this.#disk = disk
    this.#log = log
    this.#changed = changed
    const restored = disk.take(this.#key)
    if (restored === undefined) return
    for (const object of restored.objects) this.#objects.set(nameOf(object), object)
    this.synced = true
    this.updatedAt = restored.updatedAt
  }

  get size(): number {
    return this.#objects.size
  }

  list(): readonly KubernetesObject[] {
    this.#list ??= [...this.#objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object)
    return this.#list
  }

  replace = (items: readonly KubernetesObject[]): void => {
    const present = new Set(items.map(nameOf))
    for (const [name, object] of this.#objects) if (!present.has(name)) this.remove(object)
    for (const item of items) this.put(item)
    // The first list is a change even if it is empty: absent now means absent.
    if (!this.synced) this.#changed()
    this.synced = true
    this.#reached()
  }

  put = (object: KubernetesObject): void => {
    const name = nameOf(object)
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
    else this.#objects.set(name, object)
    this.#list = undefined
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

const keyOf = ({ group, version, plural }: Resource) => `${group}/${version}/${plural}`
/** Sorts by namespace, then name. */
const nameOf = ({ metadata }: KubernetesObject) => `${metadata?.namespace ?? ''}\0${metadata?.name ?? ''}`

function withoutManagedFields(object: KubernetesObject): KubernetesObject {
  if (object.metadata?.managedFields === undefined) return object
  const { managedFields: _, ...metadata } = object.metadata
  return { ...object, metadata }
}
