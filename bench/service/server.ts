// What is called, as a process of its own: at one port it answers each message with itself, or says who it is from; at the
// other it takes all that it gets and answers each piece with a byte. Prints a line once it listens.

import { PORTS } from './cluster.ts'
import { acceptFrom, closeSocket, listenOn, memory, peerName, receiveSome, sendAll, Waiting } from './tcp.ts'

/** The first byte of the message that asks who it is from. */
export const WHO = 0x3f
/** Bytes that are answered by one. */
export const PIECE_BYTES = 4 << 20
const BUFFER_BYTES = 256 << 10

function serve(): never {
  const waiting = new Waiting()
  const echo = listenOn(PORTS.echo.endpoint)
  const sink = listenOn(PORTS.sink.endpoint)
  waiting.add(echo)
  waiting.add(sink)
  /** Bytes of the piece that has begun, by connection to the sink. */
  const begun = new Map<number, number>()
  const buffer = memory(BUFFER_BYTES)
  process.stdout.write('listening\n')

  const read = (fd: number): void => {
    const length = receiveSome(fd, buffer)
    if (length === 0) {
      begun.delete(fd)
      return closeSocket(fd)
    }
    const before = begun.get(fd)
    if (before === undefined) return answer(fd, length)
    const now = before + length
    begun.set(fd, now % PIECE_BYTES)
    for (let pieces = Math.floor(now / PIECE_BYTES); pieces > 0; pieces--) sendAll(fd, buffer, 1n)
  }
  const answer = (fd: number, length: number): void => {
    if (buffer[0] !== WHO) return sendAll(fd, buffer, BigInt(length))
    const name = peerName(fd)
    sendAll(fd, Buffer.from(name), BigInt(name.length))
  }

  for (;;)
    for (let i = waiting.wait(-1) - 1; i >= 0; i--) {
      const fd = waiting.ready(i)
      try {
        if (fd !== echo && fd !== sink) read(fd)
        else {
          const accepted = acceptFrom(fd)
          if (fd === sink) begun.set(accepted, 0)
          waiting.add(accepted)
        }
      } catch {
        // The caller went away, as callers do.
        begun.delete(fd)
        closeSocket(fd)
      }
    }
}

if (import.meta.main) serve()
