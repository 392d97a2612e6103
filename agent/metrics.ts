// The agent's metrics: changes are counted as they happen, the rest is read when Prometheus asks.

import { gaugeFrom, histogram, type Registry } from '../lib/metrics.ts'
import { endpointCount } from './cluster.ts'
import { registerDnsMetrics, type DnsMetricsSource } from './dns-metrics.ts'
import type { Snapshot } from './snapshot.ts'

export type AgentMetrics = {
  readonly onSync: (sync: { readonly durationMs: number }) => void
}

export function registerMetrics(
  registry: Registry,
  from: DnsMetricsSource & { readonly snapshot: () => Snapshot },
): AgentMetrics {
  const services = () => from.snapshot().cluster?.services ?? []
  gaugeFrom(registry, 'fulmar_agent_services', 'Services known', () => services().length)
  gaugeFrom(registry, 'fulmar_agent_endpoints', 'Endpoints known, over all services', () => endpointCount(services()))
  registerDnsMetrics(registry, from)
  const syncs = histogram(registry, 'fulmar_agent_sync_seconds', 'From a change to the kernel having it')
  return { onSync: ({ durationMs }) => syncs.observe(durationMs / 1000) }
}
