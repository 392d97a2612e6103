// A local port that leads to a port or a declared target of a node: each connection becomes a CONNECT to the relay.

import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { formatSocketAddress } from '../lib/address.ts'
import { onAbort, UsageError } from '../lib/net/lifetime.ts'
import { serverNameOf } from '../lib/net/relay-tls.ts'
import { splice } from '../lib/net/splice.ts'
import type { RelayCredentials } from './relay-credentials.ts'

export type ForwardOptions = {
  readonly credentials: RelayCredentials
  /** What CONNECT asks for, `HOST:PORT`. */
  readonly authority: string
  readonly listen: { readonly address: string; readonly port: number }
  /** A connection that came to nothing, and why. */
  readonly onFailure: (reason: string) => void
}

export type Forward = {
  readonly port: number
  /** Resolves when the signal aborted and all connections are closed. */
  readonly closed: Promise<void>
}

/** The relay refused, or cannot be reached; its message says why. */
export class ForwardError extends Error {
  readonly code = 'FULMAR_FORWARD'
  override readonly name = 'ForwardError'
}

/** The relay answers within 15 s whatever the node does. */
const ANSWER_MS = 20_000
const MAX_HEAD_BYTES = 16 * 1024
const MAX_CONNECTIONS = 512
const KEEP_ALIVE_MS = 60_000

/** @throws ForwardError where the target is not reached now; UsageError where the port cannot be had. */
export async function runForward(options: ForwardOptions, signal: AbortSignal): Promise<Forward> {
  const { listen, onFailure } = options
  const trial = await dial(options, signal)
  trial.destroy()
  const sockets = new Set<Socket>()
  const hold = (socket: Socket): void => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  }
  const accept = async (socket: Socket): Promise<void> => {
    hold(socket)
    const gone = new AbortController()
    const onGone = (): void => gone.abort()
    socket.on('error', onGone)
    socket.once('close', onGone)
    try {
      const far = await dial(options, gone.signal)
      hold(far)
      splice(socket, far)
    } catch (error) {
      if (!gone.signal.aborted) onFailure((error as Error).message)
      socket.resetAndDestroy()
    }
  }
  const server = createServer(
    { allowHalfOpen: true, noDelay: true, pauseOnConnect: true },
    (socket) => void accept(socket),
  )
  server.maxConnections = MAX_CONNECTIONS
  server.listen({ host: listen.address, port: listen.port })
  try {
    await once(server, 'listening')
  } catch (cause) {
    throw new UsageError(`cannot listen on ${formatSocketAddress(listen)}: ${(cause as Error).message}`, { cause })
  }
  const closed = once(server, 'close').then(() => undefined)
  const stop = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  onAbort(signal, stop)
  return { port: (server.address() as AddressInfo).port, closed }
}

/** A stream to the target. @throws ForwardError */
async function dial({ credentials, authority }: ForwardOptions, signal: AbortSignal): Promise<TLSSocket> {
  const { host, port, caPem, certificatePem, keyPem, token } = credentials
  const socket = connect({
    ...{ host, port, allowHalfOpen: true, servername: serverNameOf(host) },
    ...(caPem !== undefined && { ca: caPem }),
    ...(certificatePem !== undefined && { cert: certificatePem }),
    ...(keyPem !== undefined && { key: keyPem }),
  })
  const relay = formatSocketAddress({ address: host, port })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const fail = (reason: string): void => {
    reject(new ForwardError(reason))
    socket.destroy()
  }
  const late = setTimeout(() => fail(`${relay}: no answer within ${ANSWER_MS / 1000} s`), ANSWER_MS)
  const giveUp = (): void => fail('not wanted any more')
  onAbort(signal, giveUp)
  let head = Buffer.alloc(0)
  const onData = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end === -1 && head.length < MAX_HEAD_BYTES) return
    socket.pause()
    socket.off('data', onData)
    const [, status, reason] = /^HTTP\/1\.[01] (\d{3})(?: ([^\r]*))?\r\n/.exec(head.toString('latin1')) ?? []
    if (status === '200' && end !== -1) {
      if (head.length > end + 4) socket.unshift(head.subarray(end + 4))
      return resolve()
    }
    if (status === undefined) return fail(`${relay} is no relay: it answers no CONNECT`)
    fail(status === '407' ? `the relay does not know who this is: ${shown(credentials)}` : `${status} ${reason ?? ''}`)
  }
  const onEnd = (): void => fail(`${relay} closed the connection`)
  socket.on('error', (error: NodeJS.ErrnoException) => fail(`${relay}: ${error.message}${caHint(error.code)}`))
  socket.once('end', onEnd)
  socket.once('secureConnect', () => {
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEP_ALIVE_MS)
    socket.on('data', onData)
    const line = token === undefined ? '' : `Proxy-Authorization: Bearer ${token}\r\n`
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${line}\r\n`)
  })
  try {
    await promise
  } finally {
    clearTimeout(late)
    socket.off('end', onEnd)
    signal.removeEventListener('abort', giveUp)
  }
  return socket
}

const UNKNOWN_ISSUER: ReadonlySet<string> = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])
const caHint = (code = ''): string =>
  UNKNOWN_ISSUER.has(code) ? '; give its CA by --ca (ca.crt in the folder issuer of the relay’s state)' : ''

function shown({ token, certificatePem }: RelayCredentials): string {
  if (token !== undefined) return 'the token is of no user in its --proxy-users'
  if (certificatePem === undefined) return 'the kubeconfig has neither a certificate nor a token'
  return 'the user of the certificate is neither of system:masters nor in its --proxy-users'
}
