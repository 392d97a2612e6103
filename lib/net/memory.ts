// Memory that the process holds and does not use goes back to the kernel. Lists of very many objects are read once, and
// leave several times the memory behind that is needed from then on: V8 waits for half a minute of idleness before it
// gives any back, and glibc never does by itself.

import { setFlagsFromString } from 'node:v8'
import { collector } from './collector.ts'
import { libc } from './ffi.ts'

/** Of mallopt(3): blocks from this size on are mappings of their own, and so is what is free at the end of the heap. */
const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3
const M_ARENA_MAX = -8
const THRESHOLD_BYTES = 128 << 10
/** One release for lists that come together, and after what is made from them. */
const SETTLE_MS = 3_000
/** Where the process has not grown by so much since the last time, there is nothing to give back: a list may be empty. */
const WORTH_BYTES = 8 << 20
/** More than this takes so long to collect that changes would wait for it: 30,000 services did, four times as long. */
const SAVING_MAX_BYTES = 64 << 20
/** Until the next collection: after a release V8 would collect all after each MB or two for a while. */
const GROWING_PERCENT = 50

const collect = collector({ type: 'major', execution: 'sync', flavor: 'last-resort' })
/** Undefined where the C library is another one than glibc, which may need no such help. */
const allocator = libc({
  mallopt: { return: 'int32', arguments: ['int32', 'int32'] },
  malloc_trim: { return: 'int32', arguments: ['uint64'] },
})

/** @returns what asks for a release soon: it stops the process for some 3 ms per MB that stays. */
export function spareMemory(signal: AbortSignal): { readonly releaseSoon: () => void } {
  const glibc = allocator()
  // Each thread that collects and compiles would have a heap of its own, and keep what it once took.
  glibc?.mallopt(M_ARENA_MAX, 1)
  // Without these two glibc raises both with each large block that is freed, and keeps the next ones.
  glibc?.mallopt(M_MMAP_THRESHOLD, THRESHOLD_BYTES)
  glibc?.mallopt(M_TRIM_THRESHOLD, THRESHOLD_BYTES)
  let timer: NodeJS.Timeout | undefined
  let keptBytes = 0
  const releaseNow = (): void => {
    if (process.memoryUsage.rss() - keptBytes < WORTH_BYTES) return
    release()
    keptBytes = process.memoryUsage.rss()
  }
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true })
  return {
    releaseSoon: () => {
      clearTimeout(timer)
      if (!signal.aborted) timer = setTimeout(releaseNow, SETTLE_MS)
    },
  }
}

function release(): void {
  collect()
  // From now on V8 collects more often and keeps less; before, it would have taken twice as long to read the lists.
  const isSmall = process.memoryUsage().heapUsed < SAVING_MAX_BYTES
  setFlagsFromString(isSmall ? '--memory-saver-mode' : `--heap-growing-percent=${GROWING_PERCENT}`)
  trimAllocated()
}

/** What was allocated and freed outside of V8 goes back, which takes a millisecond or two: after much was done. */
export const trimAllocated = (): void => void allocator()?.malloc_trim(0n)
