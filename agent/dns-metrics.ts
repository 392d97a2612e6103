// The DNS in the agent's metrics: counted where it happens in plain numbers, read when Prometheus asks.

import { counter, counterFrom, gaugeFrom, type Registry } from '../lib/metrics.ts'
import { MALFORMED, RCODES } from '../lib/wire/dns.ts'
import type { DnsCounts } from './dns-respond.ts'
import type { UpstreamCounts } from './dns-upstream-client.ts'

export type DnsMetricsSource = {
  readonly dns: () => DnsCounts & { readonly dropped: number }
  readonly upstream: () => UpstreamCounts
}

export function registerDnsMetrics(registry: Registry, { dns, upstream }: DnsMetricsSource): void {
  const answers = counter(registry, 'fulmar_agent_dns_answers_total', 'DNS queries answered', { rcode: RCODES })
  const malformed = counter(
    registry,
    'fulmar_agent_dns_malformed_total',
    'Messages on the DNS port that were no query that can be answered',
    { reason: MALFORMED },
  )
  const answersSince = differences(RCODES, () => dns().answers)
  const malformedSince = differences(MALFORMED, () => dns().malformed)
  registry.onScrape(() => {
    for (const [rcode, by] of answersSince()) answers.add(by, { rcode })
    for (const [reason, by] of malformedSince()) malformed.add(by, { reason })
  })
  const total = (name: string, help: string, read: () => number): void =>
    counterFrom(registry, `fulmar_agent_dns_${name}_total`, help, read)
  total('dropped', 'DNS queries not answered, for too many waited for upstream', () => dns().dropped)
  total('upstream_queries', 'Questions to resolvers of outside names', () => upstream().asked)
  total('upstream_failures', 'Those of them that nobody answered', () => upstream().failed)
  total('cache_hits', 'Outside names answered from the cache', () => upstream().cacheHits)
  total(
    'stale_answers',
    'Outside names answered with what had ended, since nobody answered',
    () => upstream().staleAnswers,
  )
  total('prefetches', 'Outside names asked again before they ended', () => upstream().prefetches)
  gaugeFrom(registry, 'fulmar_agent_dns_cache_entries', 'Outside names in the cache', () => upstream().cacheEntries)
  gaugeFrom(registry, 'fulmar_agent_dns_cache_bytes', 'Memory of the cache, roughly', () => upstream().cacheBytes)
}

/** What was added to each since the last time. */
function differences<K extends string>(
  keys: readonly K[],
  read: () => Readonly<Record<K, number>>,
): () => readonly (readonly [K, number])[] {
  const told = new Map<K, number>()
  return () => {
    const now = read()
    return keys.map((key) => {
      const by = now[key] - (told.get(key) ?? 0)
      told.set(key, now[key])
      return [key, by] as const
    })
  }
}
