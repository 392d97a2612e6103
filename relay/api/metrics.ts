// The metrics API (metrics.k8s.io/v1beta1) that kubectl top asks: what nodes and pods use now, by their kubelets'
// /stats/summary. A real cluster has metrics-server for it.

import type { KubernetesObject, ObjectMeta, Pod } from '../../lib/k8s/objects.ts'
import { labelPredicate } from './selectors.ts'

export const METRICS_GROUP = 'metrics.k8s.io'
export const METRICS_VERSION = `${METRICS_GROUP}/v1beta1`

export type MetricsRequest = {
  readonly resource: 'nodes' | 'pods'
  /** `''` for all. */
  readonly namespace: string
  readonly name: string | undefined
  readonly labelSelector: string
}
export type Usage = { readonly nanoCores: number; readonly bytes: number }
/** What a kubelet says. */
export type NodeUsage = {
  readonly at: string
  readonly node: Usage
  readonly pods: readonly {
    readonly namespace: string
    readonly name: string
    readonly containers: readonly { readonly name: string; readonly usage: Usage }[]
  }[]
}

const PATH = /^\/apis\/metrics\.k8s\.io\/v1beta1\/(?:(nodes)|(?:namespaces\/([^/]+)\/)?(pods))(?:\/([^/]+))?$/
/** Over which a kubelet averages, near enough: it does not say. */
const WINDOW = '15s'
const PODS_MAX = 1_000
const CONTAINERS_MAX = 100

/** @param target path and query. */
export function parseMetricsRequest(target: string): MetricsRequest | undefined {
  const url = URL.parse(`http://relay${target}`)
  const [, nodes, namespace = '', , name] = PATH.exec(url?.pathname ?? '') ?? []
  if (url === null || !PATH.test(url.pathname)) return undefined
  const labelSelector = url.searchParams.get('labelSelector') ?? ''
  return { resource: nodes === undefined ? 'pods' : 'nodes', namespace, name, labelSelector }
}

/** What is asked for among objects of the resource. @throws SelectorError */
export function chosen<T extends KubernetesObject>(objects: readonly T[], request: MetricsRequest): readonly T[] {
  const { namespace, name, labelSelector, resource } = request
  const fits = labelPredicate(labelSelector) ?? (() => true)
  return objects.filter(
    (object) =>
      (name === undefined || object.metadata?.name === name) &&
      (resource === 'nodes' || namespace === '' || object.metadata?.namespace === namespace) &&
      fits(object),
  )
}

/** Reads /stats/summary; what is not there counts as nothing. @returns undefined for what is none. */
export function readSummary(text: string): NodeUsage | undefined {
  let summary: Summary | null
  try {
    summary = JSON.parse(text) as Summary | null
  } catch {
    return undefined
  }
  const at = summary?.node?.cpu?.time
  if (summary === null || typeof at !== 'string' || Number.isNaN(Date.parse(at))) return undefined
  const pods = Array.isArray(summary.pods) ? summary.pods.slice(0, PODS_MAX) : []
  return {
    at,
    node: usageOf(summary.node),
    pods: pods.map(({ podRef, containers }) => ({
      namespace: String(podRef?.namespace ?? ''),
      name: String(podRef?.name ?? ''),
      containers: (Array.isArray(containers) ? containers.slice(0, CONTAINERS_MAX) : []).map((container) => ({
        name: String(container?.name ?? ''),
        usage: usageOf(container),
      })),
    })),
  }
}

type Stats = {
  readonly cpu?: { time?: unknown; usageNanoCores?: unknown }
  readonly memory?: { workingSetBytes?: unknown }
}
type Summary = {
  readonly node?: Stats
  readonly pods?: readonly {
    readonly podRef?: { readonly name?: unknown; readonly namespace?: unknown }
    readonly containers?: readonly (Stats & { readonly name?: unknown })[]
  }[]
}

const usageOf = (stats: Stats | undefined): Usage => ({
  nanoCores: count(stats?.cpu?.usageNanoCores),
  bytes: count(stats?.memory?.workingSetBytes),
})
const count = (value: unknown): number =>
  typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.round(value) : 0

const quantities = ({ nanoCores, bytes }: Usage) => ({ cpu: `${nanoCores}n`, memory: `${Math.ceil(bytes / 1024)}Ki` })

export function nodeMetrics({ metadata }: KubernetesObject, { at, node }: NodeUsage): object {
  return {
    kind: 'NodeMetrics',
    apiVersion: METRICS_VERSION,
    metadata: metadataOf(metadata),
    timestamp: at,
    window: WINDOW,
    usage: quantities(node),
  }
}

/** @returns undefined where the kubelet says nothing of the pod. */
export function podMetrics({ metadata }: Pod, { at, pods }: NodeUsage): object | undefined {
  const pod = pods.find(({ namespace, name }) => name === metadata?.name && namespace === metadata.namespace)
  if (pod === undefined) return undefined
  return {
    kind: 'PodMetrics',
    apiVersion: METRICS_VERSION,
    metadata: metadataOf(metadata),
    timestamp: at,
    window: WINDOW,
    containers: pod.containers.map(({ name, usage }) => ({ name, usage: quantities(usage) })),
  }
}

const metadataOf = ({ name, namespace, labels }: ObjectMeta = {}) => ({
  name,
  ...(namespace !== undefined && { namespace }),
  ...(labels !== undefined && { labels }),
})

export const metricsList = (resource: MetricsRequest['resource'], items: readonly object[]): object => ({
  kind: resource === 'nodes' ? 'NodeMetricsList' : 'PodMetricsList',
  apiVersion: METRICS_VERSION,
  metadata: {},
  items,
})
