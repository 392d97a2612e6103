// What does the mesh cost on the direct path, next to WireGuard set up by hand with the same MTU and hops? Three labs of one
// plan run side by side: in one Fulmar joins the pools; in two nothing of ours runs, and wg and ip do what a person would
// type. Pods talk by their own addresses, through the same routers with the same rules. A round measures by hand, through
// the mesh and by hand again in the other lab, so that the two labs by hand say what the machine makes of equal sides:
// throughput one after the other, and pings to all three in turn, since a busy moment then meets all three.

import { setTimeout as pause } from 'node:timers/promises'
import { openLab, type Lab } from '../test/lab/lab.ts'
import { compareTriples, type Around, type Triple } from './harness/findings.ts'
import { untilOn } from './harness/paths.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { percentile } from './harness/statistics.ts'
import { trafficOn, type Traffic } from './harness/traffic-client.ts'
import { joinByHand } from './harness/wireguard-by-hand.ts'

const CLIENT = 'a1-client'
const SERVER = 'b1-shop'
const PORT = 41_500
const BULK = { skipMs: 500, ms: 2_000 }
const PINGS = { perSecond: 100, ms: 6_000, bytes: 64 }
/** Between a ping to one lab and one to the next: an answer is there by then. */
const TURN_MS = 1_000 / PINGS.perSecond / 3
const WARM_UP_ROUNDS = 1

export const question: Study = {
  kind: 'study',
  text: 'What does the mesh cost on the direct path, next to WireGuard set up by hand?',
  rounds: 12,
  run,
}

type Side = { readonly client: Traffic; readonly server: Traffic; readonly address: string }

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  await using mesh = await open('benchmesh', 'all')
  await using handA = await open('benchhanda', 'hosts')
  await using handB = await open('benchhandb', 'hosts')
  const sides = {
    before: await prepare(handA),
    value: await prepare(mesh),
    after: await prepare(handB),
  }
  const interest = () => sides.value.client.ping({ address: sides.value.address, port: PORT, ...PINGS, ms: 20 })
  const implementation = await untilOn(mesh, ['a', 'b'], 'direct', interest, signal)
  progress(`direct; WireGuard by ${implementation} everywhere`)
  for (const lab of [handA, handB]) await joinByHand(lab, 'a1', 'b1', implementation)

  const throughput: Triple[] = []
  const rtt: Triple[] = []
  for (let round = 1 - WARM_UP_ROUNDS; round <= rounds; round++) {
    signal.throwIfAborted()
    const rtts = await pingInTurn(sides)
    const before = await throughputOf(sides.before)
    const value = await throughputOf(sides.value)
    const after = await throughputOf(sides.after)
    if (round < 1) continue
    throughput.push({ before, value, after })
    rtt.push(rtts)
    progress(`round ${round} of ${rounds}: ${text(throughput.at(-1)!)} Mbit/s, ${text(rtt.at(-1)!, 3)} ms`)
  }
  return {
    findings: [
      {
        name: 'directThroughput',
        title: 'direct: TCP throughput',
        unit: 'Mbit/s',
        ...compareTriples(throughput),
        bound: { of: 'ratio', is: 'at least', limit: 0.95 },
      },
      {
        name: 'directRtt',
        title: 'direct: RTT, p50',
        unit: 'ms',
        ...compareTriples(rtt),
        bound: { of: 'ratio', is: 'at most', limit: 1.05 },
      },
    ],
    notes: [
      `direct: beside WireGuard by hand (${implementation}, MTU 1380 on both), ${rounds} rounds of hand, mesh, hand; equal sides are the two labs by hand${implementation === 'wireguard-go' ? '; the mesh’s has niceness −10, theirs 0' : ''}`,
    ],
  }

  function open(id: string, until: 'all' | 'hosts'): Promise<Lab> {
    const nat = new Map([['a', 'none'] as const, ['b', 'none'] as const])
    const options = { id, pools: ['a', 'b'], nodes: 1, nat, until }
    return openLab(options, { signal, progress: (line) => progress(`${id}: ${line}`) })
  }
}

async function prepare(lab: Lab): Promise<Side> {
  const [client, server] = await Promise.all([trafficOn(lab, CLIENT), trafficOn(lab, SERVER)])
  await Promise.all([server.sink(PORT), server.echo(PORT)])
  return { client, server, address: lab.topology.pods.find(({ host }) => host === SERVER)!.addresses[0]! }
}

/** RTT, p50, ms. */
async function pingInTurn({ before, value, after }: Around<Side>): Promise<Triple> {
  const [first, second, third] = await Promise.all(
    [before, value, after].map(async ({ client, address }, index) => {
      await pause(index * TURN_MS)
      const { rttsMs } = await client.ping({ address, port: PORT, ...PINGS })
      return percentile(rttsMs, 0.5)
    }),
  )
  return { before: first!, value: second!, after: third! }
}

/** Mbit/s of TCP. */
async function throughputOf({ client, server, address }: Side): Promise<number> {
  const [bytesPerSecond] = await Promise.all([
    server.bytesPerSecond(BULK),
    client.bulk({ address, port: PORT, ms: BULK.skipMs + BULK.ms }),
  ])
  return (bytesPerSecond * 8) / 1e6
}

const text = ({ before, value, after }: Triple, digits = 0): string =>
  [before, value, after].map((number) => number.toFixed(digits)).join(', ')
