// Joins two streams: what one reads the other writes, in both directions. Each half ends on its own; what breaks on one
// side is broken off on the other, as a reset where it is TCP, so that nobody takes the half of an answer for the whole.

import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { free } from '../chunk.ts'
import { MuxDuplex } from './mux-duplex.ts'
import { onPassed } from './passing-memory.ts'

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

/** What waits here: of a stream of a session it is in its window. */
const MAX_WAITING_BYTES = 64 * 1024

function pour(from: Duplex, to: Duplex): void {
  if (to instanceof MuxDuplex) pull(from, to)
  else push(from, to)
}

/**
 * As pipe(), but what arrives in one turn of the event loop is written by one call to the kernel, and what waits here is in
 * the window of the stream that it came by.
 */
function push(from: Duplex, to: Duplex): void {
  const source = from instanceof MuxDuplex ? from : undefined
  source?.holds(to.writableLength)
  let corked = false
  let paused = false
  const cork = (): void => {
    if (corked) return
    corked = true
    to.cork()
  }
  const flush = (): void => {
    if (!corked) return
    corked = false
    to.uncork()
  }
  from.on('data', (chunk: Buffer) => {
    if (source === undefined) onPassed(chunk.length, false)
    // A stream brings together what came for it; of others nobody knows whether more comes in this turn.
    if (source === undefined && !corked) setImmediate(flush)
    if (source?.more !== false) cork()
    to.write(chunk, () => {
      free(chunk)
      source?.holds(to.writableLength)
      if (!paused || to.writableLength > 0) return
      paused = false
      from.resume()
    })
    if (source?.more === false || to.writableLength >= MAX_WAITING_BYTES) flush()
    // The kernel may have taken all of it at once.
    if (to.writableLength < MAX_WAITING_BYTES) return
    paused = true
    from.pause()
  })
  if (from.readableEnded) to.end()
  else from.once('end', () => to.end())
  from.resume()
}

/** One chunk after the other: what waits for a stream's window waits in the kernel. */
function pull(from: Duplex, to: MuxDuplex): void {
  let busy = false
  const next = (): void => {
    if (busy) return
    const chunk = from.read() as Buffer | null
    if (chunk === null) return
    busy = true
    onPassed(chunk.length, !(from instanceof TLSSocket))
    to.write(chunk, (error) => {
      free(chunk)
      busy = false
      if (!error) next()
    })
  }
  if (from.readableEnded) return void to.end()
  from.once('end', () => to.end())
  from.on('readable', next)
  next()
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
