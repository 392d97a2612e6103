// A Kubernetes API client: list in pages, watch, get, create, update, patch, over HTTP/1.1 with keep-alive and a
// client certificate or a token. A connection on which nothing is read for a bounded time is taken for dead.

import type { Agent, IncomingMessage } from 'node:http'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { http, https } from '../net/http.ts'
import { ApiError, errorOfResponse } from './api-error.ts'
import type { KubernetesObject, Resource } from './objects.ts'
import { parseEvent, parseObject, type WatchEvent } from './watch-event.ts'

export type ApiClientOptions = {
  /** `https://ADDRESS:PORT`, with a path where the API is behind one; plain http is for a server on loopback. */
  readonly server: string | URL
  /** PEM. */
  readonly ca?: string
  /** Read anew for each request, as getters of what is renewed; requests under way end on the connection that they have. */
  readonly cert?: string
  readonly key?: string
  /** Makes a TLS connection where it is to be made otherwise than by tls.connect; undefined leaves it to that. */
  readonly connect?: (to: ConnectionOptions) => TLSSocket | undefined
  /** A bearer token, read anew for each request since projected tokens rotate. */
  readonly token?: () => string
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
const BODY_MAX_BYTES = 256 << 20
const ERROR_BODY_MAX_BYTES = 64 << 10
const EVENT_MAX_BYTES = 8 << 20
const CONNECTIONS_MAX = 64
/** Until the headers of an answer, and between two reads of a body. */
const ANSWER_IDLE_MS = 15_000
/** Kubernetes sends a bookmark about every minute. */
const WATCH_IDLE_MS = 90_000
/** Linux then sends ten probes a second apart (libuv's choice): a dead peer is noticed in 20 s. */
const TCP_KEEPALIVE_MS = 10_000

export function createApiClient(options: ApiClientOptions): ApiClient {
  const server = new URL(options.server)
  const base = server.origin + server.pathname.replace(/\/$/, '')
  const { ca, watchIdleMs = WATCH_IDLE_MS } = options
  const settings = { keepAlive: true, maxSockets: CONNECTIONS_MAX, scheduling: 'lifo' } as const
  const openAgent = (): Agent => {
    if (server.protocol !== 'https:') return new http.Agent(settings)
    const { cert, key, connect } = options
    const secure = new https.Agent({
      ...settings,
      ...(ca && { ca }),
      ...(cert && { cert }),
      ...(key && { key }),
      minVersion: 'TLSv1.2',
    })
    if (connect !== undefined) {
      const usual = secure.createConnection.bind(secure)
      secure.createConnection = (to, done) => connect(to as ConnectionOptions) ?? usual(to, done)
    }
    return secure
  }
  let shown = options.cert
  let open = openAgent()
  const agent = (): Agent => {
    if (options.cert !== shown) {
      shown = options.cert
      retire(open)
      open = openAgent()
    }
    return open
  }
  const connection: Connection = { base, agent, token: options.token }

  const exchange = async <T>(method: string, path: string, write: Write = {}): Promise<T> => {
    const response = await send(connection, method, path, write)
    return parseObject(await readText(response, BODY_MAX_BYTES, describe(connection, method, path))) as T
  }

  async function* pages<T extends KubernetesObject>(
    resource: Resource<T>,
    signal: AbortSignal,
    selection: Selection = {},
  ): AsyncGenerator<Page<T>> {
    let token = ''
    for (let page = 0; page < PAGES_MAX; page++) {
      const query = queryOf({ ...selectors(selection), limit: PAGE_LIMIT, continue: token })
      const path = pathOf(resource, selection.namespace) + query
      const response = await send(connection, 'GET', path, { signal })
      const text = await readText(response, BODY_MAX_BYTES, describe(connection, 'GET', path))
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
    throw new ApiError(`GET ${base}${pathOf(resource)}: more than ${PAGES_MAX} pages`, { code: 'BadResponse' })
  }

  return {
    server: base,
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
      const path = pathOf(resource, watch.namespace) + query
      const response = await send(connection, 'GET', path, { signal })
      response.socket.setTimeout(watchIdleMs)
      return readEvents<T>(response, describe(connection, 'GET', path))
    },
    get: (resource, { namespace, name }, signal) => exchange('GET', pathOf(resource, namespace, name), { signal }),
    create: (resource, object, signal) =>
      exchange('POST', pathOf(resource, object.metadata?.namespace), { signal, body: withType(resource, object) }),
    update: (resource, object, { subresource, signal } = {}) =>
      exchange('PUT', pathOf(resource, object.metadata?.namespace, object.metadata?.name, subresource), {
        signal,
        body: withType(resource, object),
      }),
    patch: (resource, { namespace, name }, patch, { subresource, signal } = {}) =>
      exchange('PATCH', pathOf(resource, namespace, name, subresource), {
        signal,
        body: patch,
        contentType: 'application/merge-patch+json',
      }),
    close: () => open.destroy(),
  }
}

type Connection = {
  /** The server's URL without a slash at its end. */
  readonly base: string
  readonly agent: () => Agent
  readonly token: (() => string) | undefined
}
type Write = { readonly signal?: AbortSignal | undefined; readonly body?: object; readonly contentType?: string }
type ListBody<T> = {
  readonly items?: readonly T[]
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string }
}

