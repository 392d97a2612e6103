// What a node and its pods use, by their cgroup2 groups, as the kubelet's endpoints tell it.

import { readdirSync, readFileSync } from 'node:fs'
import type { KubeletPod, LabPod } from './pods.ts'

export type Usage = {
  readonly cpuSeconds: number
  readonly memoryBytes: number
  /** Processors in use of late. */
  readonly cores: number
}

const PAGE_BYTES = 4096

/** Usage of groups, with rates over the last seconds. */
export class Meter {
  readonly #groups: readonly string[]
  #before: ReadonlyMap<string, Sample> = new Map()
  #latest: ReadonlyMap<string, Sample> = new Map()

  /** @param groups paths in cgroup2. */
  constructor(groups: readonly string[]) {
    this.#groups = groups
    this.sample()
  }

  /** To be called now and then: a rate goes back to the sample before the last. */
  sample(): void {
    this.#before = this.#latest
    this.#latest = new Map(this.#groups.map((group) => [group, { atMs: performance.now(), ...read(group) }]))
  }

  usageOf(group: string): Usage {
    const atMs = performance.now()
    const now = read(group)
    const since = this.#before.get(group) ?? this.#latest.get(group)
    if (since === undefined || atMs - since.atMs < RATE_MIN_MS) return { ...now, cores: 0 }
    return { ...now, cores: Math.max(0, ((now.cpuSeconds - since.cpuSeconds) * 1000) / (atMs - since.atMs)) }
  }
}

type Sample = { readonly atMs: number; readonly cpuSeconds: number }
const RATE_MIN_MS = 100

function read(group: string): Omit<Usage, 'cores'> {
  const cpu = /^usage_usec (\d+)$/m.exec(text(`${group}/cpu.stat`))?.[1] ?? '0'
  const current = text(`${group}/memory.current`)
  const inactive = /^inactive_file (\d+)$/m.exec(text(`${group}/memory.stat`))?.[1] ?? '0'
  const memoryBytes = current === '' ? residentBytes(group) : Math.max(0, Number(current) - Number(inactive))
  return { cpuSeconds: Number(cpu) / 1e6, memoryBytes }
}

/** Where the memory controller is another hierarchy's: what its processes have, theirs alone and shared. */
function residentBytes(group: string): number {
  let sum = 0
  for (const pid of text(`${group}/cgroup.procs`).split('\n'))
    if (pid !== '') sum += Number(text(`/proc/${pid}/statm`).split(' ')[1] ?? 0) * PAGE_BYTES
  for (const entry of directories(group)) sum += residentBytes(`${group}/${entry}`)
  return sum
}

export type NodeStats = {
  readonly node: string
  readonly usage: Usage
  readonly pods: readonly { readonly pod: KubeletPod; readonly usage: Usage }[]
  readonly at: number
}

/** @param root where cgroup2 is mounted. */
export const statsOf = (
  node: string,
  group: string,
  pods: readonly LabPod[],
  root: string,
  meter: Meter,
): NodeStats => ({
  node,
  usage: meter.usageOf(`${root}/${group}`),
  pods: pods.map((pod) => ({ pod, usage: meter.usageOf(`${root}/${pod.cgroup}`) })),
  at: Date.now(),
})

/** `/metrics/resource`, which metrics-server reads. A pod's group is one for all of its containers: the first has it. */
export function resourceMetrics({ usage, pods, at }: NodeStats): string {
  const family = (
    name: string,
    type: string,
    help: string,
    samples: readonly (readonly [labels: string, value: number])[],
  ) => [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} ${type}`,
    ...samples.map(([labels, value]) => `${name}${labels} ${value} ${at}`),
  ]
  const ofPods = (value: (usage: Usage) => number) =>
    pods.map(({ pod, usage: own }) => [podLabels(pod), value(own)] as const)
  const ofContainers = (value: (usage: Usage, pod: KubeletPod) => number) =>
    pods.flatMap(({ pod, usage: own }) => {
      const [first] = pod.containers
      return first === undefined ? [] : [[containerLabels(pod, first.spec.name), value(own, pod)] as const]
    })
  const cpu = (own: Usage) => own.cpuSeconds
  const memory = (own: Usage) => own.memoryBytes
  return `${[
    family('container_cpu_usage_seconds_total', 'counter', 'CPU time of a container', ofContainers(cpu)),
    family('container_memory_working_set_bytes', 'gauge', 'Working set of a container', ofContainers(memory)),
    family(
      'container_start_time_seconds',
      'gauge',
      'Start of a container since the Unix epoch',
      ofContainers((_, pod) => (pod.containers[0]?.startedAt ?? at) / 1000),
    ),
    family('node_cpu_usage_seconds_total', 'counter', 'CPU time of the node', [['', cpu(usage)]]),
    family('node_memory_working_set_bytes', 'gauge', 'Working set of the node', [['', memory(usage)]]),
    family('pod_cpu_usage_seconds_total', 'counter', 'CPU time of a pod', ofPods(cpu)),
    family('pod_memory_working_set_bytes', 'gauge', 'Working set of a pod', ofPods(memory)),
    [
      '# HELP resource_scrape_error 1 if something could not be read',
      '# TYPE resource_scrape_error gauge',
      'resource_scrape_error 0',
    ],
  ]
    .flat()
    .join('\n')}\n`
}

/** `/stats/summary`. */
export function summary({ node, usage, pods, at }: NodeStats): object {
  const time = new Date(at).toISOString()
  const both = ({ cpuSeconds, memoryBytes, cores }: Usage) => ({
    cpu: { time, usageNanoCores: Math.round(cores * 1e9), usageCoreNanoSeconds: Math.round(cpuSeconds * 1e9) },
    memory: { time, workingSetBytes: memoryBytes },
  })
  return {
    node: { nodeName: node, ...both(usage) },
    pods: pods.map(({ pod, usage: own }) => ({
      podRef: { name: pod.name, namespace: pod.namespace },
      containers: pod.containers.slice(0, 1).map(({ spec }) => ({ name: spec.name, ...both(own) })),
      ...both(own),
    })),
  }
}

const podLabels = ({ namespace, name }: KubeletPod) => `{namespace="${namespace}",pod="${name}"}`
const containerLabels = ({ namespace, name }: KubeletPod, container: string) =>
  `{container="${container}",namespace="${namespace}",pod="${name}"}`

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

function directories(group: string): readonly string[] {
  try {
    return readdirSync(group, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? entry.name : []))
  } catch {
    return []
  }
}
