// Answers of upstream servers, kept as they came: fresh until their lowest TTL ends, and stale for an hour beyond, for the
// time when no upstream answers (RFC 8767).

import { adaptResponse, type DnsQuery, type ForeignResponse } from '../lib/wire/dns.ts'

const ENTRIES_MAX = 4096
const POSITIVE_MAX_SECONDS = 3600
const NEGATIVE_MAX_SECONDS = 1800
const FAILURE_SECONDS = 5
const LEAST_SECONDS = 5
const STALE_SECONDS = 3600
/** The TTL of a stale answer. */
const STALE_TTL_SECONDS = 30

const NOERROR = 0
const NXDOMAIN = 3

type Entry = { readonly response: ForeignResponse; readonly storedMs: number; readonly expiresMs: number }

export class DnsCache {
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>()

  get size(): number {
    return this.#entries.size
  }

  /** An answer for this client that is still fresh. */
  fresh(query: DnsQuery, nowMs: number): Buffer | undefined {
    const key = keyOf(query)
    const entry = this.#entries.get(key)
    if (entry === undefined || entry.expiresMs <= nowMs) return undefined
    this.#entries.delete(key)
    this.#entries.set(key, entry)
    const age = Math.floor((nowMs - entry.storedMs) / 1000)
    return adaptResponse(entry.response, query, (ttl) => Math.max(0, Math.min(ttl, POSITIVE_MAX_SECONDS) - age))
  }

  stale(query: DnsQuery, nowMs: number): Buffer | undefined {
    const entry = this.#entries.get(keyOf(query))
    if (entry === undefined || entry.expiresMs + STALE_SECONDS * 1000 <= nowMs) return undefined
    return adaptResponse(entry.response, query, () => STALE_TTL_SECONDS)
  }

  /** Truncated answers are not kept, and failures do not displace what may still be served stale. */
  store(query: DnsQuery, response: ForeignResponse, nowMs: number): void {
    const key = keyOf(query)
    const seconds = lifetimeOf(response)
    if (seconds === 0 || (seconds === FAILURE_SECONDS && this.#entries.has(key))) return
    this.#entries.delete(key)
    this.#entries.set(key, { response, storedMs: nowMs, expiresMs: nowMs + seconds * 1000 })
    if (this.#entries.size > ENTRIES_MAX) this.#entries.delete(this.#entries.keys().next().value!)
  }
}

/** In seconds. */
function lifetimeOf({ rcode, truncated, answers, ttlSeconds }: ForeignResponse): number {
  if (truncated) return 0
  if (rcode !== NOERROR && rcode !== NXDOMAIN) return FAILURE_SECONDS
  const cap = rcode === NOERROR && answers > 0 ? POSITIVE_MAX_SECONDS : NEGATIVE_MAX_SECONDS
  return Math.max(LEAST_SECONDS, Math.min(ttlSeconds, cap))
}

/** What may change the answer: the question, and what the client said that it understands. */
export function keyOf({ name, type, class: kind, edns, checkingDisabled, recursionDesired }: DnsQuery): string {
  const flags = `${edns === undefined ? '-' : edns.dnssec ? 'd' : 'e'}${checkingDisabled ? 'c' : '-'}${recursionDesired ? 'r' : '-'}`
  return `${name.toLowerCase()} ${type} ${kind} ${flags}`
}
