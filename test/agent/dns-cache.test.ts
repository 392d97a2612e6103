import packet from 'dns-packet'
import t from 'tap'
import { DnsCache } from '../../agent/dns-cache.ts'
import { decodeQuery, encodeQuery, readResponse, type DnsQuery } from '../../lib/wire/dns.ts'

const query = (name: string): DnsQuery => decodeQuery(encodeQuery(7, name, 'A'))!
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
  const rows: readonly { name: string; ttl?: number; flags?: number; freshSeconds: number; kept: boolean }[] = [
    { name: 'its TTL', ttl: 60, freshSeconds: 60, kept: true },
    { name: 'an hour at most', ttl: 86_400, freshSeconds: 3_600, kept: true },
    { name: 'five seconds at least', ttl: 0, freshSeconds: 5, kept: true },
    { name: 'a failure', flags: 2, freshSeconds: 5, kept: true },
    { name: 'a truncated one', ttl: 60, flags: 0x200, freshSeconds: 0, kept: false },
  ]
  for (const { name, ttl, flags, freshSeconds, kept } of rows) {
    const [cache, asked] = [new DnsCache(), query('example.com')]
    cache.store(asked, response(asked, ttl, flags), 0)
    const endMs = freshSeconds * 1000
    t.equal(cache.fresh(asked, endMs - 1) !== undefined, kept, `${name}: fresh`)
    t.equal(cache.fresh(asked, endMs), undefined, `${name}: not for longer`)
    t.equal(cache.stale(asked, endMs + 3_599_999) !== undefined, kept, `${name}: stale for an hour`)
    t.equal(cache.stale(asked, endMs + 3_600_000), undefined, `${name}: not for longer`)
  }
})

t.test('TTLs count down, and a stale answer has a short one', async (t) => {
  const [cache, asked] = [new DnsCache(), query('example.com')]
  cache.store(asked, response(asked, 60), 0)
  t.equal(ttlOf(cache.fresh(asked, 20_500)), 40)
  t.equal(ttlOf(cache.stale(asked, 61_000)), 30)
})

t.test('a failure does not take the place of what may be served stale', async (t) => {
  const [cache, asked] = [new DnsCache(), query('example.com')]
  cache.store(asked, response(asked, 60), 0)
  cache.store(asked, response(asked, undefined, 2), 70_000)
  t.equal(ttlOf(cache.stale(asked, 70_000)), 30)
})

t.test('what was not asked for longest goes first', async (t) => {
  const cache = new DnsCache()
  const names = Array.from({ length: 4_096 }, (_, i) => query(`n${i}.example.com`))
  for (const asked of names) cache.store(asked, response(asked, 60), 0)
  cache.fresh(names[0]!, 1)
  const [one, more] = [query('one.example.com'), query('EXAMPLE.com')]
  for (const asked of [one, more]) cache.store(asked, response(asked, 60), 0)
  t.equal(cache.size, 4_096)
  t.ok(cache.fresh(names[0]!, 1), 'asked for a moment ago')
  t.equal(cache.fresh(names[1]!, 1), undefined)
  t.ok(cache.fresh(query('example.COM'), 1), 'in any case')
})
