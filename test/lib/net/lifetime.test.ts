import t from 'tap'
import { onAbort, tick } from '../../../lib/net/lifetime.ts'

const TRIES = 20
/** Timers are early by a fraction at most, and late by whatever the machine makes of them: the best of all tries counts. */
const EARLY_MS = 2
const LATE_MS = 10

t.test('a tick ends at a multiple of its period, and not at once', async (t) => {
  const { signal } = new AbortController()
  const periodMs = 40
  let bestMs = Infinity
  for (let i = 0; i < TRIES; i++) {
    const beganMs = performance.now()
    await tick(periodMs, signal)
    const endedMs = performance.now()
    t.ok(endedMs - beganMs >= periodMs / 4 - EARLY_MS, `after ${endedMs - beganMs} ms`)
    bestMs = Math.min(bestMs, (endedMs + EARLY_MS) % periodMs)
  }
  t.ok(bestMs <= EARLY_MS + LATE_MS, `${bestMs} ms`)
})

t.test('an abort ends it', async (t) => {
  const controller = new AbortController()
  const ticked = tick(60_000, controller.signal)
  controller.abort()
  await ticked
  await tick(60_000, controller.signal)
  t.pass('at once')
})

t.test('what is done on an abort is done once, and at once where it has been', (t) => {
  const [controller, other] = [new AbortController(), new AbortController()]
  const seen: string[] = []
  const take = () => void seen.push('late')
  onAbort(controller.signal, () => void seen.push('first'))
  onAbort(other.signal, take)
  other.signal.removeEventListener('abort', take)
  t.strictSame(seen, [])
  controller.abort()
  other.abort()
  onAbort(controller.signal, () => void seen.push('second'))
  t.strictSame(seen, ['first', 'second'], 'and not by whom it was taken off')
  t.end()
})
