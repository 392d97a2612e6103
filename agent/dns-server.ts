// The agent's DNS on the wire: UDP and TCP on each address. A query that came before costs a look-up and a copy, and nothing
// is logged for it.

import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Server } from 'node:net'
import { backoffMs } from '../lib/backoff.ts'
import { familyOf } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { aborted, pause } from '../lib/net/lifetime.ts'
import { portError } from '../lib/net/port-error.ts'
import type { Zone } from './dns.ts'
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

  const serveUdp = (socket: UdpSocket): void => {
    socket.on('message', (bytes, { address, port }) => {
      // Any pod can forge such a packet, and Node throws where it is answered.
      if (port === 0) return
      const response = respond(bytes, false, address)
      if (response === undefined) return
      if (Buffer.isBuffer(response)) return socket.send(response, port, address)
      if (waiting >= WAITING_MAX) {
        dropped++
        return
      }
      waiting++
      void response
        .then((message) => !signal.aborted && socket.send(message, port, address))
        .catch((err: Error) => log.error({ err }, 'cannot answer a DNS query'))
        .finally(() => waiting--)
    })
  }

  const listen = async (address: string): Promise<void> => {
    for (let failures = 1; !signal.aborted; failures++) {
      const sockets: (UdpSocket | Server)[] = []
      try {
        await options.ensureAddress(address)
        const type = familyOf(address) === 4 ? 'udp4' : 'udp6'
        const udp = createSocket({ type, recvBufferSize: UDP_RECEIVE_BYTES, lookup: asItIs })
        sockets.push(udp)
        serveUdp(udp)
        await opened(udp, () => udp.bind(options.port, address))
        // A client that asked for all it wants may close its side before it hears.
        const tcp = createServer({ allowHalfOpen: true }, tcpService)
        sockets.push(tcp)
        await opened(tcp, () => tcp.listen(options.port, address))
        // A socket's later errors (a client's unreachable port) are no reason to end.
        for (const socket of sockets)
          (socket as UdpSocket).on('error', (err) => log.debug({ err, addr: address }, 'DNS socket error'))
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
        for (const socket of sockets) socket.close()
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

/** Clients are addresses already: without it each answer waits for a look-up and the next tick. */
const asItIs = (
  address: string,
  _options: object,
  callback: (err: null, address: string, family: number) => void,
): void => callback(null, address, address.includes(':') ? 6 : 4)

/** Resolves when a socket listens. */
function opened(socket: UdpSocket | Server, open: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const emitter = socket as NodeJS.EventEmitter
    const settle = (error?: Error): void => {
      emitter.off('error', settle).off('listening', settle)
      if (error === undefined) resolve()
      else reject(error)
    }
    emitter.on('error', settle).on('listening', settle)
    open()
  })
}
