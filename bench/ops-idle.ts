// What does an idle session cost the relay, how soon are all back after it is killed, and what do streams that come and go leave
// behind? The relay is the whole daemon; agents dial real sessions, with certificates of their own, from a few processes.

import { setTimeout as pause } from 'node:timers/promises'
import { until } from '../test/lib/netns.ts'
import { processCpuMs } from './harness/cpu.ts'
import type { Finding } from './harness/findings.ts'
import { footprint, openOpsWorld, PORTS, tcpMemoryBytes, type OpsWorld } from './harness/ops-world.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const AGENTS_PER_ROUND = 1_000
const PROCESSES = 4
const CONNECT_TIMEOUT_MS = 240_000
const SETTLE_MS = 25_000
const IDLE_MS = 30_000
const MOST_PER_AGENT_BYTES = 40_000
/** Two times this, after as many before: what code and heaps grow by at first is no leak. */
const CHURN = { count: 5_000, atOnce: 32 }
const CHURN_BATCHES = 4
/** Of the nodes that streams are opened to: each may be dialled so often. */
const CHURN_NODES = 200
const COUNTED = (CHURN_BATCHES / 2) * CHURN.count
/** Of the questions that the bench itself asks. */
const MOST_DESCRIPTORS = 2
const COLLECT_MS = 2_000
const MOST_LEFT_BYTES = 8 * 1024 * 1024

export const question: Study = {
  kind: 'study',
  text: 'What does an idle session of an agent cost the relay, and how soon are all back after it is killed?',
  rounds: 10,
  run,
}

/** @param options each round stands for 1,000 agents. */
async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const count = rounds * AGENTS_PER_ROUND
  await using world = await openOpsWorld()
  const processes = await Promise.all(Array.from({ length: PROCESSES }, () => world.startAgents([])))
  const names = processes.map((_, part) => Array.from({ length: count / PROCESSES }, (_each, i) => `edge-${part}-${i}`))
  await Promise.all(processes.map((process, part) => process.prepare(names[part]!)))
  progress(`${count} certificates are issued`)
  const pid = world.relayPid()
  const empty = { bytes: footprint(pid).bytes, kernel: await tcpMemoryBytes(world.cloud) }
  const startMs = performance.now()
  await Promise.all(processes.map((process, part) => process.start(names[part]!)))
  await untilThere(world, count, progress)
  const firstMs = performance.now() - startMs
  progress(`${count} sessions after ${(firstMs / 1000).toFixed(1)} s`)
  await pause(SETTLE_MS, undefined, { signal })
  const full = { bytes: footprint(pid).bytes, kernel: await tcpMemoryBytes(world.cloud) }
  const perAgent = (full.bytes - empty.bytes) / count
  progress(`${(perAgent / 1000).toFixed(1)} kB for each on the relay`)
  const before = { cpuMs: processCpuMs(pid), atMs: performance.now() }
  await pause(IDLE_MS, undefined, { signal })
  const idle = (processCpuMs(pid) - before.cpuMs) / (performance.now() - before.atMs)

  const nodes = names.flat().filter((_, i) => i % Math.ceil(count / CHURN_NODES) === 0)
  const paths = nodes.map((node) => `${node}:${PORTS.echo}`)
  const sides = [pid, ...processes.map((process) => process.pid)]
  let failed = 0
  const kept: number[] = []
  const looks: (readonly ReturnType<typeof footprint>[])[] = []
  for (let batch = 1; batch <= CHURN_BATCHES; batch++) {
    const done = await world.client.churn({ path: world.socket, paths, ...CHURN })
    if (done.failed > 0) progress(`${done.failed} streams failed: ${done.why}`)
    failed += done.failed
    await until('all streams are closed', CONNECT_TIMEOUT_MS, async () => (await streamsOf(world, processes)) === 0)
    await pause(SETTLE_MS / 5, undefined, { signal })
    // What V8 keeps for the next such load, and has not looked at yet, is no leak.
    kept.push(footprint(pid).bytes)
    world.collectRelay()
    await Promise.all(processes.map((process) => process.collect()))
    await pause(COLLECT_MS, undefined, { signal })
    looks.push(sides.map(footprint))
  }
  const [atRest, atEnd] = [looks[CHURN_BATCHES / 2 - 1]!, looks.at(-1)!]
  const left = atEnd.map(({ bytes, descriptors }, i) => ({
    bytes: bytes - atRest[i]!.bytes,
    descriptors: descriptors - atRest[i]!.descriptors,
  }))

  await world.killRelay()
  await pause(1_000)
  const againMs = performance.now()
  await world.startRelay()
  const listensMs = performance.now() - againMs
  await untilThere(world, count, progress)
  const backMs = performance.now() - againMs
  progress(`all are back ${(backMs / 1000).toFixed(1)} s after the start of the relay`)
  await pause(SETTLE_MS, undefined, { signal })
  const restarted = footprint(world.relayPid()).bytes - empty.bytes
  const missing = count - (await sessionsOf(world))
  return {
    findings: [
      {
        ...{ name: 'ops.idle.memory', title: `idle: memory of the relay for each of ${count} agents`, unit: 'bytes' },
        value: perAgent,
        bound: { of: 'value', is: 'at most', limit: MOST_PER_AGENT_BYTES },
      },
      {
        ...{ name: 'ops.idle.memoryAgain', title: 'idle: the same after a restart of the relay', unit: 'bytes' },
        value: restarted / count,
        bound: { of: 'value', is: 'at most', limit: MOST_PER_AGENT_BYTES },
      },
      {
        ...{ name: 'ops.idle.kernel', title: 'idle: beside it, buffers of TCP for each', unit: 'bytes' },
        value: (full.kernel - empty.kernel) / count,
      },
      { name: 'ops.idle.cpu', title: 'idle: CPU of the relay', unit: '% of a core', value: idle * 100 },
      { name: 'ops.idle.first', title: 'idle: until all had come', unit: 'ms', value: firstMs },
      { name: 'ops.idle.back', title: 'idle: until all were back after kill -9', unit: 'ms', value: backMs },
      {
        ...{ name: 'ops.idle.lost', title: 'idle: not back', unit: 'agents', value: missing },
        bound: { of: 'value', is: 'at most', limit: 0 },
      },
      {
        ...{
          name: 'ops.churn.failed',
          title: `of ${CHURN_BATCHES * CHURN.count} streams, failed`,
          unit: 'streams',
          value: failed,
        },
        bound: { of: 'value', is: 'at most', limit: 0 },
      },
      {
        ...{ name: 'ops.churn.descriptors', title: `${COUNTED} streams: descriptors left`, unit: 'descriptors' },
        value: Math.max(...left.map(({ descriptors }) => descriptors)),
        bound: { of: 'value', is: 'at most', limit: MOST_DESCRIPTORS },
      },
      leftFinding('relay', 'the relay', [left[0]!]),
      leftFinding('agent', 'the agents', left.slice(1)),
      {
        ...{ name: 'ops.churn.kept', title: 'under such a load the relay keeps, until V8 collects', unit: 'MB' },
        value: (kept.at(-1)! - atEnd[0]!.bytes) / 1e6,
      },
    ],
    notes: [
      `ops: ${count} agents in ${PROCESSES} processes on the machine of the relay; memory is anonymous, over that of the relay without sessions, ${SETTLE_MS / 1000} s after the last came; the relay listened ${(listensMs / 1000).toFixed(1)} s after its start; ${COUNTED} streams to ${CHURN_NODES} nodes, after as many before; after each both sides are looked at once garbage was collected`,
    ],
  }
}

