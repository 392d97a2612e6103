// Whether a pool that our gateway calls silent is out of reach: a gateway process that is down is silent too, and its kernel
// forwards all the same. So endpoints there are tried, and what comes back from any of them, a refusal too, says that
// the path carries. Where there is nothing to try, the gateway's word counts. Pure.

/** A pool is tried so often while it is said to be silent, two endpoints at a time. */
const EVERY_MS = 1_000
const AT_A_TIME = 2
/** Pools whose attempts begin in one step. */
const MAX_POOLS = 16
/** An answer counts for so long. */
const REACHED_MS = 3_000

type State = { nextMs: number; reachedMs: number; tried: number; failed: boolean }

export class PathChecks {
  readonly #pools = new Map<string, State>()
  #down: ReadonlySet<string> = new Set()

  /** @param pools that are said to be silent now. */
  told(pools: ReadonlySet<string>, nowMs: number): void {
    for (const pool of this.#pools.keys()) if (!pools.has(pool)) this.#pools.delete(pool)
    for (const pool of pools)
      if (!this.#pools.has(pool))
        this.#pools.set(pool, { nextMs: nowMs, reachedMs: -Infinity, tried: 0, failed: false })
    this.#refresh(nowMs)
  }

  /** @param endpointsOf all that could be tried in a pool. @returns what to try now; each ends in a `result`. */
  step(endpointsOf: (pool: string) => readonly string[], nowMs: number): readonly (readonly [string, string])[] {
    const due: (readonly [string, string])[] = []
    let pools = 0
    for (const [pool, state] of this.#pools) {
      if (state.nextMs > nowMs || pools++ >= MAX_POOLS) continue
      state.nextMs = nowMs + EVERY_MS
      const endpoints = endpointsOf(pool)
      if (endpoints.length === 0) state.failed = true
      for (let i = 0; i < Math.min(AT_A_TIME, endpoints.length); i++)
        due.push([pool, endpoints[state.tried++ % endpoints.length]!])
    }
    this.#refresh(nowMs)
    return due
  }

  result(pool: string, answered: boolean, nowMs: number): void {
    const state = this.#pools.get(pool)
    if (state === undefined) return
    if (answered) state.reachedMs = nowMs
    state.failed = !answered
    this.#refresh(nowMs)
  }

  /** Another set whenever it is another. */
  get down(): ReadonlySet<string> {
    return this.#down
  }

  get idle(): boolean {
    return this.#pools.size === 0
  }

  #refresh(nowMs: number): void {
    const now = new Set(
      [...this.#pools].flatMap(([pool, { failed, reachedMs }]) =>
        failed && nowMs - reachedMs >= REACHED_MS ? [pool] : [],
      ),
    )
    if (now.size !== this.#down.size || [...now].some((pool) => !this.#down.has(pool))) this.#down = now
  }
}
