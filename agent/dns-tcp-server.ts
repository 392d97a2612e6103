// DNS over TCP (RFC 7766): several queries on one connection, answered as they are known, each connection and each client
// with bounds of its own.

import type { Socket } from 'node:net'
import { onAbort } from '../lib/net/lifetime.ts'
import { firstMessage, framed } from '../lib/wire/dns-tcp.ts'
import type { Responder } from './dns-respond.ts'

const CONNECTIONS_MAX = 256
/** So that one client leaves room for others. */
const CONNECTIONS_PER_CLIENT_MAX = 64
const IDLE_MS = 10_000
/** Queries of one connection that wait for upstream; no more is read meanwhile. */
const WAITING_MAX = 32

/** @returns what serves a connection that was accepted, and ends it when the signal aborts. */
export function createTcpService(respond: Responder['respond'], signal: AbortSignal): (socket: Socket) => void {
  const connections = new Set<Socket>()
  const perClient = new Map<string, number>()
  onAbort(signal, () => connections.forEach((socket) => socket.destroy()))

  return (socket) => {
    const client = socket.remoteAddress ?? ''
    const others = perClient.get(client) ?? 0
    if (connections.size >= CONNECTIONS_MAX || others >= CONNECTIONS_PER_CLIENT_MAX || signal.aborted) {
      socket.destroy()
      return
    }
    connections.add(socket)
    perClient.set(client, others + 1)
    socket.on('close', () => {
      connections.delete(socket)
      const left = perClient.get(client)! - 1
      if (left === 0) perClient.delete(client)
      else perClient.set(client, left)
    })
    socket.setTimeout(IDLE_MS, () => socket.destroy())
    socket.on('error', () => socket.destroy())
    void serve(socket, client).finally(() => socket.destroy())
  }

  async function serve(socket: Socket, client: string): Promise<void> {
    const waiting = new Set<Promise<void>>()
    let received: Buffer = Buffer.alloc(0)
    const write = (message: Buffer): void => void (socket.writable && socket.write(framed(message)))
    try {
      // A frame holds at most 65535 bytes, so is what is kept.
      for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
        received = received.length === 0 ? (chunk as Buffer) : Buffer.concat([received, chunk as Buffer])
        for (let next = firstMessage(received); next !== undefined; next = firstMessage(received)) {
          received = next.rest
          const response = respond(next.message, true, () => client)
          // Who sends no DNS has nothing to wait for.
          if (response === undefined) return
          if (Buffer.isBuffer(response)) write(response)
          else {
            const answered = response.then(write).finally(() => waiting.delete(answered))
            waiting.add(answered)
            if (waiting.size >= WAITING_MAX) await Promise.race(waiting)
          }
          if (socket.writableNeedDrain) await drained(socket)
        }
      }
      await Promise.all(waiting)
      await new Promise<void>((resolve) => socket.end(resolve))
    } catch {
      // The client is gone, or was silent for too long.
    }
  }
}

/** Resolves when what was written is on its way, or the connection is closed. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('drain', done).off('close', done)
      resolve()
    }
    socket.on('drain', done).on('close', done)
  })
}
