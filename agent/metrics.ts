// The agent's metrics: answers and changes are counted as they happen, the rest is read when Prometheus asks.

import { counter, counterFrom, gaugeFrom, histogram, type Registry } from '../lib/metrics.ts'
import { RCODES, type Rcode } from '../lib/wire/dns.ts'
import { endpointCount } from './cluster.ts'
import type { Snapshot } from './snapshot.ts'

export type AgentMetrics = {
  readonly onAnswer: (rcode: Rcode) => void
  readonly onSync: (sync: { readonly durationMs: number }) => void
}

export function registerMetrics(
  registry: Registry,
  from: { readonly snapshot: () => Snapshot; readonly malformed: () => number },
): AgentMetrics {
  const services = () => from.snapshot().cluster?.services ?? []
  gaugeFrom(registry, 'fulmar_agent_services', 'Services known', () => services().length)
  gaugeFrom(registry, 'fulmar_agent_endpoints', 'Endpoints known, over all services', () => endpointCount(services()))
  counterFrom(
    registry,
    'fulmar_agent_dns_malformed_total',
    'Messages on the DNS port that were no query',
    from.malformed,
  )
  const answers = counter(registry, 'fulmar_agent_dns_answers_total', 'DNS queries answered', { rcode: RCODES })
  const syncs = histogram(registry, 'fulmar_agent_sync_seconds', 'From a change to the kernel having it')
  return {
    onAnswer: (rcode) => answers.add(1, { rcode }),
    onSync: ({ durationMs }) => syncs.observe(durationMs / 1000),
  }
}
