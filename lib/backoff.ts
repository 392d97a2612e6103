// Exponential back-off with jitter: after the n-th failure wait between a half and the whole of min(cap, base · 2^(n-1)),
// so that a thousand agents that lost one relay do not come back in one second.

export type Backoff = { readonly baseMs: number; readonly capMs: number }

/** @param failures how often it failed in a row, from 1. @param random in [0, 1). @returns milliseconds to wait. */
export function backoffMs({ baseMs, capMs }: Backoff, failures: number, random: number): number {
  const ceiling = Math.min(capMs, baseMs * 2 ** Math.min(failures - 1, 30))
  return Math.round(ceiling / 2 + (random * ceiling) / 2)
}
