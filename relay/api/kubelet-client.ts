// Requests of the embedded API's clients, passed on to kubelets (kubelet-request-client.ts), and their answers. Once a kubelet
// has switched to WebSocket or SPDY, bytes pass unseen both ways; before that, none of the client's do.

import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { GROUP_MASTERS, type Identity } from '../../lib/identity.ts'
import type { Log } from '../../lib/log.ts'
import { http } from '../../lib/net/http.ts'
import { UsageError } from '../../lib/net/lifetime.ts'
import { splice } from '../../lib/net/splice.ts'
import { NodeDialError, statusOf } from '../node-dial.ts'
import { userOf } from './access.ts'
import { answerOf, askKubelet, passed, type KubeletAccess } from './kubelet-request-client.ts'
import type { KubeletCall } from './kubelet.ts'
import { statusObject, type Failure } from './status.ts'

export type KubeletOptions = KubeletAccess & { readonly log: Log }

export type KubeletClient = {
  /** Ends when the answer has been given. Never throws. */
  readonly forward: (
    call: KubeletCall,
    request: IncomingMessage,
    response: ServerResponse,
    caller: Identity,
  ) => Promise<void>
  /** Ends when both sides have ended. Never throws. */
  readonly forwardUpgrade: (
    call: KubeletCall,
    request: IncomingMessage,
    stream: Duplex,
    head: Buffer,
    caller: Identity,
  ) => Promise<void>
  /** An answer as text. @throws KubeletError */
  readonly read: (call: KubeletCall, maxBytes: number, signal: AbortSignal) => Promise<string>
}

/** Its failure is what the client is told. */
export class KubeletError extends Error {
  readonly code = 'FULMAR_KUBELET'
  override readonly name = 'KubeletError'
  readonly failure: Failure
  constructor(failure: Failure, options?: ErrorOptions) {
    super(failure.message, options)
    this.failure = failure
  }
}

/** What the embedded API shows to kubelets: it is like a kube-apiserver to them. */
export const KUBELET_CLIENT = { commonName: 'kube-apiserver-kubelet-client', organization: GROUP_MASTERS }
const ERROR_MAX_BYTES = 8_192
/** Of all callers, and of one. */
const CALLS_MAX = 4_096
const CALLS_PER_CALLER_MAX = 512

/** @throws UsageError where there is no such file of certificates. */
export function readServerCa(file: string | undefined): string | undefined {
  if (file === undefined) return undefined
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new UsageError(`--kubelet-ca ${file}: cannot be read: ${(cause as Error).message}`, { cause })
  }
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw new UsageError(`--kubelet-ca ${file}: holds no certificate in PEM`)
  return text
}

export function createKubeletClient(options: KubeletOptions): KubeletClient {
  const { log } = options
  const calls = new Map<string, number>()
  let all = 0

  /** Counts a call and logs its end. */
  const counted = async (
    call: KubeletCall,
    caller: Identity,
    body: () => Promise<void>,
  ): Promise<Failure | undefined> => {
    const user = userOf(caller)
    const own = calls.get(user) ?? 0
    if (all >= CALLS_MAX || own >= CALLS_PER_CALLER_MAX)
      return { code: 429, reason: 'TooManyRequests', message: 'too many requests to kubelets', retryAfterSeconds: 5 }
    all++
    calls.set(user, own + 1)
    const startedMs = performance.now()
    let failure: Failure | undefined
    try {
      await body()
    } catch (error) {
      failure = failureOf(error, call)
    } finally {
      all--
      const left = calls.get(user)! - 1
      if (left === 0) calls.delete(user)
      else calls.set(user, left)
    }
    const ms = Math.round(performance.now() - startedMs)
    const fields = { user, node: call.node, request: call.what, ms }
    if (failure === undefined) log.info(fields, 'kubelet asked')
    else log.warn({ ...fields, code: failure.code, reason: failure.message }, 'kubelet not asked')
    return failure
  }

  return {
    async forward(call, request, response, caller) {
      const gone = abortOnClose(response)
      const failure = await counted(call, caller, async () => {
        const asked = await askKubelet(options, call, request, gone)
        if (hasBody(request)) request.pipe(asked)
        else asked.end()
        const answer = await answerOf(asked)
        if (answer.kind === 'upgraded') throw new Error('it switched protocols without being asked')
        const { message } = answer
        if (call.asStatus && message.statusCode !== 200) throw await refusalOf(call, message)
        response.writeHead(message.statusCode ?? 502, passed(message.headers))
        // Whoever follows a log without lines wants to know that it is there.
        response.flushHeaders()
        await pipeline(message, response).catch(() => response.destroy())
      })
      if (failure === undefined) return
      if (response.headersSent) response.destroy()
      else send(response, failure)
    },

    async forwardUpgrade(call, request, stream, head, caller) {
      stream.on('error', () => {})
      const gone = abortOnClose(stream)
      const failure = await counted(call, caller, async () => {
        if (hasBody(request)) throw new KubeletError(badRequest('a request to switch protocols may not have a body'))
        const asked = await askKubelet(options, call, request, gone)
        asked.end()
        const answer = await answerOf(asked)
        if (answer.kind === 'answered') {
          const { message } = answer
          if (call.asStatus) throw await refusalOf(call, message)
          return relayAnswer(message, stream)
        }
        const { message, socket, rest } = answer
        stream.write(headOf(message))
        if (rest.length > 0) stream.write(rest)
        if (head.length > 0) socket.write(head)
        await new Promise<void>((resolve) => splice(stream, socket, () => resolve()))
      })
      if (failure !== undefined) refuse(stream, failure)
    },

    async read(call, maxBytes, signal) {
      try {
        const asked = await askKubelet(options, call, undefined, signal)
        asked.end()
        const answer = await answerOf(asked)
        if (answer.kind === 'upgraded') throw new Error('it switched protocols without being asked')
        if (answer.message.statusCode !== 200) throw await refusalOf(call, answer.message)
        return (await readBytes(answer.message, maxBytes)).toString()
      } catch (error) {
        throw new KubeletError(failureOf(error, call), { cause: error })
      }
    },
  }
}

