// The cluster that every kind of service path holds: the service that is measured, and so many others that the tables
// have the size of a real cluster's.

import type { ClusterObjects } from '../../agent/cluster.ts'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'
import { LABEL_NODE_POOL } from '../../lib/k8s/pools.ts'

/** Beside the one that is measured. */
export const OTHER_SERVICES = 1_000
export const NODE = 'h1'
/** Of all pods, and of all services. */
export const POD_CIDR = '10.244.0.0/15'
export const SERVICE_CIDR = '10.96.0.0/16'
/** The measured service; its endpoints run on another node of the same pool. */
export const SERVICE = { namespace: 'bench', name: 'measured', clusterIp: '10.96.0.1' } as const
export const ENDPOINTS: readonly string[] = ['10.244.2.2', '10.244.2.3', '10.244.2.4']
/** What answers each message with itself, and what takes all that it gets. */
export const PORTS = {
  echo: { service: 80, endpoint: 8080 },
  sink: { service: 81, endpoint: 8081 },
} as const
export type PortName = keyof typeof PORTS

const ENDPOINTS_EACH = ENDPOINTS.length
const POOL = { [LABEL_NODE_POOL]: 'site' }

/** @param podCidr of the node that calls. */
export function clusterObjects(podCidr: string): ClusterObjects {
  const others = Array.from({ length: OTHER_SERVICES }, (_, i) => i + 1)
  return {
    services: [
      serviceOf(SERVICE.name, SERVICE.clusterIp, ['echo', 'sink']),
      ...others.map((i) => serviceOf(`other-${i}`, `10.96.${1 + (i >> 8)}.${i & 255}`, ['echo'])),
    ],
    slices: [
      sliceOf(SERVICE.name, 'h2', ENDPOINTS, ['echo', 'sink']),
      ...others.map((i) => sliceOf(`other-${i}`, 'h3', otherEndpoints(i), ['echo'])),
    ],
    nodes: [
      { metadata: { name: NODE, labels: POOL }, spec: { podCIDRs: [podCidr] } },
      { metadata: { name: 'h2', labels: POOL }, spec: { podCIDRs: ['10.244.2.0/24'] } },
      { metadata: { name: 'h3', labels: POOL }, spec: { podCIDRs: ['10.245.0.0/16'] } },
    ],
    nodePools: [],
    gateways: [],
  }
}

const otherEndpoints = (service: number): readonly string[] =>
  Array.from({ length: ENDPOINTS_EACH }, (_, i) => {
    const number = service * ENDPOINTS_EACH + i
    return `10.245.${number >> 8}.${number & 255}`
  })

const serviceOf = (name: string, clusterIP: string, ports: readonly PortName[]): Service => ({
  metadata: { namespace: SERVICE.namespace, name },
  spec: { clusterIP, ports: ports.map((name) => ({ name, protocol: 'TCP', port: PORTS[name].service })) },
})

const sliceOf = (
  name: string,
  nodeName: string,
  addresses: readonly string[],
  ports: readonly PortName[],
): EndpointSlice => ({
  metadata: { namespace: SERVICE.namespace, name, labels: { 'kubernetes.io/service-name': name } },
  addressType: 'IPv4',
  endpoints: addresses.map((address) => ({ addresses: [address], nodeName })),
  ports: ports.map((name) => ({ name, protocol: 'TCP', port: PORTS[name].endpoint })),
})
