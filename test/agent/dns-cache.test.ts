import packet from 'dns-packet'
import t from 'tap'
import { DnsCache } from '../../agent/dns-cache.ts'
import type { DnsQuery } from '../../lib/wire/dns.ts'
import { queryFor } from '../../lib/wire/dns-encode.ts'
import { readResponse } from '../../lib/wire/dns-foreign.ts'

const LIKE = { id: 7, type: 'A', class: 'IN', recursionDesired: true, checkingDisabled: false, edns: undefined }
const query = (name: string): DnsQuery => queryFor(name, LIKE)!
/** @param flags of the response: the RCODE in the low four bits, 0x200 for a truncated one. */
const response = (of: DnsQuery, ttl: number | undefined, flags = 0) => {
  const { name } = of
  const questions = [{ name, type: 'A' as const }]
  const answers = ttl === undefined ? [] : [{ name, type: 'A' as const, ttl, data: '192.0.2.1' }]
  return readResponse(packet.encode({ type: 'response', id: 7, flags: 0x180 | flags, questions, answers }), 7, of)!
}
const ttlOf = (message: Buffer | undefined) =>
  message && (packet.decode(message) as unknown as { answers?: { ttl: number }[] }).answers?.[0]?.ttl

t.test('how long an answer is fresh, and how long it may be served after that', async (t) => {
  const rows: readonly {
    name: string
    ttl?: number
    flags?: number
    freshSeconds: number
    kept: boolean
    stale?: boolean
  }[] = [
    { name: 'its TTL', ttl: 60, freshSeconds: 60, kept: true },
    { name: 'an hour at most', ttl: 86_400, freshSeconds: 3_600, kept: true },
    { name: 'five seconds at least', ttl: 0, freshSeconds: 5, kept: true },
    { name: 'that there is no such name', flags: 3, freshSeconds: 5, kept: true },
    { name: 'a failure', flags: 2, freshSeconds: 5, kept: true, stale: false },
    { name: 'a truncated one', ttl: 60, flags: 0x200, freshSeconds: 0, kept: false },
  ]
  for (const { name, ttl, flags, freshSeconds, kept, stale = kept } of rows) {
    const [cache, asked] = [new DnsCache(), query('example.com')]
    cache.store(asked, response(asked, ttl, flags), 0)
    const endMs = freshSeconds * 1000
    t.equal(cache.fresh(asked, endMs - 1) !== undefined, kept, `${name}: fresh`)
    t.equal(cache.fresh(asked, endMs), undefined, `${name}: not for longer`)
    t.equal(cache.stale(asked, endMs + 3_599_999) !== undefined, stale, `${name}: stale for an hour`)
    t.equal(cache.stale(asked, endMs + 3_600_000), undefined, `${name}: not for longer`)
  }
})

t.test('TTLs count down, and a stale answer has a short one', async (t) => {
  const [cache, asked] = [new DnsCache(), query('example.com')]
  cache.store(asked, response(asked, 60), 0)
  t.equal(ttlOf(cache.fresh(asked, 20_500)?.message), 40)
  t.equal(ttlOf(cache.stale(asked, 61_000)), 30)
})

t.test('a failure does not take the place of what may be served stale', async (t) => {
  const [cache, asked] = [new DnsCache(), query('example.com')]
  cache.store(asked, response(asked, 60), 0)
  cache.store(asked, response(asked, undefined, 2), 70_000)
  t.equal(ttlOf(cache.stale(asked, 70_000)), 30)
})

t.test('what was not asked for longest goes first, by number and by size', async (t) => {
  for (const bounds of [
    { entries: 8, bytes: 1 << 20 },
    { entries: 1000, bytes: 4_300 },
  ]) {
    const cache = new DnsCache({ ...bounds, staleSeconds: 3600 })
    const names = Array.from({ length: 8 }, (_, i) => query(`n${i}.example.com`))
    for (const asked of names) cache.store(asked, response(asked, 60), 0)
    const size = cache.size
    cache.fresh(names[0]!, 1)
    const [one, more] = [query('one.example.com'), query('EXAMPLE.com')]
    for (const asked of [one, more]) cache.store(asked, response(asked, 60), 0)
    t.equal(cache.size, size === 8 ? 8 : size)
    t.ok(cache.bytes <= bounds.bytes)
    t.ok(cache.fresh(names[0]!, 1), 'asked for a moment ago')
    t.equal(cache.fresh(names[1]!, 1), undefined)
    t.ok(cache.fresh(query('example.COM'), 1), 'in any case')
  }
})

t.test('what is asked for often is asked for again in its last tenth', async (t) => {
  const rows: readonly { name: string; askedMs: number[]; refresh: boolean }[] = [
    { name: 'often', askedMs: [1_000, 30_000, 80_000, 91_000], refresh: true },
    { name: 'often, but not near its end', askedMs: [1_000, 30_000, 80_000, 89_000], refresh: false },
    { name: 'twice', askedMs: [60_000, 95_000], refresh: false },
    { name: 'with a long gap', askedMs: [1_000, 2_000, 3_000, 95_000], refresh: false },
  ]
  for (const { name, askedMs, refresh } of rows) {
    const [cache, asked] = [new DnsCache(), query('example.com')]
    cache.store(asked, response(asked, 100), 0)
    t.equal(askedMs.map((nowMs) => cache.fresh(asked, nowMs)!.refresh).at(-1), refresh, name)
  }
})

t.test('how long that something is not there is kept: the SOA says it (RFC 2308)', async (t) => {
  const asked = query('none.example.com')
  const data = { mname: 'a', rname: 'b', serial: 1, refresh: 1, retry: 1, expire: 1 }
  const rows: readonly { name: string; ttl: number; minimum: number; freshSeconds: number }[] = [
    { name: 'its minimum', ttl: 600, minimum: 60, freshSeconds: 60 },
    { name: 'its TTL', ttl: 30, minimum: 60, freshSeconds: 30 },
    { name: 'half an hour at most', ttl: 86_400, minimum: 86_400, freshSeconds: 1_800 },
  ]
  for (const { name, ttl, minimum, freshSeconds } of rows) {
    const authorities = [{ name: 'example.com', type: 'SOA' as const, ttl, data: { ...data, minimum } }]
    const questions = [{ name: asked.name, type: 'A' as const }]
    const message = packet.encode({ type: 'response', id: 7, flags: 0x183, questions, authorities })
    const cache = new DnsCache()
    cache.store(asked, readResponse(message, 7, asked)!, 0)
    t.ok(cache.fresh(asked, freshSeconds * 1000 - 1), name)
    t.equal(cache.fresh(asked, freshSeconds * 1000), undefined, name)
  }
})
