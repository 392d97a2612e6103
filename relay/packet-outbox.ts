// What waits to be sent to one receiver of packets: a ring of frames in front of a socket. While the socket is below its
// high-water mark, frames go straight through; above it they wait here, and when the ring is full the oldest is dropped.
// Frames that arrive in one turn of the event loop leave in one write.

import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { PairCounts } from './packet-server.ts'

export type Outbox = {
  readonly send: (frame: Buffer, counts: PairCounts) => void
  /** Sends ahead of the queue and never drops: for the few control frames. */
  readonly sendNow: (frame: Buffer) => void
  /** Drops what waits. */
  readonly close: () => void
}

/** Frames that wait at most. */
const QUEUE_FRAMES = 64
const BINARY = { binary: true }

export function createOutbox(
  socket: WebSocket,
  stream: Duplex,
  sent: (frameBytes: number, counts: PairCounts) => void,
  dropped: (counts: PairCounts) => void,
): Outbox {
  const frames: (Buffer | undefined)[] = Array(QUEUE_FRAMES).fill(undefined)
  const pairs: (PairCounts | undefined)[] = Array(QUEUE_FRAMES).fill(undefined)
  let first = 0
  let length = 0
  let corked = false

  const uncork = (): void => {
    corked = false
    stream.uncork()
  }
  const write = (frame: Buffer): void => {
    if (!corked) {
      corked = true
      stream.cork()
      queueMicrotask(uncork)
    }
    socket.send(frame, BINARY)
  }
  const shift = (): PairCounts => {
    const counts = pairs[first]!
    frames[first] = undefined
    pairs[first] = undefined
    first = (first + 1) % QUEUE_FRAMES
    length--
    return counts
  }
  const drain = (): void => {
    while (length > 0 && !stream.writableNeedDrain) {
      const frame = frames[first]!
      write(frame)
      sent(frame.length, shift())
    }
  }
  stream.on('drain', drain)

  return {
    sendNow: write,
    send(frame, counts) {
      if (length === 0 && !stream.writableNeedDrain) {
        write(frame)
        sent(frame.length, counts)
        return
      }
      if (length === QUEUE_FRAMES) dropped(shift())
      const last = (first + length) % QUEUE_FRAMES
      frames[last] = frame
      pairs[last] = counts
      length++
    },
    close() {
      stream.off('drain', drain)
      while (length > 0) dropped(shift())
    },
  }
}
