// One request to a Kubernetes API and its answer, over connections that are kept: HTTP/1.1 with a client certificate or a
// token, both of which may be renewed at any time. A connection on which nothing is read for a bounded time is taken for dead.

import type { Agent, IncomingMessage } from 'node:http'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { http, https } from '../net/http.ts'
import { ApiError, errorOfResponse } from './api-error.ts'

export type ApiExchangeOptions = {
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
}

export type ApiRequest = {
  readonly method: string
  /** With the query, from the server's own path on. */
  readonly path: string
  readonly signal?: AbortSignal | undefined
  readonly body?: object
  readonly contentType?: string
}

/** All functions throw ApiError; a signal that aborts makes them throw too. */
export type ApiExchange = {
  /** The server's URL without a slash at its end. */
  readonly base: string
  /** The answer, its headers read and its status a success. */
  readonly send: (request: ApiRequest) => Promise<IncomingMessage>
  /** The body of such an answer. */
  readonly read: (request: ApiRequest) => Promise<string>
  /** Of a request, for messages: `GET https://…/api/v1/nodes`. */
  readonly describe: (request: Pick<ApiRequest, 'method' | 'path'>) => string
  readonly close: () => void
}

const CONNECTIONS_MAX = 64
const BODY_MAX_BYTES = 256 << 20
const ERROR_BODY_MAX_BYTES = 64 << 10
/** Until the headers of an answer, and between two reads of a body. */
const ANSWER_IDLE_MS = 15_000
/** Linux then sends ten probes a second apart (libuv's choice): a dead peer is noticed in 20 s. */
const TCP_KEEPALIVE_MS = 10_000

export function createApiExchange(options: ApiExchangeOptions): ApiExchange {
  const server = new URL(options.server)
  const base = server.origin + server.pathname.replace(/\/$/, '')
  const describe: ApiExchange['describe'] = ({ method, path }) => `${method} ${base}${path.split('?')[0]}`
  let shown = options.cert
  let open = openAgent(server, options)
  const agent = (): Agent => {
    if (options.cert !== shown) {
      shown = options.cert
      retire(open)
      open = openAgent(server, options)
    }
    return open
  }

  const tokenFor = (what: string): string | undefined => {
    try {
      return options.token?.()
    } catch (error) {
      throw unreachable(what, error)
    }
  }

  const answer = (request: ApiRequest, what: string, retry: boolean): Promise<IncomingMessage> => {
    const { method, path, signal, body, contentType = 'application/json' } = request
    const payload = body === undefined ? undefined : JSON.stringify(body)
    const headers: Record<string, string | number> = { accept: 'application/json' }
    const token = tokenFor(what)
    if (token !== undefined) headers['authorization'] = `Bearer ${token.trim()}`
    if (payload !== undefined) {
      headers['content-type'] = contentType
      headers['content-length'] = Buffer.byteLength(payload)
    }
    const by = agent()
    return new Promise((resolve, reject) => {
      const call = (by instanceof https.Agent ? https : http).request(base + path, {
        method,
        headers,
        agent: by,
        timeout: ANSWER_IDLE_MS,
        ...(signal && { signal }),
      })
      call.once('socket', (socket) => socket.setKeepAlive(true, TCP_KEEPALIVE_MS))
      call.once('timeout', () => call.destroy(new Error('nothing was read for too long')))
      call.once('response', resolve)
      call.once('error', (error: NodeJS.ErrnoException) => {
        // The server may close a kept connection just as it is used again: nothing was lost, so ask once more.
        if (retry && call.reusedSocket && error.code === 'ECONNRESET' && !signal?.aborted)
          resolve(answer(request, what, false))
        else reject(unreachable(what, error))
      })
      call.end(payload)
    })
  }

  const send = async (request: ApiRequest): Promise<IncomingMessage> => {
    const what = describe(request)
    const response = await answer(request, what, true)
    const status = response.statusCode ?? 0
    if (status >= 200 && status < 300) return response
    const text = await readText(response, ERROR_BODY_MAX_BYTES, what)
    throw errorOfResponse(what, status, text, response.headers['retry-after'])
  }

  return {
    base,
    send,
    read: async (request) => readText(await send(request), BODY_MAX_BYTES, describe(request)),
    describe,
    close: () => open.destroy(),
  }
}

/** @param what was asked for. @param cause of the connection, of the name's resolution, or of a token that cannot be read. */
export function unreachable(what: string, cause: unknown): ApiError {
  const { message, code } = cause as NodeJS.ErrnoException
  // Happy-eyeballs failures have no message of their own.
  // Node says `aborted` of an answer whose connection died, of time-outs too.
  const detail =
    message === 'aborted'
      ? 'the connection was lost'
      : message || (cause instanceof AggregateError ? String((cause.errors[0] as Error).message) : code)
  return new ApiError(`${what}: ${detail}`, { code: 'Unreachable', cause })
}

function openAgent(server: URL, { ca, cert, key, connect }: ApiExchangeOptions): Agent {
  const settings = { keepAlive: true, maxSockets: CONNECTIONS_MAX, scheduling: 'lifo' } as const
  if (server.protocol !== 'https:') return new http.Agent(settings)
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

/** Connections go as soon as nothing is under way on them. */
function retire(agent: Agent): void {
  agent.maxFreeSockets = 0
  for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
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