/** What the kubelet said, in a Status that names the node. */
async function refusalOf({ node, what }: KubeletCall, message: IncomingMessage): Promise<KubeletError> {
  const said = (await readBytes(message, ERROR_MAX_BYTES)).toString().trim()
  const code = message.statusCode ?? 0
  // Whoever the kubelet does not trust is this API, and not its client.
  if (code === 401 || code === 403)
    return new KubeletError({
      code: 500,
      reason: 'InternalError',
      message: `${what}: the kubelet of node ${node} does not trust this API: ${said}; its clientCAFile must hold the CA of the relay`,
    })
  const reason = { 400: 'BadRequest', 404: 'NotFound', 500: 'InternalError', 503: 'ServiceUnavailable' }[code]
  return new KubeletError({
    code: code >= 400 && code < 600 ? code : 502,
    reason: reason ?? 'Unknown',
    message: `${said === '' ? `the kubelet answered ${code}` : said} (node ${node})`,
  })
}

function failureOf(error: unknown, { node, what }: KubeletCall): Failure {
  if (error instanceof KubeletError) return error.failure
  if (error instanceof NodeDialError) {
    const code = statusOf(error.failure)
    const reason = { 403: 'Forbidden', 502: 'BadGateway', 503: 'ServiceUnavailable', 504: 'Timeout' }[code]
    return { code, reason, message: `${what}: ${error.message}` }
  }
  const { message } = error as Error
  return {
    code: 502,
    reason: 'BadGateway',
    message: `${what}: the kubelet of node ${node} cannot be asked: ${message}`,
  }
}

const badRequest = (message: string): Failure => ({ code: 400, reason: 'BadRequest', message })

/** A body that is longer is cut. */
async function readBytes(message: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    length += chunk.length
    if (length >= maxBytes) break
  }
  return Buffer.concat(chunks).subarray(0, maxBytes)
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

function abortOnClose(stream: Duplex | ServerResponse): AbortSignal {
  const gone = new AbortController()
  if (stream.destroyed) gone.abort()
  else stream.once('close', () => gone.abort())
  return gone.signal
}

/** As the kubelet wrote it: names and order too. */
function headOf({ statusCode, statusMessage, rawHeaders }: IncomingMessage): string {
  const lines = rawHeaders.flatMap((name, index) => (index % 2 === 0 ? `${name}: ${rawHeaders[index + 1]}\r\n` : []))
  return `HTTP/1.1 ${statusCode} ${statusMessage}\r\n${lines.join('')}\r\n`
}

/** An answer to a request to switch protocols that does not: the connection ends with it. */
async function relayAnswer(message: IncomingMessage, stream: Duplex): Promise<void> {
  const body = await readBytes(message, ERROR_MAX_BYTES)
  write(stream, message.statusCode ?? 502, message.headers['content-type'] ?? 'text/plain', body)
}

/** Says no on a connection that was to switch protocols, and ends it. */
export function refuse(stream: Duplex, failure: Failure): void {
  write(stream, failure.code, 'application/json', Buffer.from(JSON.stringify(statusObject(failure))))
}

function write(stream: Duplex, code: number, type: string, body: Buffer): void {
  if (stream.destroyed || stream.writableEnded) return
  stream.end(
    `HTTP/1.1 ${code} ${http.STATUS_CODES[code] ?? ''}\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n` +
      `Connection: close\r\n\r\n${body.toString()}`,
    () => stream.destroy(),
  )
}

function send(response: ServerResponse, failure: Failure): void {
  const body = Buffer.from(JSON.stringify(statusObject(failure)))
  if (failure.retryAfterSeconds !== undefined) response.setHeader('retry-after', failure.retryAfterSeconds)
  response.writeHead(failure.code, { 'content-type': 'application/json', 'content-length': body.length })
  response.end(body)
}
