// How fast is a stream through relay and agent, next to the same two hops through HAProxy with TLS, and what does a round trip
// of 100 ms leave of it? Both go from a Unix socket in the cloud over TLS with certificates on both sides to TCP at the
// node, between the same namespaces. A round runs HAProxy, ours and HAProxy again; equal sides are the two of HAProxy. Where
// $KONNECTIVITY has konnectivity's programs it stands in HAProxy's place.

import { processCpuMs } from './harness/cpu.ts'
import { compareTriples, triplesOf, type Around, type Finding } from './harness/findings.ts'
import { startHaproxy } from './harness/haproxy.ts'
import { startKonnectivity } from './harness/konnectivity.ts'
import { NODE, openOpsWorld, PORTS, untilClosed, type Hops, type OpsWorld } from './harness/ops-world.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const STREAMS = [1, 32] as const
const DIRECTIONS = ['down', 'up'] as const
const RATE = { skipMs: 400, ms: 1_500 }
const WARM_UP_ROUNDS = 1
const LEAST_OF_HAPROXY = 0.7
const LEAST_OF_KONNECTIVITY = 1
const RTT_MS = 100
/** Its windows grow from 256 KiB first. */
const FAR_RATE = { skipMs: 4_000, ms: 4_000 }
const WINDOW_BYTES = 4 * 1024 * 1024
const LEAST_OF_WINDOW = 0.8

export const question: Study = {
  kind: 'study',
  text: 'How fast are streams through relay and agent, next to the same hops by HAProxy with TLS or by konnectivity, and at 100 ms?',
  rounds: 7,
  run,
}

type Direction = (typeof DIRECTIONS)[number]
type Side = Pick<Hops, 'wayTo' | 'pids'>
type Figures = { readonly bitsPerSecond: number; readonly cpuMsPerGigabit: number }

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  await using world = await openOpsWorld()
  const agent = await world.startAgents([NODE])
  const konnectivity = process.env['KONNECTIVITY']
  const peer = await (konnectivity === undefined
    ? startHaproxy(world, [PORTS.pour, PORTS.sink])
    : startKonnectivity(world, konnectivity))
  const ours: Side = {
    wayTo: (port) => ({ path: world.socket, connect: `${NODE}:${port}` }),
    pids: [world.relayPid(), agent.pid],
  }
  const cases = DIRECTIONS.flatMap((direction) => STREAMS.map((streams) => ({ direction, streams })))
  const rows = cases.map(() => [] as Around<Figures>[])
  for (let round = 1 - WARM_UP_ROUNDS; round <= rounds; round++) {
    for (const [index, { direction, streams }] of cases.entries()) {
      signal.throwIfAborted()
      const before = await measure(world, peer, direction, streams)
      const value = await measure(world, ours, direction, streams)
      const after = await measure(world, peer, direction, streams)
      const text = [before, value, after].map(({ bitsPerSecond }) => (bitsPerSecond / 1e6).toFixed(0)).join(', ')
      progress(`round ${round} of ${rounds}, ${streams} ${direction}: ${text} Mbit/s`)
      if (round >= 1) rows[index]!.push({ before, value, after })
    }
  }
  const findings = cases.flatMap(({ direction, streams }, index): readonly Finding[] => {
    const name = `ops.${direction}.${streams}`
    const title = `${streams === 1 ? 'one stream' : `${streams} streams`} ${direction === 'down' ? 'from' : 'to'} the node`
    return [
      {
        ...{ name, title, unit: 'Mbit/s' },
        ...compareTriples(triplesOf(rows[index]!, ({ bitsPerSecond }) => bitsPerSecond / 1e6)),
        bound: {
          of: 'ratio',
          is: 'at least',
          limit: konnectivity === undefined ? LEAST_OF_HAPROXY : LEAST_OF_KONNECTIVITY,
        },
      },
      {
        ...{ name: `${name}.cpu`, title: `${title}: CPU of both hops`, unit: 'ms CPU/Gbit' },
        ...compareTriples(triplesOf(rows[index]!, ({ cpuMsPerGigabit }) => cpuMsPerGigabit)),
      },
    ]
  })

  // TCP remembers what it learnt of a path that was another: the session is a new one.
  await agent.kill()
  await world.delay(RTT_MS / 2)
  const distant = await world.startAgents([NODE])
  const overDistance: Side = { ...ours, pids: [world.relayPid(), distant.pid] }
  const far: Finding[] = []
  for (const direction of DIRECTIONS) {
    signal.throwIfAborted()
    const { bitsPerSecond } = await measure(world, overDistance, direction, 1, FAR_RATE)
    progress(`${RTT_MS} ms, one ${direction}: ${(bitsPerSecond / 1e6).toFixed(0)} Mbit/s`)
    far.push({
      name: `ops.far.${direction}`,
      title: `one stream ${direction === 'down' ? 'from' : 'to'} the node at ${RTT_MS} ms`,
      unit: 'Mbit/s',
      value: bitsPerSecond / 1e6,
      bound: {
        of: 'value',
        is: 'at least',
        limit: (LEAST_OF_WINDOW * WINDOW_BYTES * 8) / (RTT_MS / 1000) / 1e6,
      },
    })
  }
  return {
    findings: [...findings, ...far],
    notes: [
      `ops: ${rounds} rounds of ${RATE.ms} ms; beside ${peer.name} ${peer.version}; equal sides are ${peer.name} before and after; bounds at ${RTT_MS} ms are ${LEAST_OF_WINDOW} of a window of 4 MiB per round trip, TCP's buffers up to 32 MiB`,
    ],
  }
}

async function measure(
  world: OpsWorld,
  { wayTo, pids }: Side,
  direction: Direction,
  streams: number,
  rate = RATE,
): Promise<Figures> {
  const way = wayTo(direction === 'down' ? PORTS.pour : PORTS.sink)
  const group = await world.client.dial({ ...way, count: streams, use: direction === 'down' ? 'read' : 'write' })
  try {
    const receiver = direction === 'down' ? world.client : world.target
    const cpuMs = (): number => pids.reduce((sum, pid) => sum + processCpuMs(pid), 0)
    const [before, startMs] = [cpuMs(), performance.now()]
    const bytesPerSecond = await receiver.bytesPerSecond(rate)
    const gigabits = (bytesPerSecond * 8 * (performance.now() - startMs)) / 1000 / 1e9
    return { bitsPerSecond: bytesPerSecond * 8, cpuMsPerGigabit: (cpuMs() - before) / gigabits }
  } finally {
    await world.client.close(group)
    await untilClosed(world)
  }
}
