// How soon does an agent have very many services in the kernel, and a change of one of them while others change all the time,
// and what does it weigh? A real agent on a node of its own follows an API of the bench's own (harness/churn-api.ts). A
// change moves all endpoints of a service; new connections to it, one after the other, tell when they arrive at the right
// ones: from a process that BPF serves, and from one that is left to nft.

import { loadavg } from 'node:os'
import { setTimeout as pause } from 'node:timers/promises'
import type { Remote } from '../test/lib/netns.ts'
import type { ApiMarks } from './harness/churn-api.ts'
import { nowMs, openChurnNode, type ChurnNode, type RunningAgent } from './harness/churn-node.ts'
import { clusterIpOf, type ChurnSize } from './harness/churn-world.ts'
import type { Finding } from './harness/findings.ts'
import { statusBytes } from './harness/memory.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { medianOf, percentile } from './harness/statistics.ts'

type Case = ChurnSize & {
  readonly name: string
  readonly loadBoundMs?: number
  readonly memoryBoundMb?: number
}
const CASES: readonly Case[] = [
  { name: '1k', services: 1_000, endpoints: 3 },
  { name: '10k', services: 10_000, endpoints: 3 },
  { name: '10kx5', services: 10_000, endpoints: 5, memoryBoundMb: 70 },
  { name: '30k', services: 30_000, endpoints: 3, loadBoundMs: 4_000 },
]
const CHURN_SECONDS = 20
const CHANGES_PER_SECOND = 100
const LATENCY_BOUND_MS = 20
const LOAD_WITHIN_MS = 60_000
/** After the load, and again after the changes, until memory is called idle. */
const SETTLE_MS = 15_000
const MEMORY_SAMPLE_MS = 50

export const question: Study = {
  kind: 'study',
  text: `How soon are services and their changes in the kernel, with ${CHANGES_PER_SECOND} changes a second?`,
  rounds: 3,
  run,
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const findings: Finding[] = []
  const wanted = process.env['CASES']?.split(',')
  for (const each of CASES.filter(({ name }) => wanted?.includes(name) ?? true)) {
    const node = await openChurnNode()
    try {
      findings.push(...(await measure(each, node, rounds, progress, signal)))
    } finally {
      await node.close()
    }
  }
  return {
    findings,
    notes: [
      `churn: ${rounds} cold starts a size, of them the last one for ${CHURN_SECONDS} s with ${CHANGES_PER_SECOND} changes a second; load of the machine ${loadavg()[0]!.toFixed(1)}`,
      'churn: BPF is a process that it serves, nft one that is left to it; "unchanged" is the same look at a service that did not change: what the machine and the prober take by themselves',
      'churn: the API is a process of the bench on the same machine, with lists in pages, managedFields, watches, mTLS',
    ],
  }
}

type Probes = readonly (readonly ['change' | 'same', number | null])[]
type Loaded = {
  readonly agent: RunningAgent
  readonly fullMs: number
  readonly nftMs: number
  readonly bpfMs: number
  readonly askedMs: number
  readonly listedMs: number
  readonly peak: () => Memory
}

