// A Kubernetes API client: list in pages, watch, get, create, update, patch.

import type { IncomingMessage } from 'node:http'
import { ApiError } from './api-error.ts'
import { createApiExchange, unreachable, type ApiExchangeOptions, type ApiRequest } from './api-exchange-client.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import { parseEvent, parseObject, type WatchEvent } from './watch-event.ts'

export type ApiClientOptions = ApiExchangeOptions & {
  /** How long a watch may be silent; a Kubernetes API sends bookmarks every minute. */
  readonly watchIdleMs?: number
}

export type ObjectRef = { readonly namespace?: string; readonly name: string }
export type Selection = {
  readonly namespace?: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
}
export type WatchOptions = Selection & {
  readonly resourceVersion: string
  /** After how long the server ends the watch. */
  readonly timeoutSeconds?: number
}
type WriteOptions = { readonly subresource?: 'status'; readonly signal?: AbortSignal }

export type ObjectList<T> = { readonly items: readonly T[]; readonly resourceVersion: string }
export type Page<T> = ObjectList<T> & {
  /** The items once more, from the answer's text: who needs them later need not hold on to them, who are much larger. */
  readonly again: () => readonly T[]
}

/** All functions throw ApiError; a signal that aborts makes them throw too. */
export type ApiClient = {
  readonly server: string
  readonly list: <T extends KubernetesObject>(
    resource: Resource<T>,
    signal: AbortSignal,
    selection?: Selection,
  ) => Promise<ObjectList<T>>
  /** The same, piece by piece: what comes of a piece is done before the next is asked for. The last version counts. */
  readonly pages: <T extends KubernetesObject>(
    resource: Resource<T>,
    signal: AbortSignal,
    selection?: Selection,
  ) => AsyncGenerator<Page<T>>
  /** Resolves when the server has accepted the watch; the events end when the server ends it. */
  readonly watch: <T extends KubernetesObject>(
    resource: Resource<T>,
    signal: AbortSignal,
    options: WatchOptions,
  ) => Promise<AsyncGenerator<WatchEvent<T>>>
  readonly get: <T extends KubernetesObject>(resource: Resource<T>, ref: ObjectRef, signal?: AbortSignal) => Promise<T>
  readonly create: <T extends KubernetesObject>(resource: Resource<T>, object: T, signal?: AbortSignal) => Promise<T>
  readonly update: <T extends KubernetesObject>(resource: Resource<T>, object: T, options?: WriteOptions) => Promise<T>
  /** @param patch a JSON merge patch (RFC 7396). */
  readonly patch: <T extends KubernetesObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: object,
    options?: WriteOptions,
  ) => Promise<T>
  readonly close: () => void
}

const PAGE_LIMIT = 500
const PAGES_MAX = 10_000
const EVENT_MAX_BYTES = 8 << 20
/** Kubernetes sends a bookmark about every minute. */
const WATCH_IDLE_MS = 90_000