/** Of the process that keeps the most. */
const leftFinding = (name: string, title: string, left: readonly { readonly bytes: number }[]): Finding => ({
  ...{ name: `ops.churn.${name}`, title: `${COUNTED} streams: ${title}`, unit: 'MB' },
  value: Math.max(...left.map(({ bytes }) => bytes)) / 1e6,
  bound: { of: 'value', is: 'at most', limit: MOST_LEFT_BYTES / 1e6 },
})

const sessionsOf = async ({ relayStatus }: OpsWorld): Promise<number> =>
  (await relayStatus()).sessions.filter(({ kind }) => kind === 'ops').length

async function untilThere(world: OpsWorld, count: number, progress: (line: string) => void): Promise<void> {
  let toldMs = performance.now()
  for (const endMs = performance.now() + CONNECT_TIMEOUT_MS; ;) {
    const there = await sessionsOf(world).catch(() => 0)
    if (there >= count) return
    if (performance.now() > endMs) throw new Error(`${there} of ${count} sessions after ${CONNECT_TIMEOUT_MS / 1000} s`)
    if (performance.now() - toldMs > 10_000) {
      toldMs = performance.now()
      progress(`${there} of ${count} sessions`)
    }
    // What is asked costs the relay a list of all.
    await pause(1_000)
  }
}

async function streamsOf(
  { relayStatus }: OpsWorld,
  processes: readonly { readonly streams: () => Promise<number> }[],
): Promise<number> {
  const counts = await Promise.all(processes.map((process) => process.streams()))
  return (await relayStatus()).ops!.streams + counts.reduce((sum, streams) => sum + streams, 0)
}
