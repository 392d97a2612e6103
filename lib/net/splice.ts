// Joins two streams: what one reads the other writes, in both directions. Each half ends on its own; what breaks on one
// side is broken off on the other, as a reset where it is TCP, so that nobody takes the half of an answer for the whole.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { MuxDuplex } from './mux-duplex.ts'
import { giveBack, isPooled } from './pooled-reads.ts'
import { onPassed } from './young-generation.ts'

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
  pour(a, b)
  pour(b, a)
}

/**
 * As pipe(), but what arrives in one turn of the event loop is written by one call to the kernel, and what waits here is in
 * the window of the stream that it came by.
 */
function pour(from: Duplex, to: Duplex): void {
  const taken = from instanceof MuxDuplex ? (): void => from.holds(to.writableLength) : undefined
  taken?.()
  let corked = false
  const flush = (): void => {
    if (!corked) return
    corked = false
    to.uncork()
  }
  from.on('data', (chunk: Buffer) => {
    const isLent = isPooled(chunk)
    if (from instanceof Socket && !isLent) onPassed(chunk.length)
    if (!corked) {
      corked = true
      to.cork()
      setImmediate(flush)
    }
    if (to.write(chunk, isLent ? () => giveBack(chunk) : taken)) return
    flush()
    // The kernel may have taken all of it at once.
    if (to.writableLength >= to.writableHighWaterMark) from.pause()
  })
  to.on('drain', () => from.resume())
  if (from.readableEnded) to.end()
  else from.once('end', () => to.end())
  from.resume()
}

/** Ends a stream so that its other end notices that this was not the end. */
export function breakOff(stream: Duplex, error?: Error): void {
  if (stream.destroyed) return
  // Only a TCP socket of Node's own can be reset; on a Unix socket Node throws.
  if (!(stream instanceof Socket) || stream instanceof TLSSocket || stream.remoteAddress === undefined)
    return void stream.destroy(error)
  // While its end is on the way to the kernel a reset fails, and Node would lose the descriptor.
  if (stream.writableEnded && !stream.writableFinished && stream.writableLength === 0)
    return void stream.once('finish', () => stream.resetAndDestroy())
  stream.resetAndDestroy()
}
