// A call that is due after some time, or as soon as what happens now is over.

/** A timer waits for a millisecond at least, which is long where nothing is to be waited for. @returns what calls it off. */
export function after(ms: number, call: () => void): () => void {
  if (ms > 0) {
    const timer = setTimeout(call, ms)
    return () => clearTimeout(timer)
  }
  const turn = setImmediate(call)
  return () => clearImmediate(turn)
}
