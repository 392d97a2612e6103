// How many TLS handshakes are under way at a time. Where ten thousand agents come back at once, those that wait keep a socket
// and their first packet here and nothing else, and are taken in the order in which they came, each network in its turn:
// whoever is served late is served before he gives up, no work is done twice, and who comes without end delays his own.

import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Server, TLSSocket } from 'node:tls'
import { onPassed } from '../lib/net/passing-memory.ts'
import { prefixHash } from './prefix-limit.ts'

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
  const seed = randomBytes(4).readInt32BE()
  const waiting = new Waiting()
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
    while (busy < MOST) {
      const socket = waiting.take()
      if (socket === undefined) return
      if (!socket.destroyed) start(socket)
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
      waiting.add(prefixHash(socket.remoteAddress ?? '', seed), socket)
      next()
    })
  })
  server.on('secureConnection', onDone)
  server.on('tlsClientError', (_error, socket) => onDone(socket))
}

/** One of each network, in turn. */
class Waiting {
  /** In the order of their turns; none of them empty. */
  readonly #networks = new Map<number, Socket[]>()

  add(network: number, socket: Socket): void {
    const own = this.#networks.get(network)
    if (own === undefined) this.#networks.set(network, [socket])
    else own.push(socket)
  }

  take(): Socket | undefined {
    for (const [network, own] of this.#networks) {
      const socket = own.shift()
      this.#networks.delete(network)
      if (own.length > 0) this.#networks.set(network, own)
      return socket
    }
    return undefined
  }
}

const keyOf = ({ remoteAddress, remotePort }: Socket | TLSSocket): string => `${remoteAddress} ${remotePort}`

function close(this: Socket): void {
  this.destroy()
}
