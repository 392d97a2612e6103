// What a socket reads, in buffers that are used again and again. Chunks of many streams that wait for their turn on one
// session live too long for the young generation, and V8 would collect its whole heap for them, again and again: that was a
// fifth of an agent's CPU with 32 streams (measured, Node 26).

import type { OnReadOpts, Socket } from 'node:net'

/** As much as Node reads at once. */
const CHUNK_BYTES = 64 * 1024
/** What is shorter is copied into memory of its own size. */
const SHORT_BYTES = 8 * 1024
const MAX_SPARE = 32

/** Into which all of them read: what comes is copied out before anything else is read. */
let scratch: Buffer | undefined
const spare: Buffer[] = []
const pooled = new WeakMap<ArrayBufferLike, Buffer>()

/** Of net.connect: the socket has `data` events as any other. @param socket to be paused until somebody listens to them. */
export function pooledReads(socket: () => Socket): OnReadOpts {
  scratch ??= Buffer.allocUnsafeSlow(CHUNK_BYTES)
  return {
    buffer: scratch,
    callback: (bytes) => {
      socket().emit('data', chunkOf(scratch!.subarray(0, bytes)))
      return true
    },
  }
}

function chunkOf(bytes: Buffer): Buffer {
  if (bytes.length < SHORT_BYTES) return Buffer.from(bytes)
  let buffer = spare.pop()
  if (buffer === undefined) {
    buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES)
    pooled.set(buffer.buffer, buffer)
  }
  bytes.copy(buffer)
  return buffer.subarray(0, bytes.length)
}

/** @returns whether it lies in a buffer that is to be given back when nobody has use for it any more. */
export const isPooled = (chunk: Buffer): boolean => pooled.has(chunk.buffer)

export function giveBack(chunk: Buffer): void {
  const buffer = pooled.get(chunk.buffer)
  if (buffer !== undefined && spare.length < MAX_SPARE) spare.push(buffer)
}
