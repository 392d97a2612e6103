// A small ruleset for tests: a service with endpoints, one without, and a takeover of the cluster DNS.

import { clusterOf } from '../../agent/cluster.ts'
import { rulesetOf, type Ruleset } from '../../agent/nft.ts'
import { hereOf } from '../../agent/topology.ts'

const endpoint = (last: number) => ({ addresses: [`10.244.1.${last}`], nodeName: 'h1' })
/** A ruleset of one service with endpoints 10.244.1.x, and one without. */
export function ruleset(endpoints: readonly number[], source: string | undefined = '10.244.1.1'): Ruleset {
  const cluster = clusterOf({
    services: [
      {
        metadata: { namespace: 'shop', name: 'web' },
        spec: {
          clusterIP: '10.96.0.1',
          ports: [
            { protocol: 'TCP', port: 80 },
            { name: 'q', protocol: 'UDP', port: 81 },
          ],
        },
      },
      {
        metadata: { namespace: 'shop', name: 'none' },
        spec: { clusterIP: '10.96.0.2', ports: [{ protocol: 'SCTP', port: 7 }] },
      },
    ],
    slices: [
      {
        metadata: { namespace: 'shop', name: 'web', labels: { 'kubernetes.io/service-name': 'web' } },
        addressType: 'IPv4',
        endpoints: endpoints.map(endpoint),
        ports: [{ protocol: 'TCP', port: 8080 }],
      },
    ],
    nodes: [
      { metadata: { name: 'h1' }, spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] } },
      { metadata: { name: 's1' }, spec: { podCIDRs: ['10.244.2.0/24'] } },
    ],
    nodePools: [],
    gateways: [],
  })
  return rulesetOf(cluster, 4, {
    here: hereOf(cluster, 'h1'),
    sources: source === undefined ? [] : [{ family: 4, address: source }],
  })
}

export const takeover = { family: 4, clusterIp: '10.96.0.10', to: '169.254.20.53' } as const
