// How many TLS handshakes are under way at a time. Where ten thousand agents come back at once, those that wait keep a socket
// and their first packet here and nothing else, and are taken in the order in which they came: whoever is served late is
// served before he gives up, and no work is done twice.

import type { Socket } from 'node:net'
import type { Server, TLSSocket } from 'node:tls'
import { onPassed } from '../lib/net/passing-memory.ts'

/** More than two cores can be busy with, though clients are some round trips away. */
const MOST = 64
/** A client that is far away, or says nothing more, holds its place no longer. */
const PLACE_MS = 500
/** Of OpenSSL's memory, most of which is free again when a handshake is done. */
const HANDSHAKE_BYTES = 32 * 1024

/** @param silentMs how long a connection may say nothing at all. */
export function limitHandshakes(server: Server, silentMs: number): void {
  const begin = server.listeners('connection') as readonly ((socket: Socket) => void)[]
  server.removeAllListeners('connection')
  let waiting: Socket[] = []
  let first = 0
  let busy = 0
  /** What ends a handshake's time, by its address and port, which TLS's own socket has too. */
  const places = new Map<string, () => void>()

  const start = (socket: Socket): void => {
    const key = keyOf(socket)
    busy++
    const late = setTimeout(() => places.get(key)?.(), PLACE_MS)
    places.set(key, () => {
      places.delete(key)
      clearTimeout(late)
      busy--
      onPassed(HANDSHAKE_BYTES, true)
      next()
    })
    socket.off('error', close)
    for (const listener of begin) listener.call(server, socket)
  }
  const next = (): void => {
    while (busy < MOST && first < waiting.length) {
      const socket = waiting[first++]!
      if (!socket.destroyed) start(socket)
    }
    if (first === waiting.length) {
      waiting = []
      first = 0
    }
  }
  const onDone = (socket: TLSSocket): void => places.get(keyOf(socket))?.()

  server.on('connection', (socket: Socket) => {
    const onSilent = (): void => void socket.destroy()
    // Until TLS has it: who resets a connection that waits must end nothing else.
    socket.on('error', close)
    socket.setTimeout(silentMs, onSilent)
    socket.once('readable', () => {
      socket.setTimeout(0)
      socket.off('timeout', onSilent)
      if (socket.destroyed) return
      waiting.push(socket)
      next()
    })
  })
  server.on('secureConnection', onDone)
  server.on('tlsClientError', (_error, socket) => onDone(socket))
}

const keyOf = ({ remoteAddress, remotePort }: Socket | TLSSocket): string => `${remoteAddress} ${remotePort}`

function close(this: Socket): void {
  this.destroy()
}
