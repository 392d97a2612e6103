// Kubernetes objects for tests of services: the Service `web` of the namespace `shop`, its slices, and nodes.

import { clusterOf, type Cluster, type ClusterObjects } from '../../agent/cluster.ts'
import type { EndpointSlice, Node, Service } from '../../lib/k8s/objects.ts'

export type Endpoint = NonNullable<EndpointSlice['endpoints']>[number]
export type SlicePart = Partial<EndpointSlice> & { readonly of?: string; readonly name?: string }

export const slice = ({ of = 'web', name = 'slice', ...rest }: SlicePart): EndpointSlice => ({
  metadata: { namespace: 'shop', name, labels: { 'kubernetes.io/service-name': of } },
  addressType: 'IPv4',
  endpoints: [],
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  ...rest,
})

export const service = (
  spec: Service['spec'] = {},
  rest: Partial<Service> & { readonly name?: string } = {},
): Service => {
  const { name = 'web', metadata, ...others } = rest
  return {
    metadata: { namespace: 'shop', name, ...metadata },
    spec: { clusterIP: '10.96.0.1', ports: [{ name: 'http', port: 80, protocol: 'TCP' }], ...spec },
    ...others,
  }
}

export const node = (name: string, pool?: string, zone?: string, addresses: readonly string[] = []): Node => ({
  metadata: {
    name,
    labels: {
      ...(pool !== undefined && { 'apps.openyurt.io/nodepool': pool }),
      ...(zone !== undefined && { 'topology.kubernetes.io/zone': zone }),
    },
  },
  status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
})

export const clusterWith = (objects: Partial<ClusterObjects>): Cluster =>
  clusterOf({ services: [service()], slices: [], nodes: [], nodePools: [], gateways: [], ...objects })

/** An endpoint with the last number of its address, its node, and its state. */
export function endpoint(
  last: number,
  nodeName: string | undefined,
  state: 'ready' | 'draining' | 'starting' | 'gone' = 'ready',
  rest: Partial<Endpoint> & { readonly hints?: unknown } = {},
): Endpoint {
  const conditions = {
    ready: { ready: true, serving: true, terminating: false },
    draining: { ready: false, serving: true, terminating: true },
    starting: { ready: false, serving: false, terminating: false },
    gone: { ready: false, serving: false, terminating: true },
  }[state]
  return {
    addresses: [`10.244.0.${last}`],
    conditions,
    ...(nodeName !== undefined && { nodeName }),
    ...rest,
  } as Endpoint
}
