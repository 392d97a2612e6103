// A session of streams (lib/mux) on its WebSocket. Little waits in the socket, or it would not matter whose turn it is; and
// what is sent in one turn of the event loop leaves together.

import { WebSocket } from 'ws'
import { MuxSession, type MuxSide, type SessionEvents } from '../mux/session.ts'
import { MuxError } from '../wire/mux.ts'

export type MuxConnection = {
  readonly session: MuxSession
  /** When the other side was last heard, by `performance.now()`. */
  readonly heardMs: () => number
}

/** Given to the socket and not taken by the kernel. */
const MAX_OUTSTANDING_BYTES = 128 * 1024
const BINARY = { binary: true }
const CLOSE_POLICY = 1008

/**
 * @param socket open.
 * @param onEnd called once when the socket is closed and all streams were reset.
 */
export function openMuxConnection(
  socket: WebSocket,
  side: MuxSide,
  events: Omit<SessionEvents, 'ready'>,
  onEnd: (why: { readonly code: number; readonly reason: string; readonly error?: Error }) => void,
): MuxConnection {
  let outstanding = 0
  let scheduled = false
  let heardMs = performance.now()
  let error: Error | undefined

  const pump = (): void => {
    scheduled = false
    while (outstanding < MAX_OUTSTANDING_BYTES && socket.readyState === WebSocket.OPEN) {
      const message = session.pull()
      if (message === undefined) return
      const { length } = message
      outstanding += length
      socket.send(message, BINARY, () => {
        outstanding -= length
        schedule()
      })
    }
  }
  const schedule = (): void => {
    if (scheduled) return
    scheduled = true
    setImmediate(pump)
  }
  // Who closes an idle session must not cut off the frame by which it became idle.
  const idle = (): void => {
    if (session.streams === 0) events.idle()
  }
  const session = new MuxSession(side, { ...events, ready: schedule, idle: () => void setImmediate(idle) })

  socket.on('message', (data, isBinary) => {
    heardMs = performance.now()
    try {
      if (!isBinary) throw new MuxError('text message')
      session.receive(data as Buffer, heardMs)
    } catch (cause) {
      // Anything else than a MuxError is our mistake; one session's message must not end the others for it.
      error ??= cause as Error
      session.close('broken', 'the session broke the protocol')
      socket.close(CLOSE_POLICY, String(error.message).slice(0, 100))
    }
  })
  socket.on('error', (cause) => (error ??= cause))
  socket.once('close', (code, reason) => {
    session.close('broken', error?.message ?? 'the session ended')
    onEnd({ code, reason: reason.toString(), ...(error && { error }) })
  })
  return { session, heardMs: () => heardMs }
}
