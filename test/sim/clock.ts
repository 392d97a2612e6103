// Virtual time for the product's own loops: while it is installed, timers, clocks and randomness of this process are of
// its making, and time stands still but where `run` moves it. Whatever an event causes at once, promises included, is
// over before the next event. It tells how much of the processor the events of each owner took.

import { setImmediate as realImmediate } from 'node:timers/promises'

type Event = {
  readonly atMs: number
  /** Of two events of one moment the one that was asked for first comes first. */
  readonly order: number
  readonly owner: string
  run: (() => void) | undefined
}

const NOBODY = 'nobody'

export class Clock {
  nowMs = 0
  /** Processor time by owner. */
  readonly spentMs = new Map<string, number>()
  readonly random: () => number
  /** What Date.now() began at. */
  readonly epochMs: number
  readonly #events: Event[] = []
  #order = 0
  #owner = NOBODY

  constructor(seed: number, epochMs: number) {
    this.random = randomOf(seed)
    this.epochMs = epochMs
  }

  /** @returns what undoes it. */
  install(): () => void {
    const { setTimeout, clearTimeout } = globalThis
    const [now, dateNow, random] = [performance.now.bind(performance), Date.now, Math.random]
    Object.assign(globalThis, {
      setTimeout: (run: () => void, ms = 0) => this.#timeout(run, ms),
      clearTimeout: (timeout: { cancel?: () => void } | undefined) => timeout?.cancel?.(),
    })
    performance.now = () => this.nowMs
    Date.now = () => this.epochMs + this.nowMs
    Math.random = this.random
    return () => {
      Object.assign(globalThis, { setTimeout, clearTimeout })
      performance.now = now
      Date.now = dateNow
      Math.random = random
    }
  }

  /** @param owner whose processor time it takes, and that of what it causes. */
  at(owner: string, afterMs: number, run: () => void): Event {
    const event = { atMs: this.nowMs + afterMs, order: this.#order++, owner, run }
    push(this.#events, event)
    return event
  }

  /** Lets time go on. */
  async run(ms: number): Promise<void> {
    const endMs = this.nowMs + ms
    for (let event = this.#events[0]; event !== undefined && event.atMs <= endMs; event = this.#events[0]) {
      pop(this.#events)
      if (event.run === undefined) continue
      this.nowMs = event.atMs
      this.#owner = event.owner
      const beganMs = processorMs()
      event.run()
      event.run = undefined
      await realImmediate()
      this.spentMs.set(event.owner, (this.spentMs.get(event.owner) ?? 0) + processorMs() - beganMs)
    }
    this.#owner = NOBODY
    this.nowMs = endMs
  }

  #timeout(run: () => void, ms: number): object {
    const event = this.at(this.#owner, Math.max(1, ms), run)
    const timeout = { cancel: () => void (event.run = undefined), unref: () => timeout, ref: () => timeout }
    return timeout
  }
}

/** Milliseconds of a processor that this thread has had: what else the machine does is left out. */
function processorMs(): number {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

/** mulberry32: from 0 to 1. */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const isSooner = (a: Event, b: Event) => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)

function push(heap: Event[], event: Event): void {
  let i = heap.length
  for (let up = (i - 1) >> 1; i > 0 && isSooner(event, heap[up]!); i = up, up = (i - 1) >> 1) heap[i] = heap[up]!
  heap[i] = event
}

function pop(heap: Event[]): void {
  const last = heap.pop()!
  if (heap.length === 0) return
  let i = 0
  for (let down = 1; down < heap.length; down = 2 * i + 1) {
    if (down + 1 < heap.length && isSooner(heap[down + 1]!, heap[down]!)) down++
    if (!isSooner(heap[down]!, last)) break
    heap[i] = heap[down]!
    i = down
  }
  heap[i] = last
}
