// Whoever carries bytes makes buffers that live for microseconds. V8 counts what they hold outside of its heap, and would
// collect the whole heap for it, ten times a second and more, long before the young generation, in which they lie, is full:
// with 25 MB of objects that was half of a relay's CPU (measured, Node 26). So the young generation is collected when so
// much has passed. A smaller one would be full in time too, but collected so often that buffers under way grow old in it.

import { collector } from './collector.ts'

/** From 16 MiB on V8 began to collect all by itself. */
const COLLECT_BYTES = 6 * 1024 * 1024

const collect = collector({ type: 'minor' })
let passedBytes = 0

/** To be told of the bytes of each buffer that was made for a chunk. */
export function onPassed(bytes: number): void {
  passedBytes += bytes
  if (passedBytes < COLLECT_BYTES) return
  passedBytes = 0
  collect()
}
