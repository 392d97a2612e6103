// How long a NAT or firewall keeps an idle mapping (RFC 5780 §4.6), concluded from tests of one length each:
//
//   X ── Binding ──▶ server        two exchanges, so that the mapping counts as a stream in use, as WireGuard's does
//   …    X is silent for as long as the test is
//   Y ── Binding, RESPONSE-PORT = X's mapped port ──▶ server ── answer, from where X had sent to ──▶ X ?
//
// All lengths run at once, each with an X of its own; the whole takes as long as the longest that is needed.

/** Just below the times that NATs use: 30, 60, 120 and 180 s are common. The longest twice, so that it can be confirmed. */
export const WAITS_MS: readonly number[] = [3_000, 6_000, 12_000, 25_000, 45_000, 90_000, 170_000, 170_000]

/** `unknown`: the server or the way to it failed, so that silence says nothing. */
export type WaitTest = { readonly waitMs: number; readonly outcome: 'alive' | 'silent' | 'unknown' }

export type Lifetime = {
  /** The longest silence that a mapping survived, milliseconds; 0 for none. */
  readonly livedMs: number
  /** The shortest that none survived; undefined if all did, or if it was not found out. */
  readonly diedMs: number | undefined
}

/** Lost packets look like a dead mapping; that many dead ones, and none alive of their age or older, are believed. */
const DEATHS = 2

/** @returns undefined while nothing can be said. */
export function lifetimeOf(tests: readonly WaitTest[]): Lifetime | undefined {
  const waits = (outcome: WaitTest['outcome']) =>
    tests.filter((test) => test.outcome === outcome).map(({ waitMs }) => waitMs)
  const livedMs = Math.max(0, ...waits('alive'))
  const deaths = waits('silent').filter((waitMs) => waitMs > livedMs)
  if (deaths.length >= DEATHS) return { livedMs, diedMs: Math.min(...deaths) }
  return livedMs === 0 ? undefined : { livedMs, diedMs: undefined }
}

/** Shorter than the 30 s after which many NATs forget a mapping; refreshed so often while nothing better is known. */
const MAX_REFRESH_MS = 20_000
const MIN_REFRESH_MS = 2_000

/** How often a mapping is refreshed: twice in what it surely lives, within bounds. */
export const refreshMs = (livedMs: number | undefined): number =>
  livedMs === undefined ? MAX_REFRESH_MS : Math.min(MAX_REFRESH_MS, Math.max(MIN_REFRESH_MS, livedMs / 2))
