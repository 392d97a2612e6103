// The lab of a matrix at work: gateways that begin from nothing in each round, streams between pods, samples of what the
// core saw, and the moves that gateways log.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchStatus } from '../../lib/net/status-client.ts'
import { CARRIERS, NFT_TABLE_GATEWAY, ROUTE_TABLE, RULE_PRIORITY } from '../../lib/owned.ts'
import type { GatewayStatus } from '../../lib/status.ts'
import type { Lab } from './lab.ts'
import { coreNft, forgetRules, lossRules, matrixRules, readPassages, type Passage } from './matrix-core.ts'
import { podOf, type MatrixSites, type Round } from './matrix-plan.ts'
import type { Order, StreamEnd } from './matrix-traffic.ts'
import { pathsOf } from './names.ts'
import { withShortPath } from './supervisor.ts'

/** A pod of a site, with the process that sends and counts in it. */
export type End = {
  readonly address: string
  readonly order: (order: Order) => void
  /** Ends a trial. */
  readonly report: (trial: number) => Promise<StreamEnd>
}

export type Arena = {
  readonly ends: ReadonlyMap<string, End>
  /** Addresses that a site has on the Internet. */
  readonly outsideOf: (pool: string) => readonly string[]
  /** Gateways begin anew with no path, NATs with no mapping. Resolves when every gateway knows all others. */
  readonly begin: (round: Round, signal: AbortSignal) => Promise<void>
  /** What a gateway logged of its path to a pool since the round began, oldest first. */
  readonly movesOf: (pool: string, to: string) => readonly Move[]
  /** What the core has seen; begun after the call. Calls at one time share it. */
  readonly sample: () => Promise<readonly Passage[]>
}
export type Move = { readonly at: number; readonly rung: string }

const READY_MS = 60_000
const POLL_MS = 100
const GATEWAYS_AT_ONCE = 4

export async function openArena(lab: Lab, sites: MatrixSites): Promise<Arena> {
  const { topology } = lab
  const pools = topology.pools.filter(({ name }) => sites.has(name))
  const gateways = pools.map(({ gateway }) => gateway)
  const routers = pools.flatMap(({ router, carrier }) => [router, carrier].filter((name) => name !== undefined))
  await coreNft(topology, matrixRules())
  const ends = new Map(
    await Promise.all(pools.map(async ({ name }) => [name, await openEnd(lab, podOf(name))] as const)),
  )
  let logs = new Map<string, LogTail>()

  const begin = async ({ lossPercent }: Round, signal: AbortSignal): Promise<void> => {
    await Promise.all(gateways.map((host) => lab.stop(host, 'gateway')))
    await Promise.all([
      ...gateways.map((host) => lab.exec(host, ['sh', '-c', REMOVE_GATEWAY])),
      ...routers.map((host) => lab.exec(host, ['sh', '-c', FORGET_MAPPINGS])),
      coreNft(topology, forgetRules() + lossRules(lossPercent)),
    ])
    logs = new Map(pools.map(({ name, gateway }) => [name, openLog(lab.logOf(gateway, 'gateway'))]))
    const waiting = [...gateways]
    const worker = async (): Promise<void> => {
      for (let host = waiting.shift(); host !== undefined; host = waiting.shift()) {
        signal.throwIfAborted()
        await lab.startAgain(host, 'gateway')
      }
    }
    await Promise.all(Array.from({ length: GATEWAYS_AT_ONCE }, worker))
    await untilAcquainted(lab, gateways, signal)
  }

  let current: Promise<readonly Passage[]> | undefined
  let following: Promise<readonly Passage[]> | undefined
  const sample = (): Promise<readonly Passage[]> => {
    if (current === undefined) {
      current = readPassages(topology).finally(() => (current = undefined))
      return current
    }
    following ??= current
      .catch(() => {})
      .then(() => {
        following = undefined
        return sample()
      })
    return following
  }

  return {
    ends,
    outsideOf: (name) => {
      const { nat, wan, nodes } = pools.find((pool) => pool.name === name)!
      const own = topology.nodes.find((node) => node.name === nodes[0])!.addresses
      const isV6 = (address: string) => address.includes(':')
      return [...(nat === 'none' ? own : wan).filter((address) => !isV6(address)), ...own.filter(isV6)]
    },
    begin,
    movesOf: (pool, to) => logs.get(pool)?.moves(to) ?? [],
    sample,
  }
}

