// Answers of upstream servers, kept as they came: fresh until their lowest TTL ends, and stale for an hour beyond, for the
// time when no upstream answers (RFC 8767). What is asked for often is asked again before it ends.

import type { DnsQuery } from '../lib/wire/dns.ts'
import { adaptResponse, type ForeignResponse } from '../lib/wire/dns-foreign.ts'

export type CacheBounds = { readonly entries: number; readonly bytes: number; readonly staleSeconds: number }
export const CACHE_BOUNDS: CacheBounds = { entries: 9984, bytes: 4 << 20, staleSeconds: 3600 }

const POSITIVE_MAX_SECONDS = 3600
const NEGATIVE_MAX_SECONDS = 1800
const FAILURE_SECONDS = 5
const LEAST_SECONDS = 5
/** The TTL of a stale answer. */
const STALE_TTL_SECONDS = 30
/** Asked for this often, each time within a minute of the last, an answer is fetched again in its last tenth. */
const POPULAR_HITS = 3
const POPULAR_GAP_MS = 60_000
const LAST_PART = 0.1
/** What an entry takes beside its message and its key, roughly. */
const ENTRY_BYTES = 400

const NOERROR = 0
const NXDOMAIN = 3

type Entry = {
  readonly response: ForeignResponse
  readonly storedMs: number
  readonly expiresMs: number
  readonly bytes: number
  hits: number
  lastHitMs: number
}

export class DnsCache {
  readonly #bounds: CacheBounds
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>()
  #bytes = 0

  constructor(bounds: CacheBounds = CACHE_BOUNDS) {
    this.#bounds = bounds
  }

  get size(): number {
    return this.#entries.size
  }
  get bytes(): number {
    return this.#bytes
  }

  /** An answer for this client that is still fresh, and whether it should be asked for again by now. */
  fresh(query: DnsQuery, nowMs: number): { readonly message: Buffer; readonly refresh: boolean } | undefined {
    const key = keyOf(query)
    const entry = this.#entries.get(key)
    if (entry === undefined || entry.expiresMs <= nowMs) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    entry.hits = nowMs - entry.lastHitMs > POPULAR_GAP_MS ? 1 : entry.hits + 1
    entry.lastHitMs = nowMs
    const age = Math.floor((nowMs - entry.storedMs) / 1000)
    return {
      message: adaptResponse(entry.response, query, (ttl) => Math.max(0, Math.min(ttl, POSITIVE_MAX_SECONDS) - age)),
      refresh: entry.hits >= POPULAR_HITS && entry.expiresMs - nowMs <= (entry.expiresMs - entry.storedMs) * LAST_PART,
    }
  }

  /** What was known until lately, for the time when nobody answers. */
  stale(query: DnsQuery, nowMs: number): Buffer | undefined {
    const entry = this.#entries.get(keyOf(query))
    if (entry === undefined || entry.expiresMs + this.#bounds.staleSeconds * 1000 <= nowMs) return undefined
    if (isFailure(entry.response)) return undefined
    return adaptResponse(entry.response, query, () => STALE_TTL_SECONDS)
  }

  /** Truncated answers are not kept, and failures do not displace what may still be served stale. */
  store(query: DnsQuery, response: ForeignResponse, nowMs: number): void {
    const key = keyOf(query)
    const seconds = lifetimeOf(response)
    const known = this.#entries.get(key)
    if (seconds === 0 || (isFailure(response) && known !== undefined && !isFailure(known.response))) return
    this.#remove(key)
    const bytes = response.message.length + 2 * key.length + ENTRY_BYTES
    const [hits, lastHitMs] = known === undefined ? [0, nowMs] : [known.hits, known.lastHitMs]
    this.#entries.set(key, { response, storedMs: nowMs, expiresMs: nowMs + seconds * 1000, bytes, hits, lastHitMs })
    this.#bytes += bytes
    while (this.#entries.size > this.#bounds.entries || this.#bytes > this.#bounds.bytes)
      this.#remove(this.#entries.keys().next().value!)
  }

  #remove(key: string): void {
    this.#bytes -= this.#entries.get(key)?.bytes ?? 0
    this.#entries.delete(key)
  }
}

/** Neither that something is there nor that it is not. */
export const isFailure = ({ rcode }: ForeignResponse): boolean => rcode !== NOERROR && rcode !== NXDOMAIN

/** In seconds. */
function lifetimeOf(response: ForeignResponse): number {
  const { rcode, truncated, answers, ttlSeconds } = response
  if (truncated) return 0
  if (isFailure(response)) return FAILURE_SECONDS
  const cap = rcode === NOERROR && answers > 0 ? POSITIVE_MAX_SECONDS : NEGATIVE_MAX_SECONDS
  return Math.max(LEAST_SECONDS, Math.min(ttlSeconds, cap))
}

/** What may change the answer: the question, and what the client said that it understands. */
export function keyOf({ name, type, class: kind, edns, checkingDisabled, recursionDesired }: DnsQuery): string {
  const flags = `${edns === undefined ? '-' : edns.dnssec ? 'd' : 'e'}${checkingDisabled ? 'c' : '-'}${recursionDesired ? 'r' : '-'}`
  return `${name.toLowerCase()} ${type} ${kind} ${flags}`
}
