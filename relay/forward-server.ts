// Answers replicas that ask for a node: by this relay's own session with it and by no other, so that nothing is forwarded
// twice. Each replica has a session of streams (lib/mux), in which it is the one that opens them.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Log } from '../lib/log.ts'
import type { MuxStream } from '../lib/mux/stream.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { openMuxConnection } from '../lib/net/mux-connection.ts'
import { MuxDuplex } from '../lib/net/mux-duplex.ts'
import { breakOff, splice } from '../lib/net/splice.ts'
import { acceptWebSocket, type RawWebSocket } from '../lib/net/websocket.ts'
import type { ResetReason } from '../lib/wire/mux.ts'
import { NodeDialError, type DialNode, type NodeDialFailure } from './node-dial.ts'
import { decodeTarget } from './forward-target.ts'
import { refuseUpgrade } from './websocket-server.ts'

export type ForwardServer = {
  /** Of a caller who is a replica. */
  readonly upgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, address: string) => void
  /** Resolves when the signal aborted and the last session ended. */
  readonly closed: Promise<void>
}

const MAX_SESSIONS = 256
const CLOSE_GOING_AWAY = 1001
const GREETING = JSON.stringify({ version: 1 })

/** @param dial by sessions of this relay. */
export function runForwardServer(dial: DialNode, log: Log, signal: AbortSignal): ForwardServer {
  const sockets = new Set<RawWebSocket>()
  const ended = Promise.withResolvers<void>()

  const serve = async (stream: MuxStream, addr: string): Promise<void> => {
    const { node, host } = decodeTarget(stream.host)
    const gone = new AbortController()
    const duplex = new MuxDuplex(stream)
    duplex.once('error', () => {})
    duplex.once('close', () => gone.abort())
    try {
      const far = await dial(node, { host, port: stream.port }, gone.signal)
      if (duplex.destroyed) return breakOff(far)
      stream.accept()
      log.info({ node, addr, port: stream.port }, 'stream opened for a replica')
      splice(duplex, far)
    } catch (error) {
      const known = error instanceof NodeDialError ? error : undefined
      if (known === undefined) log.error({ err: error, node, addr }, 'cannot dial a node')
      stream.reset(
        known === undefined ? 'failed' : RESETS[known.failure],
        known?.message ?? 'the relay failed; its log says why',
      )
      duplex.destroy()
    }
  }

  const open = (socket: RawWebSocket, addr: string): void => {
    sockets.add(socket)
    const { session } = openMuxConnection(
      socket,
      'acceptor',
      {
        greeted: () => {},
        opened: (stream) => void serve(stream, addr),
        goAway: () => {},
        pong: () => {},
        idle: () => {},
      },
      ({ code, reason, error }) => {
        sockets.delete(socket)
        log.info({ addr, kind: 'forward', code, reason, ...(error && { err: error }) }, 'session ended')
        if (signal.aborted && sockets.size === 0) ended.resolve()
      },
    )
    session.greet(GREETING)
    log.info({ addr, kind: 'forward' }, 'session opened')
  }

  const stop = (): void => {
    for (const socket of sockets) socket.close(CLOSE_GOING_AWAY, 'the relay stops')
    if (sockets.size === 0) ended.resolve()
  }
  onAbort(signal, stop)
  return {
    upgrade(request, stream, head, address) {
      if (signal.aborted) return refuseUpgrade(stream, 503, 'the relay stops')
      if (sockets.size >= MAX_SESSIONS) return refuseUpgrade(stream, 503, `there are ${MAX_SESSIONS} sessions already`)
      const socket = acceptWebSocket(request, stream, head, refuseUpgrade)
      if (socket !== undefined) open(socket, address)
    },
    closed: ended.promise,
  }
}

const RESETS: { readonly [F in NodeDialFailure]: ResetReason } = {
  refused: 'refused',
  failed: 'failed',
  timeout: 'timeout',
  busy: 'busy',
  offline: 'broken',
}
