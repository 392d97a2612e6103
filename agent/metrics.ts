// The agent's metrics: changes are counted as they happen, the rest is read when Prometheus asks.

import { counterFrom, gaugeFrom, histogram, type Registry } from '../lib/metrics.ts'
import { EMPTY } from '../lib/sorted-list.ts'
import { endpointCount } from './cluster.ts'
import { registerDnsMetrics, type DnsMetricsSource } from './dns-metrics.ts'
import type { Outcome } from './endpoint-checks.ts'
import type { Snapshot } from './snapshot.ts'

export type AgentMetrics = {
  readonly onSync: (sync: { readonly durationMs: number }) => void
}

export function registerMetrics(
  registry: Registry,
  from: DnsMetricsSource & {
    readonly snapshot: () => Snapshot
    /** Attempts to connect to endpoints so far. */
    readonly checks: () => Readonly<Record<Outcome, number>>
  },
): AgentMetrics {
  const services = () => from.snapshot().cluster?.services ?? EMPTY
  gaugeFrom(registry, 'fulmar_agent_services', 'Services known', () => services().length)
  gaugeFrom(registry, 'fulmar_agent_endpoints', 'Endpoints known, over all services', () => endpointCount(services()))
  const suspects = () => from.snapshot().balance?.suspects ?? []
  gaugeFrom(
    registry,
    'fulmar_agent_endpoints_dead',
    'Ready endpoints of services that look dead from here',
    () => suspects().length,
  )
  gaugeFrom(
    registry,
    'fulmar_agent_endpoints_dead_used',
    'Of these, those that are used for want of better ones',
    () => suspects().filter(({ used }) => used).length,
  )
  for (const outcome of ['open', 'refused', 'silent'] as const)
    counterFrom(
      registry,
      `fulmar_agent_checks_${outcome}_total`,
      `Attempts to connect to endpoints that left calls unanswered: ${outcome}`,
      () => from.checks()[outcome],
    )
  registerDnsMetrics(registry, from)
  const syncs = histogram(registry, 'fulmar_agent_sync_seconds', 'From a change to the kernel having it')
  return { onSync: ({ durationMs }) => syncs.observe(durationMs / 1000) }
}
