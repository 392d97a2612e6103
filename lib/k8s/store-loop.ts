// The store of whole objects: restored from disk before any network, then kept up to date by one informer a resource,
// and written back to disk. Readers get values that never change under them.

import { after } from '../net/after.ts'
import type { Log } from '../log.ts'
import { compareObjects } from '../order.ts'
import { EMPTY, SortedItems, type SortedList } from '../sorted-list.ts'
import type { MetadataStatus } from '../status.ts'
import type { ApiClient } from './api-client.ts'
import { runInformer } from './informer-loop.ts'
import { withoutManagedFields } from './kept.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import { openStoreDisk, type StoreDisk } from './store-disk-loop.ts'
import type { StoreView } from './store.ts'

export type StoreOptions = {
  readonly resources: readonly Resource[]
  /** By plural: what stays of an object in memory and is listed, with its metadata; else and on the disk, all but managedFields. */
  readonly kept?: Readonly<Record<string, (object: KubernetesObject) => KubernetesObject>>
  readonly client: ApiClient
  /** The SQLite file; its folder is made where missing. */
  readonly file: string
  readonly log: Log
  /** Something changed since the last call; at most once in COALESCE_MS. Not called for what was restored from disk. */
  readonly onChange: () => void
  /** A resource was read as a whole, and written: most of the memory that it took is free again. */
  readonly onListed?: () => void
}
export type Store = StoreView & {
  /** Resolves when what changed is on the disk, or cannot be written at present. */
  readonly settled: () => Promise<void>
  /** Resolves after the signal aborted and the disk is written and closed. */
  readonly done: Promise<void>
}

/** Between two announcements: of a burst of changes, those after the first are one to those who plan from them. */
const COALESCE_MS = 5

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
      const keep = kept[resource.plural] ?? withoutManagedFields
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
    sorted: <T extends KubernetesObject>(resource: Resource<T>) =>
      (followed.get(keyOf(resource))?.sorted() ?? EMPTY) as SortedList<T>,
    synced: (resource) => followed.get(keyOf(resource))?.synced ?? false,
    get revision() {
      return revision
    },
    settled: disk.settled,
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
  readonly #objects = new SortedItems<KubernetesObject, KubernetesObject>(compareObjects)
  readonly #disk: StoreDisk
  readonly #log: Log
  readonly #changed: () => void
  readonly #listed: () => void
  #list: { readonly of: SortedList<KubernetesObject>; readonly all: readonly KubernetesObject[] } | undefined
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
    for (const object of restored.objects()) this.#objects.set(keep(object))
    this.synced = true
    this.updatedAt = restored.updatedAt
  }

  get size(): number {
    return this.sorted().length
  }

  sorted = (): SortedList<KubernetesObject> => this.#objects.list()

  list(): readonly KubernetesObject[] {
    const of = this.sorted()
    if (this.#list?.of !== of) this.#list = { of, all: [...of] }
    return this.#list.all
  }

  listing = (): void => {
    this.#present = new Set()
  }

  listed = (): void => {
    for (const object of this.sorted()) if (!this.#present?.has(nameOf(object))) this.#drop(object)
    this.#present = undefined
    // The first list is a change even if it is empty: absent now means absent.
    if (!this.synced) this.#changed()
    this.synced = true
    this.#reached()
    void this.#disk.settled().then(this.#listed)
  }

  put = (object: KubernetesObject, again: () => KubernetesObject): void => {
    this.#present?.add(nameOf(object))
    const known = this.#objects.get(object)?.metadata
    const { resourceVersion, uid } = object.metadata ?? {}
    if (
      known !== undefined &&
      resourceVersion !== undefined &&
      known.resourceVersion === resourceVersion &&
      known.uid === uid
    )
      return
    this.#objects.set(this.#keep(object))
    this.#disk.put(this.#key, namespaceOf(object), plainNameOf(object), () => withoutManagedFields(again()))
    this.#changed()
  }

  remove = (object: KubernetesObject): void => {
    if (this.#objects.get(object) !== undefined) this.#drop(object)
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

  #drop(object: KubernetesObject): void {
    this.#objects.delete(object)
    this.#disk.put(this.#key, namespaceOf(object), plainNameOf(object), undefined)
    this.#changed()
  }
}

function statusOf(followed: readonly Followed[], server: string, diskError: string | undefined): MetadataStatus {
  const error = followed.find((each) => each.error !== undefined)?.error
  const times = followed.flatMap(({ updatedAt }) => updatedAt ?? [])
  return {
    source: followed.every(({ live }) => live) ? 'cloud' : followed.some(({ synced }) => synced) ? 'disk' : 'none',
    server,
    ...(times.length > 0 && { updatedAt: Math.max(...times) }),
    objects: Object.fromEntries(followed.map(({ resource, size }) => [resource.plural, size])),
    ...(error !== undefined && { error }),
    ...(diskError !== undefined && { diskError }),
  }
}

const keyOf = ({ group, version, plural }: Resource) => `${group}/${version}/${plural}`
const namespaceOf = ({ metadata }: KubernetesObject) => metadata?.namespace ?? ''
const plainNameOf = ({ metadata }: KubernetesObject) => metadata?.name ?? ''
const nameOf = (object: KubernetesObject) => `${namespaceOf(object)}\0${plainNameOf(object)}`
