// Whoever carries bytes makes buffers that live for microseconds. V8 counts what they hold outside of its heap, and would
// collect the whole heap for it long before the young generation, in which they lie, is full: with 25 MB of objects that
// was half of a relay's CPU (measured, Node 26). So either the young generation stays as small as it is at the start, is
// full sooner and is collected in a fraction of a millisecond, or it is collected when so much has passed.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const COLLECT_BYTES = 16 * 1024 * 1024

type Collect = (options: { type: 'minor' }) => void

let small = false
let collect: Collect | undefined
let passedBytes = 0

/** For daemons that do little else than carry bytes; to be called before their code is loaded, for which it would grow. */
export function keepYoungGenerationSmall(): void {
  small = true
  setFlagsFromString('--semi-space-growth-factor=1')
}

/** To be told of the bytes of each buffer that was made for a chunk. */
export function onPassed(bytes: number): void {
  if (small) return
  passedBytes += bytes
  if (passedBytes < COLLECT_BYTES) return
  passedBytes = 0
  collect ??= exposed()
  collect({ type: 'minor' })
}

function exposed(): Collect {
  setFlagsFromString('--expose-gc')
  const found = runInNewContext('gc') as Collect
  setFlagsFromString('--no-expose-gc')
  return found
}
