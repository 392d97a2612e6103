// What do 50 readers that stall and 50 uploads whose target does cost an exec beside them, and the relay? A round takes the exec's
// round trips alone, beside them, and alone again; equal sides are the two alone.

import { setTimeout as pause } from 'node:timers/promises'
import { processCpuMs } from './harness/cpu.ts'
import { compareTriples, triplesOf, type Around } from './harness/findings.ts'
import { footprint, NODE, openOpsWorld, PORTS, untilClosed } from './harness/ops-world.ts'
import type { Way } from './harness/ops-load-client.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { percentile } from './harness/statistics.ts'

const STALLED = 50
const TRIPS = { count: 1_500, gapMs: 1 }
const WARM_UP_ROUNDS = 1
const MOST_SLOWER = 1.3
const MOST_GROWTH_BYTES = 16 * 1024 * 1024
/** All is full when the relay has had next to nothing to do for so long. */
const QUIET_MS = 500
const QUIET_CPU_MS = 20
const QUIET_TIMEOUT_MS = 30_000

export const question: Study = {
  kind: 'study',
  text: `What do ${STALLED} readers that stall, and ${STALLED} uploads whose target does, cost an exec beside them?`,
  rounds: 9,
  run,
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  await using world = await openOpsWorld()
  const agent = await world.startAgents([NODE])
  const wayTo = (port: number): Way => ({ path: world.socket, connect: `${NODE}:${port}` })
  const trips = async (): Promise<Trips> => {
    const times = await world.client.trips({ ...wayTo(PORTS.echo), ...TRIPS })
    return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
  }
  const pids = { relay: world.relayPid(), agent: agent.pid }
  await trips()
  await trips()
  await untilQuiet(pids.relay)
  const start = { relay: footprint(pids.relay).bytes, agent: footprint(pids.agent).bytes }
  const grown = { relay: 0, agent: 0 }
  const rows: Around<Trips>[] = []
  for (let round = 1 - WARM_UP_ROUNDS; round <= rounds; round++) {
    signal.throwIfAborted()
    const before = await trips()
    const groups = [
      await world.client.dial({ ...wayTo(PORTS.pour), count: STALLED, use: 'stall' }),
      await world.client.dial({ ...wayTo(PORTS.deaf), count: STALLED, use: 'write' }),
    ]
    await untilQuiet(pids.relay)
    for (const name of ['relay', 'agent'] as const)
      grown[name] = Math.max(grown[name], footprint(pids[name]).bytes - start[name])
    const value = await trips()
    for (const group of groups) await world.client.close(group)
    // What was uploaded waits for its target, as long as that is there.
    await world.target.hangUp()
    await untilClosed(world)
    await untilQuiet(pids.relay)
    const after = await trips()
    const text = [before, value, after].map(({ p99 }) => p99.toFixed(2)).join(', ')
    progress(`round ${round} of ${rounds}: p99 ${text} ms; relay +${(grown.relay / 2 ** 20).toFixed(1)} MiB`)
    if (round >= 1) rows.push({ before, value, after })
  }
  return {
    findings: [
      {
        ...{ name: 'ops.stalled.p99', title: 'stalled: round trip of an exec beside, p99', unit: 'ms' },
        ...compareTriples(triplesOf(rows, ({ p99 }) => p99)),
        bound: { of: 'ratio', is: 'at most', limit: MOST_SLOWER },
      },
      {
        ...{ name: 'ops.stalled.p50', title: 'stalled: round trip of an exec beside, p50', unit: 'ms' },
        ...compareTriples(triplesOf(rows, ({ p50 }) => p50)),
      },
      {
        ...{ name: 'ops.stalled.relay', title: 'stalled: growth of the relay', unit: 'MB' },
        value: grown.relay / 1e6,
        bound: { of: 'value', is: 'at most', limit: MOST_GROWTH_BYTES / 1e6 },
      },
      {
        ...{ name: 'ops.stalled.agent', title: 'stalled: growth of the agent', unit: 'MB' },
        value: grown.agent / 1e6,
      },
    ],
    notes: [
      `ops: beside ${STALLED} streams from the node that nobody reads and ${STALLED} to it whose target does not; ${rounds} rounds of ${TRIPS.count} round trips of a byte; growth is anonymous memory over that before any stalled, the most of all rounds`,
    ],
  }
}

type Trips = { readonly p50: number; readonly p99: number }

async function untilQuiet(pid: number): Promise<void> {
  const endMs = performance.now() + QUIET_TIMEOUT_MS
  for (let before = processCpuMs(pid); ;) {
    await pause(QUIET_MS)
    const now = processCpuMs(pid)
    if (now - before <= QUIET_CPU_MS) return
    if (performance.now() > endMs) throw new Error('the relay does not come to rest')
    before = now
  }
}
