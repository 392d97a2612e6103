import t from 'tap'
import { tick } from '../../../lib/net/lifetime.ts'

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
