// The mesh coming up, measured: gateways start, a pod calls a Service whose only endpoints are in another pool, packets
// run both ways, first relayed and then direct. What the demo shows, the bench repeats and the tests demand.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { EndpointSlice, Service } from '../../lib/k8s/objects.ts'
import type { Rung } from '../../lib/status.ts'
import type { Call, Calls } from './caller.ts'
import type { Lab } from './lab.ts'
import type { Stream, StreamReport } from './stream.ts'

/** A pod in one pool and a Service whose only endpoints are in another. */
export type Pair = {
  readonly client: { readonly host: string; readonly pool: string; readonly address: string }
  readonly server: { readonly host: string; readonly pool: string; readonly address: string }
  readonly service: string
  readonly url: string
  readonly family: 4 | 6
}

/** Times in milliseconds since the start of the last gateway process. */
export type FirstContact = {
  readonly pair: Pair
  readonly relayedMs: number
  readonly firstCallMs: number
  readonly directMs: number
  /** How long the first answered call took, and the median of later ones on the direct path. */
  readonly firstCallTookMs: number
  readonly callMs: number
  /** Whether the server saw the client pod's own address. */
  readonly sourceKept: boolean
  /** From the first packet that arrived until 5 s after the direct path came up. */
  readonly there: StreamReport
  readonly back: StreamReport
  /** Packets over 32 bytes that the relay forwarded after the switch. */
  readonly relayedAfter: number
}

/** Shorter than the second after which TCP repeats a lost SYN: a call that began too early must not hide the first that works. */
const FIRST_CALL_TIMEOUT_MS = 250
const STREAM_PORT = 41_000
const PER_SECOND = 100
const AFTER_DIRECT_MS = 5_000
const DIRECT_TIMEOUT_MS = 30_000
const CALLS_MEASURED = 50
const SETTLE_MS = 500

/** @returns the pairs whose two pools are sites first, then those with the cloud. */
export function findPairs(
  lab: Lab,
  services: readonly Service[],
  slices: readonly EndpointSlice[],
  family: 4 | 6,
): readonly Pair[] {
  const { pods, pools } = lab.topology
  const poolOf = (node: string | undefined) => pools.find(({ nodes }) => nodes.includes(node ?? ''))?.name
  const addressOf = (addresses: readonly string[]) =>
    addresses.find((address) => address.includes(':') === (family === 6))
  const pairs = services.flatMap((service) => {
    const { name = '', namespace = 'default' } = service.metadata ?? {}
    const port = service.spec?.ports?.find(({ protocol = 'TCP' }) => protocol === 'TCP')?.port
    const clusterIps = (service.spec?.clusterIPs ?? [service.spec?.clusterIP ?? 'None']).filter((ip) => ip !== 'None')
    if (port === undefined || addressOf(clusterIps) === undefined) return []
    const endpoints = slices
      .filter(
        ({ metadata }) => metadata?.namespace === namespace && metadata.labels?.['kubernetes.io/service-name'] === name,
      )
      .flatMap((slice) => slice.endpoints ?? [])
    const serving = new Set(endpoints.map(({ nodeName }) => poolOf(nodeName)))
    const [pool] = serving
    const server = pods.find((pod) =>
      endpoints.some(({ targetRef }) => targetRef?.name === pod.name && targetRef.namespace === pod.namespace),
    )
    if (serving.size !== 1 || pool === undefined || server === undefined || addressOf(server.addresses) === undefined)
      return []
    return pods
      .filter((pod) => !pod.hostNetwork && poolOf(pod.node) !== pool && addressOf(pod.addresses) !== undefined)
      .map((pod) => ({
        client: { host: pod.host, pool: poolOf(pod.node)!, address: addressOf(pod.addresses)! },
        server: { host: server.host, pool, address: addressOf(server.addresses)! },
        service: `${name}.${namespace}`,
        url: `http://${name}.${namespace}.svc.cluster.local:${port}/`,
        family,
      }))
  })
  const sites = new Set(pools.filter(({ router }) => router !== undefined).map(({ name }) => name))
  const rank = ({ client, server }: Pair) => Number(!sites.has(client.pool)) + Number(!sites.has(server.pool))
  return pairs.toSorted((a, b) => rank(a) - rank(b))
}

