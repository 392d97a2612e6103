// A daemon's life: it runs until SIGTERM or SIGINT aborts its signal, then ends when it has cleaned up.

/** sysexits.h: the command was used wrongly. */
export const EX_USAGE = 64

/** sysexits.h: the program itself failed. */
const EX_SOFTWARE = 70

/** An error that a person can mend: printed as it is, without a stack, and the process exits with EX_USAGE. */
export class UsageError extends Error {
  readonly code = 'FULMAR_USAGE'
  override readonly name = 'UsageError'
}

/** Time that a daemon may take for a clean end before the process leaves without it. */
const GRACE_MS = 5_000

/**
 * Runs `body` with a signal that SIGTERM, SIGINT and SIGHUP abort, or its own failure: what it had started before it failed must
 * not hold the process. A second signal ends the process at once. What the body gives to `beforeEnd`, such as handing work
 * over, is done first when a signal comes; it must be bounded.
 */
export async function runUntilSignal(
  body: (signal: AbortSignal, beforeEnd: (leave: () => Promise<void>) => void) => Promise<void>,
): Promise<void> {
  const controller = new AbortController()
  const end = (): void => {
    controller.abort()
    setTimeout(() => process.exit(), GRACE_MS).unref()
  }
  let leave = (): Promise<void> => Promise.resolve()
  let stopping = false
  const stop = (): void => {
    if (stopping) process.exit(130)
    stopping = true
    leave().then(end, end)
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', stop)
  try {
    await body(controller.signal, (first) => (leave = first))
  } finally {
    end()
    process.off('SIGTERM', stop)
    process.off('SIGINT', stop)
    process.off('SIGHUP', stop)
  }
}

/**
 * For a command whose reader may go before the end (`… | head`), which is no error: it ends at once, or as by SIGTERM
 * where it listens for that to clean up.
 */
export function endWithoutReader(): void {
  let ending = false
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (code !== 'EPIPE') process.exit(EX_SOFTWARE)
      if (process.listenerCount('SIGTERM') === 0) process.exit(0)
      if (!ending) process.kill(process.pid, 'SIGTERM')
      ending = true
    })
}

/** Resolves after `ms`, which may be over already, or at once (without an error) when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, Math.max(0, ms))
    signal.addEventListener('abort', done)
  })
}

/**
 * As `pause`, but ends at a multiple of `ms` on the process's own clock: loops whose periods divide each other wake it once
 * and not each by itself.
 */
export function tick(ms: number, signal: AbortSignal): Promise<void> {
  const leftMs = ms - (performance.now() % ms)
  // A timer may be early by a fraction.
  return pause(leftMs < ms / 4 ? leftMs + ms : leftMs, signal)
}

/** Calls `body` when the signal aborts, which may have been. Who needs it no more takes it off as a listener. */
export function onAbort(signal: AbortSignal, body: () => void): void {
  if (signal.aborted) body()
  else signal.addEventListener('abort', body, { once: true })
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => onAbort(signal, () => resolve()))
}
