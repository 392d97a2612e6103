// Tells the other replicas which nodes this relay holds sessions with (presence.ts), from the first to each change.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { encodePresence, MAX_FRAME_NODES, type PresenceFrame } from './presence.ts'
import { refuseUpgrade } from './websocket-server.ts'

export type OwnPresence = {
  /** Nodes whose session takes streams, and those that were lost, with when in Unix milliseconds. */
  readonly here: () => readonly string[]
  readonly lost: () => Iterable<readonly [node: string, atMs: number]>
}

export type ReplicaServer = {
  readonly upgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, address: string) => void
  /** A node's first session is there, or its last is gone. */
  readonly changed: (node: string, here: boolean) => void
  /** Resolves when the signal aborted and the last connection ended. */
  readonly closed: Promise<void>
}

/** What changes within so long goes out together. */
const GATHER_MS = 20
/** Who reads so slowly is cut, and told everything anew. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024
const MAX_LISTENERS = 128
const MAX_PAYLOAD_BYTES = 1_024
const CLOSE_GOING_AWAY = 1001

export function runReplicaServer(own: OwnPresence, log: Log, signal: AbortSignal): ReplicaServer {
  const listeners = new Set<WebSocket>()
  const ended = Promise.withResolvers<void>()
  const server = new WebSocketServer({
    ...{ noServer: true, clientTracking: false, perMessageDeflate: false, maxPayload: MAX_PAYLOAD_BYTES },
  })
  const changes = new Map<string, boolean>()
  let timer: NodeJS.Timeout | undefined

  const send = (sockets: Iterable<WebSocket>, here: readonly string[], gone: PresenceFrame['gone']): void => {
    const frames = [...parts(here).map((some) => ({ here: some, gone: [] })), ...parts(gone).map(onlyGone)]
    for (const frame of frames.map(encodePresence))
      for (const socket of sockets) {
        if (socket.bufferedAmount > MAX_BUFFERED_BYTES) socket.terminate()
        else socket.send(frame)
      }
  }
  const flush = (): void => {
    timer = undefined
    const rows = [...changes]
    changes.clear()
    const here = rows.flatMap(([node, isHere]) => (isHere ? [node] : []))
    send(
      listeners,
      here,
      rows.flatMap(([node, isHere]) => (isHere ? [] : [[node, 0] as const])),
    )
  }
  const open = (socket: WebSocket, address: string): void => {
    listeners.add(socket)
    log.info({ addr: address, kind: 'replica' }, 'session opened')
    socket.on('error', (err) => log.info({ err, addr: address, kind: 'replica' }, 'session failed'))
    socket.once('close', () => {
      listeners.delete(socket)
      if (signal.aborted && listeners.size === 0) ended.resolve()
    })
    const nowMs = Date.now()
    // It counts as connected with its first frame, whatever there is to tell.
    socket.send(encodePresence({ here: [], gone: [] }))
    send(
      [socket],
      own.here(),
      [...own.lost()].map(([node, atMs]) => [node, Math.max(0, nowMs - atMs)] as const),
    )
  }
  const stop = (): void => {
    clearTimeout(timer)
    for (const socket of listeners) socket.close(CLOSE_GOING_AWAY, 'the relay stops')
    if (listeners.size === 0) ended.resolve()
  }
  onAbort(signal, stop)
  return {
    upgrade(request, stream, head, address) {
      if (signal.aborted) return refuseUpgrade(stream, 503, 'the relay stops')
      if (listeners.size >= MAX_LISTENERS) return refuseUpgrade(stream, 503, `${MAX_LISTENERS} replicas listen already`)
      server.handleUpgrade(request, stream, head, (socket) => open(socket, address))
    },
    changed(node, here) {
      changes.set(node, here)
      timer ??= setTimeout(flush, GATHER_MS)
    },
    closed: ended.promise,
  }
}

const onlyGone = (gone: PresenceFrame['gone']): PresenceFrame => ({ here: [], gone })

function parts<T>(items: readonly T[]): readonly (readonly T[])[] {
  const count = Math.ceil(items.length / MAX_FRAME_NODES)
  return Array.from({ length: count }, (_, index) =>
    items.slice(index * MAX_FRAME_NODES, (index + 1) * MAX_FRAME_NODES),
  )
}
