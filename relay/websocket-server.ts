// Sessions of nodes over WebSockets: one per node, whose identity is its certificate's; a new one of the same node
// replaces the old. Edge links die without a word, so the relay asks with pings and ends a session that stays silent.
// What the messages mean is the handler's.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer, type ServerOptions, type WebSocket } from 'ws'
import type { Log } from '../lib/log.ts'
import { http } from '../lib/net/http.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { ProtocolError } from '../lib/wire/signal.ts'

/** A node that opened a connection with a valid certificate. */
export type Caller = { readonly node: string; readonly address: string; readonly expiresAtMs: number }

export type Session = {
  readonly node: string
  readonly address: string
  readonly since: number
  readonly socket: WebSocket
  /** The TLS socket below. */
  readonly stream: Duplex
}

export type SessionHandler = {
  readonly open: (session: Session) => void
  /** @throws ProtocolError to end the session. */
  readonly message: (session: Session, data: Buffer, isBinary: boolean) => void
  /** @param replaced true if the same node has a newer session. */
  readonly close: (session: Session, replaced: boolean) => void
}

export type SessionsOptions = {
  readonly kind: 'signal' | 'packets'
  readonly maxPayloadBytes: number
  readonly heartbeatMs?: number
  readonly log: Log
}

export type Sessions = {
  readonly upgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Caller) => void
  readonly byNode: ReadonlyMap<string, Session>
  /** Resolves when the signal aborted and the last session ended. */
  readonly closed: Promise<void>
}

const HEARTBEAT_MS = 10_000
/** Pings in a row that may stay without an answer. */
const MAX_MISSED = 2
const MAX_SESSIONS = 20_000
/** A closing handshake may take so long before the connection is cut. */
const CLOSE_TIMEOUT_MS = 2_000

/** Codes of RFC 6455 §7.4.1, and of our own from 4000. */
const CLOSE_GOING_AWAY = 1001
const CLOSE_POLICY = 1008
const CLOSE_REPLACED = 4001
const CLOSE_EXPIRED = 4002

export function runSessions(options: SessionsOptions, handler: SessionHandler, signal: AbortSignal): Sessions {
  const { kind, log, heartbeatMs = HEARTBEAT_MS } = options
  const byNode = new Map<string, Session>()
  const live = new Map<WebSocket, { missed: number; readonly expiresAtMs: number; readonly session: Session }>()
  const ended = Promise.withResolvers<void>()
  // @types/ws does not know closeTimeout.
  const settings: ServerOptions & { closeTimeout: number } = {
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: options.maxPayloadBytes,
    maxFragments: 16,
    closeTimeout: CLOSE_TIMEOUT_MS,
  }
  const server = new WebSocketServer(settings)

  const heartbeat = setInterval(() => {
    const nowMs = Date.now()
    for (const [socket, state] of live) {
      if (nowMs >= state.expiresAtMs) socket.close(CLOSE_EXPIRED, 'the certificate expired')
      else if (state.missed >= MAX_MISSED) {
        log.info({ node: state.session.node, kind }, 'session is silent')
        socket.terminate()
      } else {
        state.missed++
        socket.ping()
      }
    }
  }, heartbeatMs)

  const open = (socket: WebSocket, stream: Duplex, caller: Caller): void => {
    const session: Session = { node: caller.node, address: caller.address, since: Date.now(), socket, stream }
    const state = { missed: 0, expiresAtMs: caller.expiresAtMs, session }
    const isCurrent = () => byNode.get(session.node) === session
    live.set(socket, state)
    socket.on('error', (err) => log.info({ err, node: session.node, kind }, 'session failed'))
    socket.on('pong', () => (state.missed = 0))
    socket.on('message', (data, isBinary) => {
      state.missed = 0
      if (!isCurrent()) return
      try {
        handler.message(session, data as Buffer, isBinary)
      } catch (err) {
        // Anything else than a ProtocolError is our mistake; one node's message must not end the others' sessions for it.
        log[err instanceof ProtocolError ? 'warn' : 'error'](
          { err, node: session.node, kind },
          'session broke the protocol',
        )
        socket.close(CLOSE_POLICY, String((err as Error).message).slice(0, 100))
      }
    })
    socket.on('close', (code) => {
      live.delete(socket)
      const replaced = !isCurrent()
      if (!replaced) byNode.delete(session.node)
      log.info({ node: session.node, kind, code }, 'session ended')
      handler.close(session, replaced)
      if (signal.aborted && live.size === 0) ended.resolve()
    })
    const previous = byNode.get(session.node)
    byNode.set(session.node, session)
    previous?.socket.close(CLOSE_REPLACED, 'a newer session of this node replaces this one')
    log.info({ node: session.node, addr: session.address, kind }, 'session opened')
    handler.open(session)
  }

  const stop = (): void => {
    clearInterval(heartbeat)
    for (const socket of live.keys()) socket.close(CLOSE_GOING_AWAY, 'the relay stops')
    if (live.size === 0) ended.resolve()
  }
  onAbort(signal, stop)

  return {
    byNode,
    closed: ended.promise,
    upgrade(request, stream, head, caller) {
      if (signal.aborted) return refuseUpgrade(stream, 503, 'the relay stops')
      if (live.size >= MAX_SESSIONS)
        return refuseUpgrade(stream, 503, `the relay has ${MAX_SESSIONS} sessions and takes no more`)
      server.handleUpgrade(request, stream, head, (socket) => open(socket, stream, caller))
    },
  }
}

/** Answers an upgrade with an HTTP error and its reason, and closes the connection. */
export function refuseUpgrade(stream: Duplex, status: number, reason: string): void {
  const body = `${reason}\n`
  stream.once('error', () => stream.destroy())
  stream.end(
    `HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\ncontent-type: text/plain; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    () => stream.destroy(),
  )
}
