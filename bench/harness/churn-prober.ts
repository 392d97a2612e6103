// Looks, by new connections, where a service leads: every endpoint says the address by which it was reached. One prober is
// among the processes that BPF serves, another is not, which leaves it to nft.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { serve } from '../../test/lib/netns.ts'
import { isMoved, SERVICE_PORT, TARGET_PORT } from './churn-world.ts'

export type Probe = {
  /** After a change, or of a service that did not change: what the machine and the prober take by themselves. */
  readonly kind: 'change' | 'same'
  readonly clusterIp: string
  /** Where its endpoints are now. */
  readonly moved: boolean
  /** CLOCK_MONOTONIC. */
  readonly sinceMs: number
}
export type Probed = {
  readonly kind: Probe['kind']
  /** Until a connection that was opened since then was at the right endpoint; Infinity if none was. */
  readonly tookMs: number
}

/** Between two connections, counted from the beginning of the one to that of the next. */
const INTERVAL_MS = 1
/** A packet to a service without rules may be lost. */
const CONNECT_MS = 100
const GIVE_UP_MS = 2_000

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6
let results: Probed[] = []

/** @returns the address that the endpoint was reached by; undefined where none answers. */
function ask(clusterIp: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host: clusterIp, port: SERVICE_PORT, noDelay: true })
    const end = (address: string | undefined): void => {
      socket.destroy()
      resolve(address)
    }
    socket.setTimeout(CONNECT_MS, () => end(undefined))
    socket.once('data', (data) => end(data.toString()))
    socket.once('error', () => end(undefined))
    socket.once('end', () => end(undefined))
  })
}

type Wanted = { readonly clusterIp: string; /** undefined for anywhere. */ readonly moved: boolean | undefined }

/** @returns when, CLOCK_MONOTONIC. */
async function untilThere({ clusterIp, moved }: Wanted, giveUpMs: number, intervalMs: number): Promise<number> {
  for (const endMs = nowMs() + giveUpMs; nowMs() < endMs;) {
    const beganMs = nowMs()
    const address = await ask(clusterIp)
    if (address !== undefined && (moved === undefined || isMoved(address) === moved)) return nowMs()
    const early = beganMs + intervalMs - nowMs()
    if (early > 0) await pause(early)
  }
  return Infinity
}

serve({
  /** Answers for all endpoints. */
  answer: async () => {
    const server = createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => undefined)
      socket.end(socket.localAddress ?? '')
    })
    server.listen(TARGET_PORT, '0.0.0.0', 4096)
    await once(server, 'listening')
  },
  /** @returns the UDP port that probes are asked for at. */
  listen: async () => {
    const socket = createSocket('udp4').bind(0, '127.0.0.1')
    socket.on('message', (message) => {
      const { kind, clusterIp, moved, sinceMs } = JSON.parse(message.toString()) as Probe
      void untilThere({ clusterIp, moved }, GIVE_UP_MS, INTERVAL_MS).then((atMs) => {
        results.push({ kind, tookMs: atMs - sinceMs })
      })
    })
    await once(socket, 'listening')
    return socket.address().port
  },
  /** @returns when the service answered, CLOCK_MONOTONIC in ms; null if it did not in time. */
  until: async (clusterIp: string, withinMs: number): Promise<number | null> => {
    const atMs = await untilThere({ clusterIp, moved: undefined }, withinMs, 5)
    return Number.isFinite(atMs) ? atMs : null
  },
  /** What was probed since the last call, once it has ended; what was lost is null. */
  take: async (): Promise<readonly (readonly [Probe['kind'], number | null])[]> => {
    await pause(GIVE_UP_MS)
    const taken = results.map(({ kind, tookMs }) => [kind, Number.isFinite(tookMs) ? tookMs : null] as const)
    results = []
    return taken
  },
})
