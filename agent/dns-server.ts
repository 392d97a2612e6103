// The agent's DNS on the wire: UDP and TCP on each address. A query that came before costs a look-up and a copy, and nothing
// is logged for it.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { openDatagramAnswers } from '../lib/net/datagram-answers.ts'
import { DatagramBatch } from '../lib/net/datagram-batch.ts'
import { aborted, pause } from '../lib/net/lifetime.ts'
import { portError } from '../lib/net/port-error.ts'
import type { Zone } from './dns-zone.ts'
import { createResponder, type DnsCounts } from './dns-respond.ts'
import { createTcpService } from './dns-tcp-server.ts'
import type { Upstream } from './dns-upstream-client.ts'

export type DnsServerOptions = {
  readonly addresses: readonly string[]
  readonly port: number
  /** Makes an address this node's own; called before each attempt to listen on it. */
  readonly ensureAddress: (address: string) => Promise<void>
  /** The same object for as long as nothing changes. */
  readonly zone: () => Zone
  readonly upstream: Pick<Upstream, 'resolve'>
  /** An address is served from now on. */
  readonly onListening?: () => void
  readonly log: Log
}
export type DnsServer = {
  /** The addresses that are served over UDP and TCP now. */
  readonly listening: () => readonly string[]
  /** Why an address is not served. */
  readonly problems: () => readonly string[]
  readonly counts: () => DnsCounts
  /** Queries that were not answered, for too many waited already. */
  readonly dropped: () => number
  readonly done: Promise<void>
}

const RETRY = { baseMs: 200, capMs: 5_000 }
/** Queries that wait for upstream over UDP; beyond it they are dropped, and clients ask again. */
const WAITING_MAX = 2_000
const UDP_RECEIVE_BYTES = 1 << 20

export function runDnsServer(options: DnsServerOptions, signal: AbortSignal): DnsServer {
  const { zone, upstream, log } = options
  const problems = new Map<string, string>()
  const listening = new Set<string>()
  const { respond, counts } = createResponder({ zone, upstream, random: Math.random, log })
  const tcpService = createTcpService(respond, signal)
  let waiting = 0
  let dropped = 0

  const answerUdp = (message: Buffer, client: () => string): Buffer | Promise<Buffer> | undefined => {
    const response = respond(message, false, client)
    if (response === undefined || Buffer.isBuffer(response)) return response
    if (waiting >= WAITING_MAX) {
      dropped++
      return undefined
    }
    waiting++
    return response.finally(() => waiting--)
  }

  const listen = async (address: string): Promise<void> => {
    for (let failures = 1; !signal.aborted; failures++) {
      const open: { close: () => void }[] = []
      const onError = (err: Error): void => log.debug({ err, addr: address }, 'DNS socket error')
      try {
        await options.ensureAddress(address)
        const { port } = options
        open.push(
          await openDatagramAnswers(
            { address, port, receiveBytes: UDP_RECEIVE_BYTES, answer: answerUdp, onError },
            DatagramBatch.get(),
          ),
        )
        // A client that asked for all it wants may close its side before it hears.
        const tcp = createServer({ allowHalfOpen: true }, tcpService)
        open.push(tcp)
        await once(tcp.listen(port, address), 'listening')
        tcp.on('error', onError)
        listening.add(address)
        problems.delete(address)
        options.onListening?.()
        await aborted(signal)
      } catch (error) {
        const protocol = (error as NodeJS.ErrnoException).syscall === 'listen' ? 'TCP' : 'UDP'
        const remedy = 'choose others by --dns-addresses'
        const { message } = portError(protocol, options.port, `DNS on ${address}`, remedy, error)
        if (problems.get(address) !== message) log.warn({ err: error, addr: address }, 'cannot serve DNS on an address')
        problems.set(address, message)
        await pause(backoffMs(RETRY, failures, Math.random()), signal)
      } finally {
        listening.delete(address)
        for (const each of open) each.close()
      }
    }
  }

  return {
    listening: () => [...listening],
    problems: () => [...problems.values()],
    counts,
    dropped: () => dropped,
    done: Promise.all(options.addresses.map(listen)).then(() => undefined),
  }
}