/** Starts the gateways of a lab opened `until: 'nodes'`. @throws Error when the pair does not become direct in 30 s. */
export async function measureFirstContact(
  lab: Lab,
  pair: Pair,
  progress: (line: string) => void,
): Promise<FirstContact> {
  const there = startStream(lab, pair.client.host, pair.server.address)
  const back = startStream(lab, pair.server.host, pair.client.address)
  const calls = startCalls(lab, pair.client.host, {
    url: pair.url,
    family: pair.family,
    intervalMs: 20,
    timeoutMs: FIRST_CALL_TIMEOUT_MS,
    successes: 1,
  })
  try {
    await sleep(SETTLE_MS)
    let startedAt = 0
    const stop = lab.onEvent((event) => {
      if (event.kind === 'started' && event.daemon === 'gateway') startedAt = Math.max(startedAt, event.at)
    })
    await lab.startGateways()
    stop()

    const first = (await calls.all).at(-1)!
    const [relayedAt, directAt] = await Promise.all([
      bothOn(lab, pair, 'relay-tcp', startedAt),
      bothOn(lab, pair, 'direct', startedAt),
    ])
    // What was under way over the relay when the routes moved still arrives.
    await sleep(SETTLE_MS)
    const relayedBefore = await relayedOverKeepalive(lab, pair)
    progress(`direct after ${directAt - startedAt} ms; counting for ${AFTER_DIRECT_MS / 1000} s more`)
    await sleep(Math.max(0, directAt + AFTER_DIRECT_MS - Date.now()))
    const [thereReport, backReport] = await Promise.all([back.stop(), there.stop()])
    const relayedAfter = (await relayedOverKeepalive(lab, pair)) - relayedBefore
    const later = await startCalls(lab, pair.client.host, {
      url: pair.url,
      family: pair.family,
      intervalMs: 10,
      timeoutMs: 1_000,
      successes: CALLS_MEASURED,
    }).all
    return {
      pair,
      relayedMs: relayedAt - startedAt,
      firstCallMs: Math.round(first.at + first.ms - startedAt),
      directMs: directAt - startedAt,
      firstCallTookMs: first.ms,
      callMs: later.map(({ ms }) => ms).toSorted((a, b) => a - b)[later.length >> 1]!,
      sourceKept: (JSON.parse(first.body) as { client?: string }).client === pair.client.address,
      there: thereReport,
      back: backReport,
      relayedAfter,
    }
  } finally {
    await Promise.allSettled([there.stop(), back.stop(), calls.stop()])
  }
}

/** The time when the gateways of both pools had moved to a rung, by their own logs. @returns NaN if one skipped it. */
export async function bothOn(lab: Lab, pair: Pair, rung: Rung, sinceAt: number): Promise<number> {
  const at = (from: string, to: string) =>
    movesOf(lab, from).find((move) => move.at >= sinceAt && move.pool === to && move.rung === rung)?.at
  const { client, server } = pair
  for (const endsAt = Date.now() + DIRECT_TIMEOUT_MS; ;) {
    const [a, b] = [at(client.pool, server.pool), at(server.pool, client.pool)]
    if (a !== undefined && b !== undefined) return Math.max(a, b)
    if (
      rung !== 'direct' &&
      at(client.pool, server.pool) === undefined &&
      movesOf(lab, client.pool).some((move) => move.rung === 'direct')
    )
      return NaN
    if (Date.now() > endsAt)
      throw new Error(
        `${client.pool} and ${server.pool} are not both ${rung} after ${DIRECT_TIMEOUT_MS / 1000} s; see npm run lab -- status --id ${lab.id}`,
      )
    await sleep(20)
  }
}

type Move = { readonly at: number; readonly pool: string; readonly rung: Rung }

/** The moves that a pool's gateway logged. */
export function movesOf(lab: Lab, pool: string): readonly Move[] {
  const gateway = lab.topology.pools.find(({ name }) => name === pool)?.gateway ?? ''
  const lines = readFileSync(lab.logOf(gateway, 'gateway'), 'utf8').split('\n')
  return lines.flatMap((line) => {
    if (!line.includes('"path moved"')) return []
    const { time, pool, path } = JSON.parse(line) as { time: string; pool: string; path: Rung }
    return [{ at: Date.parse(time), pool, rung: path }]
  })
}

/** Packets with data that the relay has forwarded between the gateways of a pair, both ways. */
export async function relayedOverKeepalive(lab: Lab, { client, server }: Pair): Promise<number> {
  const { daemons } = await lab.status()
  const nodes = [client, server].map(({ pool }) => lab.topology.pools.find(({ name }) => name === pool)?.gateway)
  return daemons
    .flatMap(({ status }) => (status.kind === 'relay' ? status.packets.pairs : []))
    .filter(({ from, to }) => nodes.includes(from) && nodes.includes(to))
    .reduce((sum, { overKeepalive }) => sum + overKeepalive, 0)
}

export function startStream(
  lab: Lab,
  host: string,
  peer: string,
  perSecond = PER_SECOND,
): { readonly stop: () => Promise<StreamReport> } {
  const stream: Stream = { peer, port: STREAM_PORT, perSecond }
  const child = lab.spawn(host, [process.execPath, join(import.meta.dirname, 'stream.ts'), JSON.stringify(stream)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout!.on('data', (chunk: Buffer) => (output += String(chunk)))
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return {
    stop: async () => {
      child.kill('SIGTERM')
      await ended
      return JSON.parse(output) as StreamReport
    },
  }
}

export function startCalls(
  lab: Lab,
  host: string,
  calls: Calls,
): {
  readonly all: Promise<readonly Call[]>
  /** Those that have ended so far. */
  readonly ended: readonly Call[]
  readonly stop: () => Promise<readonly Call[]>
} {
  const child = lab.spawn(host, [process.execPath, join(import.meta.dirname, 'caller.ts'), JSON.stringify(calls)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended: Call[] = []
  const lines = createInterface({ input: child.stdout! })
  lines.on('line', (line) => ended.push(JSON.parse(line) as Call))
  const all = once(lines, 'close').then(() => ended)
  return {
    all,
    ended,
    stop: () => {
      child.kill('SIGTERM')
      return all
    },
  }
}
