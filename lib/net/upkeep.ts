// Keeps a piece of the kernel as it is wanted: passes (observe, plan, apply) run one at a time; triggers that come together
// are one pass; a pass that failed is repeated with back-off, or sooner when something changes or someone asks.

import { backoffMs, type Backoff } from '../backoff.ts'
import { after } from './after.ts'

export type Upkeep = {
  /** Asks for a pass soon; any number of calls before it begins are one. */
  trigger(): void
  /** Runs a pass now, or right after the one that runs. @throws what that pass threw; it is repeated none the less. */
  now(): Promise<void>
  /** Resolves when no pass runs and none is due, or when the signal has aborted and the last pass is over. */
  idle(): Promise<void>
}

export type UpkeepOptions = {
  /** Observes, plans, applies. */
  readonly pass: () => Promise<void>
  /** Called for failures that no caller of `now` waits for. @param failures how often in a row. */
  readonly onError: (error: unknown, failures: number) => void
  /** Called after the last pass, once the signal has aborted. */
  readonly onEnd?: () => void
  /** Between a trigger and its pass: changes come in bursts, and two programs at odds must not spin. */
  readonly coalesceMs?: number
  /** After a pass, for so many times as long as it took, a trigger waits: passes take a bounded share of the processor. */
  readonly rest?: number
  readonly backoff?: Backoff
}

const COALESCE_MS = 20
const BACKOFF: Backoff = { baseMs: 100, capMs: 5_000 }
/** After failures a trigger is served this soon at the latest. */
const AFTER_FAILURE_MAX_MS = 500
const REST_MAX_MS = 500

export function createUpkeep(options: UpkeepOptions, signal: AbortSignal): Upkeep {
  const { pass, onError, onEnd, coalesceMs = COALESCE_MS, rest = 0, backoff = BACKOFF } = options
  type Caller = { readonly resolve: () => void; readonly reject: (error: unknown) => void }
  let callers: Caller[] = []
  /** Calls off the pass that is due. */
  let callOff: (() => void) | undefined
  let dueAt = 0
  let running = false
  let again = false
  let failures = 0
  let restedMs = 0
  let idlers: (() => void)[] = []

  /** A pass that is due sooner stays: a stream of triggers must not put it off for ever. */
  const schedule = (ms: number): void => {
    const at = performance.now() + ms
    if (signal.aborted || (callOff !== undefined && dueAt <= at)) return
    callOff?.()
    dueAt = at
    callOff = after(ms, () => void run())
  }
  const cancel = (): void => {
    callOff?.()
    callOff = undefined
  }
  /** A pass that fails may itself cause the triggers that ask for the next. */
  const soonMs = () =>
    failures === 0
      ? Math.max(coalesceMs, restedMs - performance.now())
      : Math.min(AFTER_FAILURE_MAX_MS, backoff.baseMs * failures)

  /** Never rejects. */
  async function run(): Promise<void> {
    cancel()
    running = true
    again = false
    const served = callers
    callers = []
    const beganMs = performance.now()
    try {
      await pass()
      failures = 0
      for (const { resolve } of served) resolve()
    } catch (error) {
      failures++
      schedule(backoffMs(backoff, failures, Math.random()))
      for (const { reject } of served) reject(error)
      if (served.length === 0 && !signal.aborted) onError(error, failures)
    }
    running = false
    const nowMs = performance.now()
    restedMs = nowMs + Math.min(REST_MAX_MS, rest * (nowMs - beganMs))
    if (signal.aborted) end()
    else if (callers.length > 0) void run()
    else if (again) schedule(soonMs())
    if (isIdle()) settle()
  }

  const isIdle = () => !running && callOff === undefined && callers.length === 0
  const settle = (): void => {
    for (const resolve of idlers) resolve()
    idlers = []
  }

  function end(): void {
    cancel()
    for (const { reject } of callers) reject(signal.reason)
    callers = []
    onEnd?.()
    settle()
  }

  signal.addEventListener('abort', () => {
    cancel()
    if (!running) end()
  })

  return {
    trigger() {
      if (running) again = true
      else schedule(soonMs())
    },
    now() {
      if (signal.aborted) return Promise.reject(signal.reason)
      return new Promise((resolve, reject) => {
        callers.push({ resolve, reject })
        if (!running) void run()
      })
    },
    idle: () => (isIdle() ? Promise.resolve() : new Promise((resolve) => idlers.push(resolve))),
  }
}
