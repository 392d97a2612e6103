// Which TCP endpoints a node takes for dead, since they leave calls unanswered and a connection attempt of our own fares no
// better. Suspicion comes from elsewhere (agent/call-watch.ts, other nodes of the pool) and decides nothing: one attempt
// that comes through ends it. What is dead is tried until it is back. Pure: attempts are begun by who calls `step`.
//
//   doubted ── open ──▶ forgotten          dead ── open ──▶ forgotten
//      └── refused, silent ──▶ dead          └── silent, and never was anything else ──▶ on trial after a while: used
//                                                again, and dead again as soon as calls go unanswered
//
// The trial is for endpoints that this node itself may not call (a NetworkPolicy) though its pods may.

/** How an attempt to connect ended; silent: not within CHECK_MS. */
export type Outcome = 'open' | 'refused' | 'silent'
export type Verdict = Exclude<Outcome, 'open'>

/** An attempt and one repetition by TCP, which comes after a second. */
export const CHECK_MS = 1_200
/** Between the end of one attempt at a dead endpoint and the next; later, when it has been dead for a while. */
const RETRY = { ms: 800, laterMs: 2_000, afterMs: 60_000 }
/** An endpoint that was found well is not looked at again so soon, whatever is said of it. */
const WELL_MS = 1_000
const TRIAL = { firstMs: 30_000, lastMs: 300_000 }
/** Endpoints that are kept in mind, attempts at a time, and attempts that begin per second. */
const MAX_ENTRIES = 512
const MAX_RUNNING = 64
const MAX_PER_SECOND = 50

type Entry = {
  verdict: Verdict | undefined
  /** Calls of this node went unanswered. */
  own: boolean
  /** When the next attempt is due; Infinity while one runs, and for those on trial. */
  nextMs: number
  deadMs: number
  /** It was refused: our packets get there and back. */
  reached: boolean
  trials: number
}

export class EndpointChecks {
  readonly #entries = new Map<string, Entry>()
  /** When an endpoint was found well. */
  readonly #well = new Map<string, number>()
  #running = 0
  #budget = MAX_PER_SECOND
  #steppedMs = 0
  #dead: ReadonlyMap<string, Verdict> = new Map()
  readonly counts: Record<Outcome, number> = { open: 0, refused: 0, silent: 0 }

  /** Calls to it go unanswered, of this node or of others in the pool. @param key `address port` of an endpoint. */
  doubt(key: string, by: 'own calls' | 'others', nowMs: number): void {
    const entry = this.#entries.get(key)
    const own = by === 'own calls'
    if (entry !== undefined) {
      entry.own ||= own
      // Two nodes that may not call it themselves would else hold each other's suspicion up for ever.
      if (own && entry.verdict === undefined && entry.nextMs === Infinity && entry.trials > 0) entry.nextMs = nowMs
      return
    }
    if (this.#entries.size >= MAX_ENTRIES || nowMs - (this.#well.get(key) ?? -Infinity) < WELL_MS) return
    this.#entries.set(key, { verdict: undefined, own, nextMs: nowMs, deadMs: Infinity, reached: false, trials: 0 })
  }

  /** Those that are no endpoints any more are forgotten. */
  retain(isEndpoint: (key: string) => boolean): void {
    for (const key of this.#entries.keys()) if (!isEndpoint(key)) this.#entries.delete(key)
    this.#refresh()
  }

  /** @returns endpoints to try now; each ends in a `result`. */
  step(nowMs: number): readonly string[] {
    this.#budget = Math.min(MAX_PER_SECOND, this.#budget + ((nowMs - this.#steppedMs) * MAX_PER_SECOND) / 1000)
    this.#steppedMs = nowMs
    for (const [key, wellMs] of this.#well) if (nowMs - wellMs >= WELL_MS) this.#well.delete(key)
    const due: string[] = []
    for (const [key, entry] of this.#entries) {
      this.#try(key, entry, nowMs)
      if (entry.nextMs > nowMs || this.#running >= MAX_RUNNING || this.#budget < 1) continue
      entry.nextMs = Infinity
      this.#running++
      this.#budget--
      due.push(key)
    }
    // Whoever waited for a place is first next time.
    for (const key of due) {
      const entry = this.#entries.get(key)!
      this.#entries.delete(key)
      this.#entries.set(key, entry)
    }
    return due
  }

  result(key: string, outcome: Outcome, nowMs: number): void {
    this.#running--
    this.counts[outcome]++
    const entry = this.#entries.get(key)
    if (entry === undefined) return
    if (outcome === 'open') {
      this.#entries.delete(key)
      this.#well.set(key, nowMs)
    } else {
      if (entry.verdict === undefined) entry.deadMs = nowMs
      entry.verdict = outcome
      entry.reached ||= outcome === 'refused'
      entry.nextMs = nowMs + (nowMs - entry.deadMs < RETRY.afterMs ? RETRY.ms : RETRY.laterMs)
    }
    this.#refresh()
  }

  /** By `address port`; another map whenever it is another. */
  get dead(): ReadonlyMap<string, Verdict> {
    return this.#dead
  }

  /** Those of them that calls of this node met, for the others of the pool. */
  get met(): readonly string[] {
    return [...this.#entries].flatMap(([key, { own, verdict }]) => (own && verdict !== undefined ? [key] : []))
  }

  /** Whether there is anything to do. */
  get idle(): boolean {
    return this.#entries.size === 0
  }

  #try(key: string, entry: Entry, nowMs: number): void {
    const trialMs = Math.min(TRIAL.lastMs, TRIAL.firstMs * 2 ** Math.min(entry.trials, 10))
    if (entry.verdict === undefined) {
      // On trial, and nobody complained for as long again.
      if (entry.trials > 0 && entry.nextMs === Infinity && nowMs - entry.deadMs > 2 * trialMs) this.#entries.delete(key)
      return
    }
    if (entry.reached || entry.nextMs === Infinity || nowMs - entry.deadMs < trialMs) return
    entry.verdict = undefined
    entry.nextMs = Infinity
    entry.trials++
    this.#refresh()
  }

  #refresh(): void {
    const now = new Map(
      [...this.#entries].flatMap(([key, { verdict }]) => (verdict === undefined ? [] : [[key, verdict]])),
    )
    const same = now.size === this.#dead.size && [...now].every(([key, verdict]) => this.#dead.get(key) === verdict)
    if (!same) this.#dead = now
  }
}
