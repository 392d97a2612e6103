// One request to a node's kubelet and its answer: TLS from here to there over a stream through the node's agent, with the
// kubelet's certificate verified and a certificate of our own shown.

import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { checkServerIdentity, connect, type TLSSocket } from 'node:tls'
import type { KeyPair } from '../../lib/certificates.ts'
import { http } from '../../lib/net/http.ts'
import { onAbort } from '../../lib/net/lifetime.ts'
import type { DialNode } from '../node-dial.ts'
import type { KubeletCall } from './kubelet.ts'

export type KubeletAccess = {
  readonly dial: DialNode
  /** PEM: who issues the serving certificates of kubelets. */
  readonly serverCa: string
  /** What the API shows to kubelets: a member of system:masters, by a CA that they trust. */
  readonly credentials: () => Promise<KeyPair>
}

const DIAL_TIMEOUT_MS = 10_000
const HANDSHAKE_TIMEOUT_MS = 10_000
/** Until the first byte of an answer. */
const ANSWER_TIMEOUT_MS = 30_000
/** Of one hop (RFC 9110 §7.6.1), or for this API alone: who the caller is ends here. */
const OWN_HEADERS =
  /^(host|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|authorization|cookie|x-remote-.*|impersonate-.*|x-forwarded-.*|forwarded|expect)$/

/** A request over a connection of its own, which ends with the signal; nothing is sent before its first write or end. */
export async function askKubelet(
  options: KubeletAccess,
  call: KubeletCall,
  request: IncomingMessage | undefined,
  signal: AbortSignal,
): Promise<ClientRequest> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(DIAL_TIMEOUT_MS)])
  const stream = await options.dial(call.node, { host: call.node, port: call.port }, within)
  let socket: TLSSocket
  try {
    socket = await secure(stream, call.node, options, await options.credentials(), signal)
  } catch (error) {
    stream.destroy()
    throw error
  }
  const asked = http.request({
    createConnection: () => socket,
    method: request?.method ?? 'GET',
    path: call.path,
    headers: {
      host: `${call.node}:${call.port}`,
      ...(request === undefined ? {} : passed(request.headers)),
      ...(request?.headers.upgrade === undefined ? {} : { connection: 'Upgrade' }),
    },
    signal,
  })
  socket.once('close', () => stream.destroy())
  return asked
}

function secure(
  stream: Duplex,
  node: string,
  { serverCa }: KubeletAccess,
  { certificatePem, keyPem }: KeyPair,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
  const socket = connect({
    socket: stream,
    servername: node,
    ca: serverCa,
    cert: certificatePem,
    key: keyPem,
    minVersion: 'TLSv1.2',
    // By the node's name, wherever its agent took us: its addresses are what it says of itself.
    checkServerIdentity: (_, certificate) => checkServerIdentity(node, certificate),
  })
  const stop = (why: Error): void => void socket.destroy(why)
  const timer = setTimeout(
    () => stop(new Error(`no TLS handshake within ${HANDSHAKE_TIMEOUT_MS / 1000} s`)),
    HANDSHAKE_TIMEOUT_MS,
  )
  const giveUp = (): void => stop(new Error('the client is gone'))
  onAbort(signal, giveUp)
  const settled = (): void => {
    clearTimeout(timer)
    signal.removeEventListener('abort', giveUp)
  }
  socket.once('secureConnect', () => {
    settled()
    socket.off('error', failed)
    resolve(socket)
  })
  const failed = (cause: Error): void => {
    settled()
    reject(new Error(`TLS: ${cause.message}`, { cause }))
  }
  socket.once('error', failed)
  return promise
}

export type Answer =
  | { readonly kind: 'answered'; readonly message: IncomingMessage }
  | { readonly kind: 'upgraded'; readonly message: IncomingMessage; readonly socket: Duplex; readonly rest: Buffer }

export function answerOf(asked: ClientRequest): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const timer = setTimeout(
    () => asked.destroy(new Error(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s`)),
    ANSWER_TIMEOUT_MS,
  )
  asked.once('response', (message) => resolve({ kind: 'answered', message }))
  asked.once('upgrade', (message, socket, rest) => resolve({ kind: 'upgraded', message, socket, rest }))
  asked.on('error', reject)
  return promise.finally(() => clearTimeout(timer))
}

/** Headers without those of a hop. */
export const passed = (headers: IncomingHttpHeaders): IncomingHttpHeaders =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !OWN_HEADERS.test(name)))
