// What readers of very many objects keep of each: who it is and which version of it they read, beside what they read.

import type { KubernetesObject } from './objects.ts'

export type KeptMetadata = {
  readonly namespace?: string
  readonly name?: string
  readonly uid?: string
  readonly resourceVersion?: string
}

export const keptMetadata = ({ metadata = {} }: KubernetesObject): KeptMetadata => {
  const { namespace, name, uid, resourceVersion } = metadata
  return { namespace: namespace && oneNamespace(namespace), name, uid, resourceVersion } as KeptMetadata
}

/** Who wrote which field when: half of an object. */
export function withoutManagedFields<T extends KubernetesObject>(object: T): T {
  if (object.metadata?.managedFields === undefined) return object
  const { managedFields: _, ...metadata } = object.metadata
  return { ...object, metadata }
}

/** A list that grew has room for more; where there are tens of thousands of lists, that is most of what they take. */
export const trimmed = <T>(list: readonly T[]): readonly T[] => (list.length === 0 ? NOTHING : list.slice())
const NOTHING: readonly never[] = []

const VALUES_MAX = 10_000

/**
 * A function that gives the same value for the same key, where very many objects have few different ones, each in a copy
 * of its own. Forgets all when there are too many.
 */
export function oneOfEach<T>(): T extends string ? (text: string) => string : (key: string, value: T) => T {
  const known = new Map<string, unknown>()
  const one = (key: string, value: unknown = key): unknown => {
    const found = known.get(key)
    if (found !== undefined) return found
    if (known.size >= VALUES_MAX) known.clear()
    known.set(key, value)
    return value
  }
  return one as T extends string ? (text: string) => string : (key: string, value: T) => T
}
const oneNamespace = oneOfEach<string>()
