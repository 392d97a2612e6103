// What nodes use, asked of their kubelets when somebody wants to know: many at a time, each once in a while.

import type { Node, Pod } from '../../lib/k8s/objects.ts'
import { builtIn } from './kinds.ts'
import { KubeletError, type KubeletClient } from './kubelet-client.ts'
import { kubeletOf, type Lookup } from './kubelet.ts'
import { nodeMetrics, podMetrics, readSummary, type NodeUsage } from './metrics.ts'

const AT_ONCE = 32
const TIMEOUT_MS = 10_000
const FRESH_MS = 5_000
const SUMMARY_MAX_BYTES = 8 << 20
const KEPT_MAX = 10_000

export type MetricsClient = {
  /** Nodes that do not answer are left out, but where only one is asked for. @throws KubeletError */
  readonly ofNodes: (nodes: readonly Node[]) => Promise<readonly object[]>
  readonly ofPods: (pods: readonly Pod[], get: Lookup) => Promise<readonly object[]>
}

export function createMetricsClient(kubelets: KubeletClient): MetricsClient {
  const kept = new Map<string, { readonly atMs: number; readonly usage: Promise<NodeUsage> }>()

  const usageOf = (node: Node): Promise<NodeUsage> => {
    const name = node.metadata?.name ?? ''
    const nowMs = performance.now()
    const before = kept.get(name)
    if (before !== undefined && nowMs - before.atMs < FRESH_MS) return before.usage
    const usage = ask(node)
    kept.delete(name)
    kept.set(name, { atMs: nowMs, usage })
    // Whoever asks next may be luckier.
    usage.catch(() => kept.delete(name))
    if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value!)
    return usage
  }

  const ask = async (node: Node): Promise<NodeUsage> => {
    const kubelet = kubeletOf(node)
    const path = '/stats/summary?only_cpu_and_memory=true'
    const call = { kind: 'call', ...kubelet, path, what: `metrics of node ${kubelet.node}`, asStatus: true } as const
    const usage = readSummary(await kubelets.read(call, SUMMARY_MAX_BYTES, AbortSignal.timeout(TIMEOUT_MS)))
    if (usage !== undefined) return usage
    const message = `the kubelet of node ${kubelet.node} says nothing of what it uses`
    throw new KubeletError({ code: 502, reason: 'BadGateway', message })
  }

  const ofEach = async <T>(
    items: readonly T[],
    body: (item: T) => Promise<object | undefined>,
  ): Promise<readonly object[]> => {
    if (items.length === 1) return [(await body(items[0]!)) ?? []].flat()
    const found: object[] = []
    const waiting = [...items]
    const worker = async (): Promise<void> => {
      for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
        const metrics = await body(item).catch(() => undefined)
        if (metrics !== undefined) found.push(metrics)
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    return found
  }

  return {
    ofNodes: (nodes) => ofEach(nodes, async (node) => nodeMetrics(node, await usageOf(node))),
    ofPods: (pods, get) =>
      ofEach(pods, async (pod) => {
        const node = get(builtIn('Node'), '', pod.spec?.nodeName ?? '')
        return node === undefined ? undefined : podMetrics(pod, await usageOf(node as Node))
      }),
  }
}
