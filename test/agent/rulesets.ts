// A small ruleset for tests: a service with endpoints, one without, one of each kind of address, and a takeover of the
// cluster DNS.

import { balanceOf } from '../../agent/balance.ts'
import { clusterOf } from '../../agent/cluster.ts'
import type { Loaded } from '../../agent/nft-changes.ts'
import { renderTable } from '../../agent/nft-text.ts'
import { rulesetOf, type Ruleset } from '../../agent/nft.ts'
import { hereOf } from '../../agent/topology.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'

const endpoint = (last: number, nodeName = 'h1') => ({ addresses: [`10.244.1.${last}`], nodeName })
const slice = (name: string, endpoints: EndpointSlice['endpoints']): EndpointSlice => ({
  metadata: { namespace: 'shop', name, labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  endpoints,
  ports: [{ protocol: 'TCP', port: 8080 }],
})

/** A balancer's address with NodePorts, for callers from one prefix, answered by this node's own endpoints. */
export const edge: Service = {
  metadata: { namespace: 'shop', name: 'edge' },
  spec: {
    type: 'LoadBalancer',
    clusterIP: '10.96.0.3',
    externalTrafficPolicy: 'Local',
    loadBalancerSourceRanges: ['198.51.100.0/24', '198.51.100.0/25'],
    ports: [{ protocol: 'TCP', port: 80, nodePort: 30080 }],
  },
  status: { loadBalancer: { ingress: [{ ip: '203.0.113.1' }] } },
}
export const sticky: Service = {
  metadata: { namespace: 'shop', name: 'sticky' },
  spec: {
    type: 'NodePort',
    clusterIP: '10.96.0.4',
    sessionAffinity: 'ClientIP',
    ports: [{ protocol: 'TCP', port: 80, nodePort: 30081 }],
  },
}

export type RulesetParts = {
  /** Last numbers of the addresses of `web`; `sticky` has the same. */
  readonly endpoints: readonly number[]
  readonly source?: string | undefined
  /** Besides `web` and one without endpoints. */
  readonly services?: readonly Service[]
}

export function ruleset({ endpoints, source, services = [] }: RulesetParts): Ruleset {
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
      ...services,
    ],
    slices: [
      slice(
        'web',
        endpoints.map((last) => endpoint(last)),
      ),
      slice(
        'sticky',
        endpoints.map((last) => endpoint(last)),
      ),
      slice('edge', [endpoint(4), endpoint(9, 's1')]),
    ],
    nodes: [
      { metadata: { name: 'h1' }, spec: { podCIDRs: ['10.244.1.0/24', 'fd00:244:1::/64'] } },
      { metadata: { name: 's1' }, spec: { podCIDRs: ['10.244.2.0/24'] } },
    ],
    nodePools: [],
    gateways: [],
  })
  const here = hereOf(cluster, 'h1')
  const sources = source === undefined ? [] : [{ family: 4 as const, address: source }]
  return rulesetOf({ cluster, here, balance: balanceOf({ cluster, here }), sources, nodeAddresses: ['192.168.1.1'] }, 4)
}

export const loadedBy = (wanted: Ruleset): Loaded => renderTable(wanted, 'layout-x-1').loaded

export const takeover = { family: 4, clusterIp: '10.96.0.10', to: '169.254.20.53' } as const