async function measure(
  each: Case,
  node: ChurnNode,
  rounds: number,
  progress: StudyOptions['progress'],
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const { name, services, endpoints } = each
  const title = (what: string) => `${services.toLocaleString('en')} × ${endpoints}: ${what}`
  const script = (file: string) => `${import.meta.dirname}/harness/${file}.ts`
  const api = await node.start(script('churn-api'), 'left')
  const port = (await api.call('open', { services, endpoints }, node.pair, node.ca)) as number
  const endpoint = await node.start(script('churn-prober'), 'left')
  await endpoint.call('answer')
  const probers = [await node.start(script('churn-prober'), 'served'), await node.start(script('churn-prober'), 'left')]
  const ports = await Promise.all(probers.map((prober) => prober.call('listen') as Promise<number>))
  const [, left] = probers as [Remote, Remote]

  const load = async (): Promise<Loaded> => {
    signal.throwIfAborted()
    await api.call('marks')
    const agent = node.startAgent(`https://127.0.0.1:${port}`)
    const peak = sampleMemory(agent.pid)
    const [nft, bpf, attached] = await Promise.all([
      left.call('until', clusterIpOf(services - 1), LOAD_WITHIN_MS) as Promise<number | null>,
      agent.logged('BPF serves'),
      agent.logged('the socket load balancer is attached'),
    ])
    if (nft === null) throw new Error(`the last of ${services} services did not answer in ${LOAD_WITHIN_MS} ms`)
    if (Number(attached.fields['places']) < services) throw new Error('BPF does not have all services')
    const { firstMs, listedMs } = (await api.call('marks')) as ApiMarks
    const since = (atMs: number): number => atMs - agent.startedMs
    const loaded = {
      agent,
      fullMs: since(Math.max(nft, bpf.atMs)),
      nftMs: since(nft),
      bpfMs: since(bpf.atMs),
      askedMs: since(firstMs),
      listedMs: since(listedMs),
      peak,
    }
    progress(
      title(
        `full after ${Math.round(loaded.fullMs)} ms: first request ${Math.round(loaded.askedMs)}, last page ${Math.round(loaded.listedMs)}, BPF ${Math.round(loaded.bpfMs)}, nft ${Math.round(loaded.nftMs)}`,
      ),
    )
    return loaded
  }

  const loads: Loaded[] = []
  for (let round = 0; round < rounds; round++) {
    await loads.at(-1)?.agent.kill()
    await node.wipe('all')
    loads.push(await load())
  }
  const last = loads.at(-1)!
  const { agent } = last
  const elements = await node.nftElements('services')
  if (elements !== services) throw new Error(`nft has ${elements} of ${services} services`)
  await pause(SETTLE_MS, undefined, { signal })
  const idle = memoryOf(agent.pid)
  const first = last.peak()
  progress(title(`RssAnon ${mb(idle.anonMb)}, at the most ${mb(first.anonMb)}; changes begin`))

  const during = sampleMemory(agent.pid)
  const [beganMs, beganCpuMs] = [nowMs(), agent.cpuMs()]
  const { changes } = (await api.call('churn', {
    seconds: CHURN_SECONDS,
    perSecond: CHANGES_PER_SECOND,
    probers: ports,
  })) as { changes: number }
  const cpu = (agent.cpuMs() - beganCpuMs) / (nowMs() - beganMs)
  const [bpf, nft] = (await Promise.all(probers.map((prober) => prober.call('take')))) as [Probes, Probes]
  const churned = during()
  await pause(SETTLE_MS, undefined, { signal })
  const after = memoryOf(agent.pid)
  await agent.kill()

  await node.wipe('kernel')
  const cached = await load()
  await cached.agent.kill()
  await Promise.all([api, endpoint, ...probers].map((remote) => remote.kill()))

  const finding = (key: string, what: string, unit: Finding['unit'], value: number, limit?: number): Finding => ({
    name: `${name}${key}`,
    title: title(what),
    unit,
    value,
    ...(limit !== undefined && { bound: { of: 'value', is: 'at most', limit } }),
  })
  const latencies = (key: string, what: string, probes: Probes): readonly Finding[] => {
    const of = (kind: 'change' | 'same') => probes.flatMap(([each, ms]) => (each === kind ? [ms ?? Infinity] : []))
    const [changed, same] = [of('change'), of('same')]
    progress(
      title(
        `${what}: ${changed.length} changes, p50 ${percentile(changed, 0.5).toFixed(1)}, p90 ${percentile(changed, 0.9).toFixed(1)}, p99 ${percentile(changed, 0.99).toFixed(1)}, most ${Math.max(...changed).toFixed(1)} ms; unchanged ${percentile(same, 0.5).toFixed(1)}, ${percentile(same, 0.99).toFixed(1)}`,
      ),
    )
    return [
      finding(`${key}P50`, `change, ${what}, p50`, 'ms', percentile(changed, 0.5)),
      finding(`${key}P99`, `change, ${what}, p99`, 'ms', percentile(changed, 0.99), LATENCY_BOUND_MS),
      finding(`${key}Max`, `change, ${what}, the slowest of ${changed.length}`, 'ms', Math.max(...changed)),
      finding(`${key}SameP50`, `unchanged, ${what}, p50`, 'ms', percentile(same, 0.5)),
      finding(`${key}SameP99`, `unchanged, ${what}, p99`, 'ms', percentile(same, 0.99)),
    ]
  }
  const fulls = loads.map(({ fullMs }) => fullMs)
  const median = (of: (load: Loaded) => number): number => medianOf(loads.map(of)).ratio
  const result = [
    finding(
      'Load',
      `cold start to full load, median of ${rounds}`,
      'ms',
      median(({ fullMs }) => fullMs),
      each.loadBoundMs,
    ),
    finding('LoadMost', 'cold start, the slowest', 'ms', Math.max(...fulls)),
    finding(
      'Asked',
      'of it until the first request',
      'ms',
      median(({ askedMs }) => askedMs),
    ),
    finding(
      'Listed',
      'of it until the last page is sent',
      'ms',
      median(({ listedMs }) => listedMs),
    ),
    finding(
      'LoadBpf',
      'of it until BPF serves',
      'ms',
      median(({ bpfMs }) => bpfMs),
    ),
    finding(
      'LoadNft',
      'of it until nft serves',
      'ms',
      median(({ nftMs }) => nftMs),
    ),
    finding('LoadDisk', 'from the disk, to full load', 'ms', cached.fullMs),
    ...latencies('Bpf', 'BPF', bpf),
    ...latencies('Nft', 'nft', nft),
    finding('Cpu', `processor at ${Math.round(changes / CHURN_SECONDS)} changes/s, with nft`, '% of a core', 100 * cpu),
    finding('Anon', 'RssAnon, idle', 'MB', idle.anonMb, each.memoryBoundMb),
    finding('AnonFirst', 'RssAnon, peak of the first list', 'MB', first.anonMb),
    finding('AnonChurn', 'RssAnon, peak of the changes', 'MB', churned.anonMb),
    finding('AnonAfter', 'RssAnon, idle after the changes', 'MB', after.anonMb, each.memoryBoundMb),
    finding('Hwm', 'all resident memory, peak (VmHWM)', 'MB', after.hwmMb),
  ]
  progress(
    title(
      `CPU ${(100 * cpu).toFixed(0)} %; RssAnon ${mb(churned.anonMb)} at the most during the changes, ${mb(after.anonMb)} after; from disk ${Math.round(cached.fullMs)} ms`,
    ),
  )
  return result
}

type Memory = { readonly anonMb: number; readonly hwmMb: number }

const MB = 2 ** 20
const memoryOf = (pid: number): Memory => ({
  anonMb: statusBytes(pid, 'RssAnon') / MB,
  hwmMb: statusBytes(pid, 'VmHWM') / MB,
})

/** @returns what ends it, with the most that was seen. */
function sampleMemory(pid: number): () => Memory {
  let most: Memory = { anonMb: 0, hwmMb: 0 }
  const look = (): void => {
    try {
      const { anonMb, hwmMb } = memoryOf(pid)
      if (Number.isFinite(anonMb)) most = { anonMb: Math.max(most.anonMb, anonMb), hwmMb: Math.max(most.hwmMb, hwmMb) }
    } catch {
      clearInterval(timer)
    }
  }
  const timer = setInterval(look, MEMORY_SAMPLE_MS).unref()
  return () => {
    clearInterval(timer)
    return most
  }
}

const mb = (value: number): string => `${value.toFixed(1)} MB`
