// What a daemon knows of the cluster: whole objects by resource, replaced as they change. Readers see values; only
// the store's loop writes. Plans are made from `list`, never by following events.

import type { SortedList } from '../sorted-list.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import type { MetadataStatus } from '../status.ts'

export type StoreView = {
  /**
   * All objects of a resource in the order of namespace and name; empty before the first list and after none. The same
   * value while none of them changed.
   */
  readonly list: <T extends KubernetesObject>(resource: Resource<T>) => readonly T[]
  /** The same, for readers of very many that look for what changed. */
  readonly sorted: <T extends KubernetesObject>(resource: Resource<T>) => SortedList<T>
  /** True once the resource was listed by an upstream or restored from disk: only then does "absent" mean absent. */
  readonly synced: (resource: Resource) => boolean
  /** Counts every change; equal revisions mean equal contents. */
  readonly revision: number
  readonly status: () => MetadataStatus
}
