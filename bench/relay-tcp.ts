// What is relay-tcp good for on a narrow uplink? Site `a` lets nothing out but TCP 443, over a bottleneck of 20 Mbit/s both
// ways. From a pod of it, or to it, a bulk TCP flow takes all that there is, while UDP pings go 20 times a second to the
// same peer and to another one: how much of the link does the bulk get, and how long do the pings wait? Each shape of
// bottleneck is measured in both directions, with the congestion control that Linux comes with for the TCP inside the
// tunnel and the TCP below it, and once with BBR where the kernel has it; each must keep the bounds.

import { openLab, type Lab } from '../test/lab/lab.ts'
import { narrow, type Bottleneck } from './harness/bottleneck.ts'
import { processCpuMs } from './harness/cpu.ts'
import type { Finding } from './harness/findings.ts'
import { untilOn } from './harness/paths.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { mean, percentile } from './harness/statistics.ts'
import { trafficOn, type Traffic } from './harness/traffic-client.ts'

const MEGABITS = 20
type Congestion = 'cubic' | 'bbr'
type Link = { readonly congestion: Congestion; readonly bottleneck: Bottleneck }
const SHORT: Bottleneck = { megabits: MEGABITS, burst: '16kb', latency: '20ms' }
const COMMON: Bottleneck = { megabits: MEGABITS, burst: '32kb', latency: '50ms' }
const BLOATED: Bottleneck = { megabits: MEGABITS, burst: '64kb', latency: '400ms' }
const LINKS: readonly Link[] = [
  { congestion: 'cubic', bottleneck: SHORT },
  { congestion: 'cubic', bottleneck: COMMON },
  { congestion: 'cubic', bottleneck: BLOATED },
  { congestion: 'bbr', bottleneck: COMMON },
]
const PORT = 41_600
/** The start of a TCP flow, with its overshoot, counts for the pings and not for the goodput. */
const BULK = { skipMs: 2_000, ms: 8_000 }
const PINGS = { perSecond: 20, bytes: 100 }
const BASE_MS = 3_000
const LEAST_GOODPUT = 16
const MOST_OVER_BASE_MS = 60

export const question: Study = {
  kind: 'study',
  text: `What is relay-tcp good for over a bottleneck of ${MEGABITS} Mbit/s?`,
  rounds: 2,
  run,
}

const DIRECTIONS = ['up', 'down'] as const
type Direction = (typeof DIRECTIONS)[number]
type Pod = { readonly traffic: Traffic; readonly address: string }
type Pods = { readonly site: Pod; readonly peer: Pod; readonly other: Pod }
type Sample = {
  readonly megabits: number
  /** RTTs in milliseconds; Infinity for a ping without an echo. */
  readonly peerMs: readonly number[]
  readonly otherMs: readonly number[]
  /** Milliseconds for each Gbit. */
  readonly cpu: { readonly sender: number; readonly relay: number; readonly receiver: number }
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  await using lab = await openLab(
    {
      id: 'benchtcp',
      pools: ['a', 'b', 'c'],
      nodes: 1,
      nat: new Map([
        ['a', 'udp-blocked'],
        ['b', 'none'],
        ['c', 'none'],
      ]),
      until: 'nodes',
    },
    { signal, progress },
  )
  const [site, peer, other] = await Promise.all(['a1-client', 'b1-shop', 'c1-shop'].map((host) => podOf(lab, host)))
  const pods: Pods = { site: site!, peer: peer!, other: other! }
  await Promise.all([site!, peer!, other!].flatMap(({ traffic }) => [traffic.sink(PORT), traffic.echo(PORT)]))
  const known = (await shell(lab, 'a1', 'cat /proc/sys/net/ipv4/tcp_available_congestion_control')).split(/\s+/)
  const links = LINKS.filter(({ congestion }) => known.includes(congestion))

  const findings: Finding[] = []
  const samples: Sample[] = []
  let current: Congestion | undefined
  for (const link of links) {
    if (current !== link.congestion) {
      await useCongestion(lab, pods, link.congestion, current === undefined, signal)
      if (current === undefined) {
        const open = await measure(lab, pods, 'up')
        progress(`without a bottleneck: ${open.megabits.toFixed(0)} Mbit/s`)
        findings.push({ name: 'relayTcpOpen', title: 'no bottleneck: goodput', unit: 'Mbit/s', value: open.megabits })
        samples.push(open)
      }
      current = link.congestion
    }
    await narrow(lab, 'a', link.bottleneck)
    for (const direction of DIRECTIONS) {
      const done: Sample[] = []
      const baseMs: number[] = []
      for (let round = 1; round <= rounds; round++) {
        signal.throwIfAborted()
        baseMs.push(...(await pingMs(pods.site, pods.peer, BASE_MS)))
        done.push(await measure(lab, pods, direction))
      }
      samples.push(...done)
      const shape = findingsOf(link, direction, percentile(baseMs, 0.5), done)
      progress(
        `${nameOf(link, direction)}: ${shape.map(({ value, unit }) => `${value.toFixed(1)} ${unit}`).join(', ')}`,
      )
      findings.push(...shape)
    }
  }
  const cpu = (of: keyof Sample['cpu']) => mean(samples.map((sample) => sample.cpu[of]))
  return {
    findings: [
      ...findings,
      {
        name: 'relayTcpCpuSender',
        title: 'CPU, sending gateway',
        unit: 'ms CPU/Gbit',
        value: cpu('sender'),
      },
      { name: 'relayTcpCpuRelay', title: 'CPU, relay', unit: 'ms CPU/Gbit', value: cpu('relay') },
      {
        name: 'relayTcpCpuReceiver',
        title: 'CPU, receiving gateway',
        unit: 'ms CPU/Gbit',
        value: cpu('receiver'),
      },
    ],
    notes: [
      `relay-tcp: tbf of ${MEGABITS} Mbit/s, ${rounds} rounds of ${(BULK.skipMs + BULK.ms) / 1000} s for each bottleneck and direction, with ${PINGS.perSecond} pings per second; p99 of all of them less the p50 without bulk`,
    ],
  }
}

