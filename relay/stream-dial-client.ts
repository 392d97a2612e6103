// A stream on a session (lib/mux), from when it was opened to its answer. A session that is dead is found out sooner than
// the answer would be late.

import type { Duplex } from 'node:stream'
import type { MuxStream } from '../lib/mux/stream.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import type { MuxConnection } from '../lib/net/mux-connection.ts'
import { MuxDuplex, type MuxResetError } from '../lib/net/mux-duplex.ts'
import type { RawWebSocket } from '../lib/net/websocket.ts'
import { NodeDialError } from './node-dial.ts'

export type DialledSession = {
  readonly connection: MuxConnection
  readonly socket: RawWebSocket
  /** When a dial last asked it for a sign of life. */
  pingedMs: number
}

export type StreamDial = {
  readonly node: string
  /** Who says nothing at all for so long after a dial, not even to a ping, is gone. */
  readonly aliveMs: number
  readonly answerMs: number
  readonly onRefused: (error: MuxResetError) => NodeDialError
  readonly onLate: () => NodeDialError
  /** The session is dead, and is cut next. */
  readonly onDead: () => NodeDialError
}

const PING_TOKEN = Buffer.alloc(8)

/** @param stream of the session. @throws NodeDialError */
export function answered(
  session: DialledSession,
  stream: MuxStream,
  { node, aliveMs, answerMs, onRefused, onLate, onDead }: StreamDial,
  until: AbortSignal,
): Promise<Duplex> {
  const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
  const settle = (): void => {
    stopLooking()
    clearTimeout(late)
    until.removeEventListener('abort', cancel)
  }
  const fail = (error: NodeDialError): void => {
    settle()
    duplex.destroy()
    reject(error)
  }
  const cancel = (): void => fail(new NodeDialError('timeout', `${node}: not wanted any more`))
  const duplex = new MuxDuplex(stream, {
    onOpened: () => {
      settle()
      resolve(duplex)
    },
    onRefused: (error) => {
      settle()
      reject(onRefused(error))
    },
  })
  // Told by the promise until it is open, and by whoever uses it from then on.
  duplex.once('error', () => {})
  // Most are answered before the ping; of many that are not, one is enough.
  const stopLooking = lookForLife(session, aliveMs, aliveMs / 4, () => {
    if (!duplex.destroyed) fail(onDead())
  })
  const late = setTimeout(() => fail(onLate()), answerMs)
  onAbort(until, cancel)
  return promise
}

/**
 * Cuts a session of which nothing is heard from now on, not even the answer to a ping.
 * @param quietMs the ping is sent after this, unless another was since.
 * @param onDead before it is cut.
 * @returns what stops it.
 */
export function lookForLife(session: DialledSession, aliveMs: number, quietMs: number, onDead = () => {}): () => void {
  const { connection, socket } = session
  const askedMs = performance.now()
  const ask = setTimeout(() => {
    if (performance.now() - session.pingedMs < quietMs) return
    session.pingedMs = performance.now()
    connection.session.ping(PING_TOKEN)
  }, quietMs)
  const isAlive = (): void => {
    if (connection.heardMs() >= askedMs) return
    onDead()
    socket.terminate()
  }
  // After a stall of this process the timer is due before an answer that lies in the socket has been read.
  const alive = setTimeout(() => setImmediate(isAlive), aliveMs).unref()
  return () => {
    clearTimeout(ask)
    clearTimeout(alive)
  }
}
