// Waiting for an answer in time that we ran. A process that stood still (a starved machine, a frozen cgroup) finds the timer
// due before it has read what came meanwhile, and a machine that has no time for us has none for who is to answer either: so
// the wait is cut into steps, of which a standstill, however long, takes one.

const STEPS = 5

/** @returns gives up the wait. @param end called once, after so many milliseconds, or later. */
export function afterRunning(ms: number, end: () => void): () => void {
  let steps = 0
  let last: NodeJS.Immediate | undefined
  const timer = setInterval(() => {
    if (++steps < STEPS) return
    clearInterval(timer)
    // After what lies in sockets has been read.
    last = setImmediate(end)
  }, ms / STEPS)
  return () => {
    clearInterval(timer)
    clearImmediate(last)
  }
}
