// One line of a watch as a value (meta/v1 WatchEvent).

import { ApiError, type StatusBody } from './api-error.ts'
import type { KubernetesObject } from './objects.ts'

export type WatchEvent<T> =
  | {
      readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'
      readonly object: T
      /** The object once more, from the line: who needs it later need not hold on to it. */
      readonly again: () => T
      readonly resourceVersion: string
    }
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string }

/**
 * @param what was asked for, for messages.
 * @throws ApiError for what is no event, and for an event that is an error, with the status of that.
 */
export function parseEvent<T extends KubernetesObject>(line: string, what: string): WatchEvent<T> {
  const { type, object } = parseObject(line) as { type?: string; object?: T & StatusBody }
  const resourceVersion = object?.metadata?.resourceVersion ?? ''
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return {
        type,
        object: object as T,
        again: () => (parseObject(line) as { object: T }).object,
        resourceVersion,
      }
    case 'BOOKMARK':
      return { type, resourceVersion }
    case 'ERROR':
      throw new ApiError(`${what}: ${object?.code ?? ''} ${object?.message ?? 'without a message'}`, {
        code: object?.reason || 'BadResponse',
        status: object?.code,
      })
    default:
      throw new ApiError(`${what}: an event of unknown type ${JSON.stringify(type)}`, { code: 'BadResponse' })
  }
}

/** @throws ApiError if the text is not a JSON object. */
export function parseObject(text: string): object {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value
  } catch (cause) {
    throw new ApiError(`the server answered what is not JSON: ${text.slice(0, 80)}`, { code: 'BadResponse', cause })
  }
  throw new ApiError(`the server answered no object: ${text.slice(0, 80)}`, { code: 'BadResponse' })
}