/** For a shell on its node: what `fulmar cleanup` does for a gateway, without the time that its start takes. */
export const REMOVE_GATEWAY = [
  ...Object.values(CARRIERS).map((device) => `ip link delete ${device}`),
  ...['-4', '-6'].flatMap((family) => [
    `ip ${family} rule delete priority ${RULE_PRIORITY}`,
    `ip ${family} route flush table ${ROUTE_TABLE}`,
  ]),
  `nft delete table inet ${NFT_TABLE_GATEWAY}`,
]
  .map((command) => `${command} 2>/dev/null;`)
  .concat('true')
  .join(' ')

/** Cones remember mappings in a map and a set of their own. */
const FORGET_MAPPINGS =
  'conntrack -F 2>/dev/null; nft flush map ip nat mappings 2>/dev/null; nft flush set ip nat contacted 2>/dev/null; true'

/** Every gateway knows its own NAT and that of all others, so that a trial measures the path and not the start. */
async function untilAcquainted(lab: Lab, gateways: readonly string[], signal: AbortSignal): Promise<void> {
  const { runDir } = pathsOf(lab.id)
  let missing = gateways
  let reasons: readonly string[] = []
  for (const endsAt = Date.now() + READY_MS; ;) {
    const answers = await Promise.all(
      missing.map(async (host) => {
        const status = (await withShortPath(runDir(host), (directory) =>
          fetchStatus(`${directory}/gateway.sock`),
        ).catch(() => undefined)) as GatewayStatus | undefined
        return { host, reason: strangeness(status, gateways.length - 1) }
      }),
    )
    missing = answers.filter(({ reason }) => reason !== '').map(({ host }) => host)
    reasons = answers.filter(({ reason }) => reason !== '').map(({ host, reason }) => `${host}: ${reason}`)
    if (missing.length === 0) return
    signal.throwIfAborted()
    if (Date.now() > endsAt)
      throw new Error(`gateways do not all know each other after ${READY_MS / 1000} s: ${reasons.join('; ')}`)
    await sleep(POLL_MS, undefined, { signal })
  }
}

function strangeness(status: GatewayStatus | undefined, peers: number): string {
  if (status === undefined) return 'does not answer'
  if (status.relay.state !== 'connected') return 'has no session with the relay'
  if (status.nat.udp === 'unknown') return 'does not know its NAT'
  const known = status.paths.filter(({ peerNat }) => peerNat !== undefined && peerNat.udp !== 'unknown')
  return known.length < peers ? `knows ${known.length} of ${peers} others` : ''
}

async function openEnd(lab: Lab, host: string): Promise<End> {
  const pod = lab.topology.pods.find((candidate) => candidate.host === host)!
  const address = pod.addresses[0]!
  const script = join(import.meta.dirname, 'matrix-traffic.ts')
  const child: ChildProcess = lab.spawn(host, [process.execPath, script, address], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const waiting = new Map<number, (report: StreamEnd) => void>()
  await Promise.race([
    once(child, 'message'),
    once(child, 'exit').then(() => Promise.reject(new Error(`the end of the streams in ${host} did not start`))),
  ])
  child.on('message', (report: StreamEnd) => {
    waiting.get(report.trial)?.(report)
    waiting.delete(report.trial)
  })
  return {
    address,
    order: (order) => void child.send(order),
    report: (trial) =>
      new Promise((resolve, reject) => {
        waiting.set(trial, resolve)
        child.send({ kind: 'end', trial } satisfies Order, (error) => error && reject(error))
      }),
  }
}

type LogTail = { readonly moves: (to: string) => readonly Move[] }

/** Follows a gateway's log from where it ends now. */
function openLog(file: string): LogTail {
  const moves = new Map<string, Move[]>()
  let offset = sizeOf(file)
  let rest = ''
  const buffer = Buffer.alloc(64 * 1024)
  const read = (): void => {
    const descriptor = openSync(file, 'r')
    try {
      for (;;) {
        const bytes = readSync(descriptor, buffer, 0, buffer.length, offset)
        if (bytes === 0) break
        offset += bytes
        const lines = (rest + buffer.toString('utf8', 0, bytes)).split('\n')
        rest = lines.pop()!
        for (const line of lines) {
          if (!line.includes('"path moved"')) continue
          const { time, pool, path } = JSON.parse(line) as { time: string; pool: string; path: string }
          moves.set(pool, [...(moves.get(pool) ?? []), { at: Date.parse(time), rung: path }])
        }
      }
    } finally {
      closeSync(descriptor)
    }
  }
  return {
    moves: (to) => {
      read()
      return moves.get(to) ?? []
    },
  }
}

function sizeOf(file: string): number {
  const descriptor = openSync(file, 'a+')
  try {
    return fstatSync(descriptor).size
  } finally {
    closeSync(descriptor)
  }
}