const nameOf = ({ congestion, bottleneck: { burst, latency } }: Link, direction: Direction): string =>
  `${congestion}, burst ${burst}, latency ${latency}, ${direction}`

function findingsOf(link: Link, direction: Direction, baseMs: number, samples: readonly Sample[]): readonly Finding[] {
  const title = nameOf(link, direction)
  const key = `relayTcp.${link.congestion}.${link.bottleneck.latency}.${direction}`
  const overBaseMs = (of: 'peerMs' | 'otherMs'): number =>
    percentile(
      samples.flatMap((sample) => sample[of]),
      0.99,
    ) - baseMs
  const delay = (of: 'peerMs' | 'otherMs', name: string): Finding => ({
    name: `${key}.${of}`,
    title: `${title}: RTT over base, p99, ${name}`,
    unit: 'ms',
    value: overBaseMs(of),
    bound: { of: 'value', is: 'at most', limit: MOST_OVER_BASE_MS },
  })
  return [
    {
      name: `${key}.goodput`,
      title: `${title}: goodput`,
      unit: 'Mbit/s',
      value: Math.min(...samples.map(({ megabits }) => megabits)),
      bound: { of: 'value', is: 'at least', limit: LEAST_GOODPUT },
    },
    delay('peerMs', 'same peer'),
    delay('otherMs', 'another peer'),
  ]
}

/**
 * Of the nodes' and pods' connections from now on; the gateways begin anew, so that their sessions are such. A namespace
 * may not choose every algorithm as its default, but a route may name any that the kernel has.
 */
async function useCongestion(
  lab: Lab,
  { site, peer, other }: Pods,
  congestion: Congestion,
  first: boolean,
  signal: AbortSignal,
): Promise<void> {
  for (const { name, kind } of lab.topology.hosts) {
    if (kind !== 'node' && kind !== 'pod') continue
    const route = await shell(lab, name, 'ip -4 route show default')
    await shell(lab, name, `ip route change ${route.replace(/ congctl \S+/, '')} congctl ${congestion}`)
  }
  const gateways = lab.topology.pools.map(({ gateway }) => gateway)
  if (first) await lab.startGateways()
  else
    for (const gateway of gateways) {
      await lab.stop(gateway, 'gateway')
      await lab.startAgain(gateway, 'gateway')
    }
  await untilOn(lab, ['a', 'b'], 'relay-tcp', () => pingMs(site, peer, 50), signal)
  await untilOn(lab, ['a', 'c'], 'relay-tcp', () => pingMs(site, other, 50), signal)
}

async function shell(lab: Lab, host: string, script: string): Promise<string> {
  const { code, stdout, stderr } = await lab.exec(host, ['sh', '-c', script])
  if (code !== 0) throw new Error(`${host}: ${script}: ${stderr.trim()}`)
  return stdout.trim()
}

async function podOf(lab: Lab, host: string): Promise<Pod> {
  const { addresses } = lab.topology.pods.find((pod) => pod.host === host)!
  return { traffic: await trafficOn(lab, host), address: addresses[0]! }
}

async function measure(lab: Lab, { site, peer, other }: Pods, direction: Direction): Promise<Sample> {
  const [from, to] = direction === 'up' ? [site, peer] : [peer, site]
  const ms = BULK.skipMs + BULK.ms
  const gateways = { site: lab.pidOf('a1', 'gateway')!, peer: lab.pidOf('b1', 'gateway')! }
  const pids = {
    sender: direction === 'up' ? gateways.site : gateways.peer,
    relay: lab.pidOf('cloud', 'relay')!,
    receiver: direction === 'up' ? gateways.peer : gateways.site,
  }
  const cpuMs = () => ({
    sender: processCpuMs(pids.sender),
    relay: processCpuMs(pids.relay),
    receiver: processCpuMs(pids.receiver),
  })
  const before = cpuMs()
  const [bytesPerSecond, peerMs, otherMs] = await Promise.all([
    to.traffic.bytesPerSecond(BULK),
    pingMs(site, peer, ms),
    pingMs(site, other, ms),
    from.traffic.bulk({ address: to.address, port: PORT, ms }),
  ])
  const after = cpuMs()
  const gigabits = (bytesPerSecond * 8 * ms) / 1000 / 1e9
  const spent = (of: keyof typeof before): number => (after[of] - before[of]) / gigabits
  return {
    megabits: (bytesPerSecond * 8) / 1e6,
    peerMs,
    otherMs,
    cpu: { sender: spent('sender'), relay: spent('relay'), receiver: spent('receiver') },
  }
}

/** @returns one number for each ping; what never came back took for ever. */
async function pingMs(from: Pod, to: Pod, ms: number): Promise<readonly number[]> {
  const { sent, rttsMs } = await from.traffic.ping({ address: to.address, port: PORT, ...PINGS, ms })
  return [...rttsMs, ...Array<number>(sent - rttsMs.length).fill(Infinity)]
}