export function createApiClient(options: ApiClientOptions): ApiClient {
  const exchange = createApiExchange(options)
  const { watchIdleMs = WATCH_IDLE_MS } = options

  const ask = async <T>(request: ApiRequest): Promise<T> => parseObject(await exchange.read(request)) as T

  async function* pages<T extends KubernetesObject>(
    resource: Resource<T>,
    signal: AbortSignal,
    selection: Selection = {},
  ): AsyncGenerator<Page<T>> {
    let token = ''
    for (let page = 0; page < PAGES_MAX; page++) {
      const query = queryOf({ ...selectors(selection), limit: PAGE_LIMIT, continue: token })
      const path = pathOf(resource, selection.namespace) + query
      const text = await exchange.read({ method: 'GET', path, signal })
      const read = (): ListBody<T> => parseObject(text) as ListBody<T>
      const typed = ({ items = [] }: ListBody<T>) => items.map((item) => withType(resource, item))
      const list = read()
      const { metadata } = list
      // All pages have the same version: they are one snapshot, or the list expires.
      yield {
        items: typed(list),
        resourceVersion: metadata?.resourceVersion ?? '',
        again: once(() => typed(read())),
      }
      token = metadata?.continue ?? ''
      if (token === '') return
    }
    throw new ApiError(
      `${exchange.describe({ method: 'GET', path: pathOf(resource) })}: more than ${PAGES_MAX} pages`,
      { code: 'BadResponse' },
    )
  }

  return {
    server: exchange.base,
    list: async <T extends KubernetesObject>(resource: Resource<T>, signal: AbortSignal, selection?: Selection) => {
      const all: T[] = []
      let version = ''
      for await (const { items, resourceVersion } of pages(resource, signal, selection)) {
        all.push(...items)
        version = resourceVersion
      }
      return { items: all, resourceVersion: version }
    },
    pages,
    watch: async <T extends KubernetesObject>(resource: Resource<T>, signal: AbortSignal, watch: WatchOptions) => {
      const { resourceVersion, timeoutSeconds } = watch
      const query = queryOf({
        ...selectors(watch),
        watch: 1,
        allowWatchBookmarks: 'true',
        resourceVersion,
        timeoutSeconds,
      })
      const request = { method: 'GET', path: pathOf(resource, watch.namespace) + query, signal }
      const response = await exchange.send(request)
      response.socket.setTimeout(watchIdleMs)
      return readEvents<T>(response, exchange.describe(request))
    },
    get: (resource, { namespace, name }, signal) =>
      ask({ method: 'GET', path: pathOf(resource, namespace, name), signal }),
    create: (resource, object, signal) =>
      ask({
        method: 'POST',
        path: pathOf(resource, object.metadata?.namespace),
        signal,
        body: withType(resource, object),
      }),
    update: (resource, object, { subresource, signal } = {}) =>
      ask({
        method: 'PUT',
        path: pathOf(resource, object.metadata?.namespace, object.metadata?.name, subresource),
        signal,
        body: withType(resource, object),
      }),
    patch: (resource, { namespace, name }, patch, { subresource, signal } = {}) =>
      ask({
        method: 'PATCH',
        path: pathOf(resource, namespace, name, subresource),
        signal,
        body: patch,
        contentType: 'application/merge-patch+json',
      }),
    close: exchange.close,
  }
}

type ListBody<T> = {
  readonly items?: readonly T[]
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
}

/** One JSON object per line. Leaving the loop early closes the connection. */
async function* readEvents<T extends KubernetesObject>(
  response: IncomingMessage,
  what: string,
): AsyncGenerator<WatchEvent<T>> {
  let pending: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      let start = 0
      for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
        const line = Buffer.concat([...pending, chunk.subarray(start, end)]).toString()
        start = end + 1
        pending = []
        bytes = 0
        if (line.trim() !== '') yield parseEvent<T>(line, what)
      }
      const rest = chunk.subarray(start)
      bytes += rest.length
      if (bytes > EVENT_MAX_BYTES)
        throw new ApiError(`${what}: an event of more than ${EVENT_MAX_BYTES} bytes`, { code: 'BadResponse' })
      pending.push(rest)
    }
  } catch (error) {
    throw error instanceof ApiError ? error : unreachable(what, error)
  } finally {
    response.destroy()
  }
}

const NEWLINE = 0x0a

/** `/api/v1/…` for the core group, `/apis/GROUP/VERSION/…` else. */
function pathOf({ group, version, plural }: Resource, namespace?: string, name?: string, subresource?: string): string {
  const parts = [group === '' ? '/api' : `/apis/${group}`, version]
  if (namespace !== undefined) parts.push('namespaces', encodeURIComponent(namespace))
  parts.push(plural)
  if (name !== undefined) parts.push(encodeURIComponent(name))
  if (subresource !== undefined) parts.push(subresource)
  return parts.join('/')
}

function selectors({ labelSelector, fieldSelector }: Selection) {
  return { labelSelector, fieldSelector }
}

function queryOf(values: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values))
    if (value !== undefined && value !== '') query.set(name, String(value))
  return query.size === 0 ? '' : `?${query}`
}

/** Items of a list come without their type. */
function withType<T extends KubernetesObject>({ group, version, kind }: Resource, object: T): T {
  return { apiVersion: group === '' ? version : `${group}/${version}`, kind, ...object }
}

function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}