/** Connections go as soon as nothing is under way on them. */
function retire(agent: Agent): void {
  agent.maxFreeSockets = 0
  for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
}

/** The answer to a request, its headers read and its status a success. */
async function send(connection: Connection, method: string, path: string, write: Write): Promise<IncomingMessage> {
  const what = describe(connection, method, path)
  const response = await answer(connection, method, path, write, what, true)
  const status = response.statusCode ?? 0
  if (status >= 200 && status < 300) return response
  const text = await readText(response, ERROR_BODY_MAX_BYTES, what)
  throw errorOfResponse(what, status, text, response.headers['retry-after'])
}

function answer(
  connection: Connection,
  method: string,
  path: string,
  write: Write,
  what: string,
  retry: boolean,
): Promise<IncomingMessage> {
  const { base, token } = connection
  const agent = connection.agent()
  const payload = write.body === undefined ? undefined : JSON.stringify(write.body)
  const headers: Record<string, string | number> = { accept: 'application/json' }
  if (token !== undefined) headers['authorization'] = `Bearer ${token().trim()}`
  if (payload !== undefined) {
    headers['content-type'] = write.contentType ?? 'application/json'
    headers['content-length'] = Buffer.byteLength(payload)
  }
  return new Promise((resolve, reject) => {
    const { signal } = write
    const request = (agent instanceof https.Agent ? https : http).request(base + path, {
      method,
      headers,
      agent,
      timeout: ANSWER_IDLE_MS,
      ...(signal && { signal }),
    })
    request.once('socket', (socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS))
    request.once('timeout', () => request.destroy(new Error('nothing was read for too long')))
    request.once('response', resolve)
    request.once('error', (error: NodeJS.ErrnoException) => {
      // The server may close a kept connection just as it is used again: nothing was lost, so ask once more.
      if (retry && request.reusedSocket && error.code === 'ECONNRESET' && !signal?.aborted)
        resolve(answer(connection, method, path, write, what, false))
      else reject(unreachable(what, error))
    })
    request.end(payload)
  })
}

async function readText(response: IncomingMessage, maxBytes: number, what: string): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > maxBytes) break
      chunks.push(chunk)
    }
  } catch (error) {
    throw unreachable(what, error)
  }
  if (bytes > maxBytes) throw new ApiError(`${what}: more than ${maxBytes} bytes`, { code: 'BadResponse' })
  return Buffer.concat(chunks).toString()
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

const describe = ({ base }: Connection, method: string, path: string) => `${method} ${base}${path.split('?')[0]}`

function unreachable(what: string, cause: unknown): ApiError {
  const { message, code } = cause as NodeJS.ErrnoException
  // Happy-eyeballs failures have no message of their own.
  // Node says `aborted` of an answer whose connection died, of time-outs too.
  const detail =
    message === 'aborted'
      ? 'the connection was lost'
      : message || (cause instanceof AggregateError ? String((cause.errors[0] as Error).message) : code)
  return new ApiError(`${what}: ${detail}`, { code: 'Unreachable', cause })
}
