// Memory of bytes that pass. What a TLS socket reads is left to V8 (lib/chunk.ts frees what it can), which counts what it
// holds outside of its heap, and would collect the whole heap for it, ten times a second and more, long before the young
// generation, in which it lies, is full: with 25 MB of objects that was half of a relay's CPU (measured, Node 26). So the
// young generation is collected when so much has passed. And what a burst leaves between blocks that stay goes back to the
// kernel when the burst is over: that was as much again as what stayed.

import { collector } from './collector.ts'
import { trimAllocated } from './memory.ts'

/** From 16 MiB on V8 began to collect all by itself; the less, the less is kept, and the more often it is done. */
const COLLECT_BYTES = 3 * 1024 * 1024
/** A burst that is worth a trim, which takes a millisecond or two, and how long nothing passes after it. */
const BURST_BYTES = 4 * 1024 * 1024
const REST_MS = 250

const collect = collector({ type: 'minor' })
let uncollectedBytes = 0
let burstBytes = 0
let rest: NodeJS.Timeout | undefined

/** To be told of the bytes of each chunk that was read, and of other memory that came and went. @param freed by hand. */
export function onPassed(bytes: number, freed: boolean): void {
  burstBytes += bytes
  if (burstBytes >= BURST_BYTES) restLater()
  if (freed) return
  uncollectedBytes += bytes
  if (uncollectedBytes < COLLECT_BYTES) return
  uncollectedBytes = 0
  collect()
}

/** The timer is put off once in so many bytes, not for each chunk. */
function restLater(): void {
  burstBytes = 0
  if (rest === undefined) rest = setTimeout(onRest, REST_MS).unref()
  else rest.refresh()
}

function onRest(): void {
  rest = undefined
  uncollectedBytes = 0
  collect()
  trimAllocated()
}
