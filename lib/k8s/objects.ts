// The Kubernetes objects that Fulmar reads, by group, version and plural name (types only; nothing is validated here).

import type { Lease } from 'kubernetes-types/coordination/v1.js'
import type { Node, Pod, Service } from 'kubernetes-types/core/v1.js'
import type { EndpointSlice } from 'kubernetes-types/discovery/v1.js'
import type { ObjectMeta } from 'kubernetes-types/meta/v1.js'

export type { Endpoint, EndpointPort } from 'kubernetes-types/discovery/v1.js'
export type { ObjectMeta } from 'kubernetes-types/meta/v1.js'
export type { EndpointSlice, Lease, Node, Pod, Service }

export type KubernetesObject = {
  readonly apiVersion?: string
  readonly kind?: string
  readonly metadata?: ObjectMeta
}

/** OpenYurt's NodePool, the fields that matter here (apps.openyurt.io/v1beta2). */
export type NodePool = KubernetesObject & {
  readonly spec?: { readonly type?: string; readonly interConnectivity?: boolean }
  readonly status?: { readonly nodes?: readonly string[] }
}

/** OpenYurt's Raven Gateway (raven.openyurt.io/v1beta1), named like the pool that it is for; read by raven-gateway.ts. */
export type RavenGateway = KubernetesObject & {
  readonly spec?: {
    readonly exposeType?: string
    readonly endpoints?: readonly RavenEndpoint[]
    readonly tunnelConfig?: { readonly Replicas?: number }
  }
  readonly status?: { readonly activeEndpoints?: readonly RavenEndpoint[] }
}
export type RavenEndpoint = {
  readonly nodeName: string
  readonly type?: string
  readonly port?: number
  readonly underNAT?: boolean
  readonly natType?: string
  readonly publicIP?: string
  readonly publicPort?: number
}

export type Resource<T extends KubernetesObject = KubernetesObject> = {
  /** `''` for the core group. */
  readonly group: string
  readonly version: string
  /** Those that a server may have instead, newest first, and that read the same. */
  readonly olderVersions?: readonly string[]
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
  /** Carries the object's type; never present. */
  readonly objectType?: T
}

export const NODES: Resource<Node> = { group: '', version: 'v1', plural: 'nodes', kind: 'Node', namespaced: false }
export const SERVICES: Resource<Service> = {
  group: '',
  version: 'v1',
  plural: 'services',
  kind: 'Service',
  namespaced: true,
}
export const PODS: Resource<Pod> = { group: '', version: 'v1', plural: 'pods', kind: 'Pod', namespaced: true }
export const ENDPOINT_SLICES: Resource<EndpointSlice> = {
  group: 'discovery.k8s.io',
  version: 'v1',
  plural: 'endpointslices',
  kind: 'EndpointSlice',
  namespaced: true,
}
export const LEASES: Resource<Lease> = {
  group: 'coordination.k8s.io',
  version: 'v1',
  plural: 'leases',
  kind: 'Lease',
  namespaced: true,
}
export const NODE_POOLS: Resource<NodePool> = {
  group: 'apps.openyurt.io',
  version: 'v1beta2',
  olderVersions: ['v1beta1', 'v1alpha1'],
  plural: 'nodepools',
  kind: 'NodePool',
  namespaced: false,
}
export const RAVEN_GATEWAYS: Resource<RavenGateway> = {
  group: 'raven.openyurt.io',
  version: 'v1beta1',
  plural: 'gateways',
  kind: 'Gateway',
  namespaced: false,
}
