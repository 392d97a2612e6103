// A session of streams (lib/mux) on its WebSocket. Little waits in the socket, or it would not matter whose turn it is; and
// what is sent in one turn of the event loop leaves together.

import { MuxSession, type MuxSide, type SessionEvents } from '../mux/session.ts'
import { MAX_MESSAGE_BYTES } from '../wire/mux.ts'
import { HEADROOM_BYTES, type RawWebSocket, type WebSocketEnd } from './websocket.ts'

export type MuxConnection = {
  readonly session: MuxSession
  /** When the other side was last heard, by `performance.now()`. */
  readonly heardMs: () => number
}

/** Given to the socket and not taken by the kernel. */
const MAX_OUTSTANDING_BYTES = 128 * 1024
/** What is shorter is copied out, so that a whole buffer does not wait for it to be sent. */
const SHORT_BYTES = 8 * 1024

/** For messages, of all sessions: who sends much finds the same memory again, and who is idle has none. */
const spare: Buffer[] = []
const MAX_SPARE = 8
const take = (): Buffer => spare.pop() ?? Buffer.allocUnsafeSlow(HEADROOM_BYTES + MAX_MESSAGE_BYTES)
const giveBack = (buffer: Buffer): void => {
  if (spare.length < MAX_SPARE) spare.push(buffer)
}

/** @param onEnd called once when the socket is closed and all streams were reset. */
export function openMuxConnection(
  socket: RawWebSocket,
  side: MuxSide,
  events: Omit<SessionEvents, 'ready'>,
  onEnd: (why: WebSocketEnd) => void,
): MuxConnection {
  let outstanding = 0
  let scheduled = false
  let heardMs = performance.now()

  const pump = (): void => {
    scheduled = false
    while (outstanding < MAX_OUTSTANDING_BYTES && socket.open) {
      const buffer = take()
      const length = session.pull(buffer, HEADROOM_BYTES)
      if (length >= SHORT_BYTES) send(buffer, length, buffer)
      else {
        if (length > 0) send(Buffer.from(buffer.subarray(0, HEADROOM_BYTES + length)), length)
        giveBack(buffer)
        if (length === 0) return
      }
    }
  }
  const send = (buffer: Buffer, length: number, lent?: Buffer): void => {
    outstanding += length
    socket.send(buffer, length, () => {
      outstanding -= length
      if (lent !== undefined) giveBack(lent)
      schedule()
    })
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
  socket.use(
    {
      payload: (bytes, end) => {
        heardMs = performance.now()
        try {
          session.receive(bytes, end, heardMs)
        } catch (error) {
          // Anything else than a MuxError is our mistake; one session's message must not end the others for it.
          session.close('broken', 'the session broke the protocol')
          throw error
        }
      },
      end: (why) => {
        session.close('broken', why.error?.message ?? 'the session ended')
        onEnd(why)
      },
    },
    MAX_MESSAGE_BYTES,
  )
  return { session, heardMs: () => heardMs }
}
