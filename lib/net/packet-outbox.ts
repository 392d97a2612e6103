// Sends packets to one receiver over a WebSocket: no more under way than the path takes without a queue (PacketWindow), the
// rest waits its turn and is dropped when it waits too long (PacketQueue). The marks by which the window learns are
// WebSocket pings, which every peer answers in order (RFC 6455 §5.5.3). Frames of one turn of the event loop leave in
// one write, and so in few TLS records. Nothing is allocated for a packet that does not wait.

import type { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import { PacketQueue } from '../packet-queue.ts'
import { PacketWindow } from '../packet-window.ts'

export type PacketOutbox<Of> = {
  /** @param of whose it is: of all that have something waiting, each takes its turn. */
  readonly send: (frame: Buffer, of: Of) => void
  /** Sends ahead of what waits and never drops: for the few control frames. */
  readonly sendNow: (frame: Buffer) => void
  /** Drops what waits. */
  readonly close: () => void
}

/** By the window's clock. With the queue on the way (PacketWindow) this is what bulk costs its neighbours. */
const MAX_WAIT_MS = 25
/** A new connection's first burst waits for a round trip or two, however far the other end. */
const MAX_START_WAIT_MS = 500
const BINARY = { binary: true }
/** The number of a mark, big-endian; other pings are not ours. */
const MARK_BYTES = 6

/** @param stream the socket below the WebSocket. */
export function openPacketOutbox<Of>(
  socket: WebSocket,
  stream: Duplex,
  { sent, dropped }: { readonly sent: (frame: Buffer, of: Of) => void; readonly dropped: (of: Of) => void },
): PacketOutbox<Of> {
  const window = new PacketWindow()
  const queue = new PacketQueue(dropped)
  let corked = false

  const clock = (): number => window.clock(performance.now())
  const maxWaitMs = (): number => (window.starting ? MAX_START_WAIT_MS : MAX_WAIT_MS)
  const uncork = (): void => {
    corked = false
    stream.uncork()
  }
  const write = (frame: Buffer): void => {
    if (!corked) {
      corked = true
      stream.cork()
      setImmediate(uncork)
    }
    socket.send(frame, BINARY)
    window.sent(frame.length)
    mark()
  }
  const mark = (): void => {
    const number = window.mark(performance.now())
    if (number === undefined || socket.readyState !== WebSocket.OPEN) return
    const payload = Buffer.allocUnsafe(MARK_BYTES)
    payload.writeUIntBE(number, 0, MARK_BYTES)
    socket.ping(payload)
  }
  const onPong = (payload: Buffer): void => {
    if (payload.length !== MARK_BYTES || !window.acknowledge(payload.readUIntBE(0, MARK_BYTES), performance.now()))
      return
    while (queue.length > 0 && window.open) {
      const { frame, of } = queue.shift(clock(), maxWaitMs())!
      write(frame)
      sent(frame, of)
    }
    mark()
  }
  socket.on('pong', onPong)

  return {
    sendNow: write,
    send(frame, of) {
      if (queue.length === 0 && window.open) {
        write(frame)
        sent(frame, of)
      } else queue.push(frame, of, clock(), maxWaitMs())
    },
    close() {
      socket.off('pong', onPong)
      queue.clear()
    },
  }
}
