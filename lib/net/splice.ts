// Joins two streams: what one reads the other writes, in both directions. Each half ends on its own; what breaks on one
// side is broken off on the other, as a reset where it is TCP, so that nobody takes the half of an answer for the whole.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'

/** Both with allowHalfOpen. @param onEnd called once, when both are closed. @param error why it broke, where it did. */
export function splice(a: Duplex, b: Duplex, onEnd: (error?: Error) => void = () => {}): void {
  let open = 2
  let why: Error | undefined
  const watch = (one: Duplex, other: Duplex): void => {
    const onClose = (): void => {
      if (!one.readableEnded || !one.writableFinished) breakOff(other, why)
      if (--open === 0) onEnd(why)
    }
    one.on('error', (error) => (why ??= error))
    if (one.closed) onClose()
    else one.once('close', onClose)
  }
  watch(a, b)
  watch(b, a)
  a.pipe(b)
  b.pipe(a)
}

/** Ends a stream so that its other end notices that this was not the end. */
export function breakOff(stream: Duplex, error?: Error): void {
  if (stream.destroyed) return
  // Only a TCP socket of Node's own can be reset; on a Unix socket Node throws.
  if (stream instanceof Socket && !(stream instanceof TLSSocket) && stream.remoteAddress !== undefined)
    stream.resetAndDestroy()
  else stream.destroy(error)
}
