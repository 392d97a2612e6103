// The agent's DNS on the wire: UDP and TCP on each address, names of the cluster from the zone, all others from upstream.
// What is no query is counted and dropped. A query costs one decoded message, one encoded answer and no logging.

import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { createServer, type Server, type Socket } from 'node:net'
import { backoffMs } from '../lib/backoff.ts'
import { familyOf } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { aborted, pause } from '../lib/net/lifetime.ts'
import { portError } from '../lib/net/port-error.ts'
import {
  answersOf,
  decodeQuery,
  encodeQuery,
  encodeResponse,
  RCODES,
  readResponse,
  truncate,
  UDP_BYTES_MAX,
  UDP_BYTES_MIN,
  type DnsQuery,
  type DnsRecord,
  type DnsResponse,
  type Rcode,
} from '../lib/wire/dns.ts'
import { firstMessage, framed } from '../lib/wire/dns-tcp.ts'
import { answer, type Zone } from './dns.ts'
import type { Upstream } from './dns-upstream-client.ts'

export type DnsServerOptions = {
  readonly addresses: readonly string[]
  readonly port: number
  /** Makes an address this node's own; called before each attempt to listen on it. */
  readonly ensureAddress: (address: string) => Promise<void>
  readonly zone: () => Zone
  readonly upstream: Upstream
  readonly onAnswer?: (rcode: Rcode) => void
  /** An address is served from now on. */
  readonly onListening?: () => void
  readonly log: Log
}
export type DnsServer = {
  /** The addresses that are served over UDP and TCP now. */
  readonly listening: () => readonly string[]
  /** Why an address is not served. */
  readonly problems: () => readonly string[]
  readonly queries: () => number
  readonly malformed: () => number
  readonly done: Promise<void>
}

const RETRY = { baseMs: 200, capMs: 5_000 }
const TCP_CONNECTIONS_MAX = 128
const TCP_IDLE_MS = 10_000
/** Queries that wait for upstream over UDP; beyond it they are dropped, and clients ask again. */
const WAITING_MAX = 2_000
const UDP_RECEIVE_BYTES = 1 << 20

export function runDnsServer(options: DnsServerOptions, signal: AbortSignal): DnsServer {
  const { zone, upstream, log } = options
  const problems = new Map<string, string>()
  const listening = new Set<string>()
  let queries = 0
  let malformed = 0
  let waiting = 0

  /** The answer's bytes, at once where the cluster knows; undefined for what is no query. */
  const respond = (bytes: Uint8Array, overTcp: boolean): Buffer | Promise<Buffer> | undefined => {
    const query = decodeQuery(bytes)
    if (query === undefined) {
      malformed++
      return undefined
    }
    queries++
    const maxBytes = overTcp ? 0xffff : Math.min(UDP_BYTES_MAX, query.edns?.udpBytes ?? UDP_BYTES_MIN)
    const refusal = refuse(query)
    if (refusal !== undefined) return finish(query, refusal, maxBytes)
    const found = answer(zone(), query.name, query.type, Math.random)
    switch (found.kind) {
      case 'answer':
        return finish(query, { ...found, authoritative: true }, maxBytes)
      case 'alias':
        return follow(query, found, maxBytes)
      case 'forward':
        return forward(query, overTcp, maxBytes)
    }
  }

  const finish = (query: DnsQuery, response: DnsResponse, maxBytes: number): Buffer => {
    options.onAnswer?.(response.rcode)
    return encodeResponse(query, response, maxBytes)
  }

  const forward = async (query: DnsQuery, overTcp: boolean, maxBytes: number): Promise<Buffer> => {
    const message = await upstream.resolve(query, overTcp)
    if (message === undefined) return finish(query, failed, maxBytes)
    options.onAnswer?.(RCODES[message[3]! & 15] ?? 'SERVFAIL')
    return message.length > maxBytes ? truncate(message, query) : message
  }

  /** The client of an alias gets the other zone's records with it, as from any resolver. */
  const follow = async (
    query: DnsQuery,
    alias: { answers: readonly DnsRecord[]; target: string },
    maxBytes: number,
  ): Promise<Buffer> => {
    const inner = decodeQuery(encodeQuery(query.id, alias.target, query.type))
    const message = inner && (await upstream.resolve(inner, false))
    const response = message && readResponse(message, query.id, inner)
    const known = response === undefined ? [] : answersOf(response)
    const rcode = response === undefined ? 'SERVFAIL' : (RCODES[response.rcode] ?? 'SERVFAIL')
    return finish(
      query,
      { rcode, authoritative: false, answers: [...alias.answers, ...known], authorities: [], additionals: [] },
      maxBytes,
    )
  }

  const serveUdp = (socket: UdpSocket): void => {
    socket.on('message', (bytes, { address, port }) => {
      // Any pod can forge such a packet, and Node throws where it is answered.
      if (port === 0) return
      const response = respond(bytes, false)
      if (response === undefined) return
      if (Buffer.isBuffer(response)) return socket.send(response, port, address)
      if (waiting >= WAITING_MAX) return
      waiting++
      void response
        .then((message) => !signal.aborted && socket.send(message, port, address))
        .catch((err: Error) => log.error({ err }, 'cannot answer a DNS query'))
        .finally(() => waiting--)
    })
  }

  const connections = new Set<Socket>()
  const serveTcp = async (socket: Socket): Promise<void> => {
    connections.add(socket)
    socket.on('close', () => connections.delete(socket))
    socket.setTimeout(TCP_IDLE_MS, () => socket.destroy())
    let received: Buffer = Buffer.alloc(0)
    // One query at a time, and no more is read meanwhile; a frame holds at most 65535 bytes.
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer])
      for (let next = firstMessage(received); next !== undefined; next = firstMessage(received)) {
        const response = await respond(next.message, true)
        if (response === undefined) return
        socket.write(framed(response))
        received = next.rest
      }
    }
    socket.end()
  }

  const listen = async (address: string): Promise<void> => {
    for (let failures = 1; !signal.aborted; failures++) {
      const sockets: (UdpSocket | Server)[] = []
      try {
        await options.ensureAddress(address)
        const udp = createSocket({ type: familyOf(address) === 4 ? 'udp4' : 'udp6', recvBufferSize: UDP_RECEIVE_BYTES })
        sockets.push(udp)
        serveUdp(udp)
        await opened(udp, () => udp.bind(options.port, address))
        const tcp = createServer(
          (socket) =>
            void serveTcp(socket)
              .catch(() => undefined)
              .finally(() => socket.destroy()),
        )
        tcp.maxConnections = TCP_CONNECTIONS_MAX
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

  signal.addEventListener('abort', () => connections.forEach((socket) => socket.destroy()), { once: true })
  return {
    listening: () => [...listening],
    problems: () => [...problems.values()],
    queries: () => queries,
    malformed: () => malformed,
    done: Promise.all(options.addresses.map(listen)).then(() => undefined),
  }
}

const empty = { authoritative: false, answers: [], authorities: [], additionals: [] } as const
const failed: DnsResponse = { ...empty, rcode: 'SERVFAIL' }

function refuse({ opcode, class: kind, type }: DnsQuery): DnsResponse | undefined {
  if (opcode !== 0) return { ...empty, rcode: 'NOTIMP' }
  if (kind !== 'IN' || type === 'AXFR' || type === 'IXFR') return { ...empty, rcode: 'REFUSED' }
  return undefined
}

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
