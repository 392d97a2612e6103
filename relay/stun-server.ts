// The STUN server's sockets: for each family up to two addresses, two ports on each. Every answer leaves from exactly
// the socket that RFC 5780 asks for, and no network gets more than its share of answers.

import { createSocket, type Socket } from 'node:dgram'
import { randomBytes } from 'node:crypto'
import { formatSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { onAbort, UsageError } from '../lib/net/lifetime.ts'
import { addressLookup } from '../lib/net/udp-socket.ts'
import { createPrefixLimit } from './prefix-limit.ts'
import { isUnspecified, respond, type StunSockets } from './stun.ts'

export type StunServerOptions = {
  /** One or two per family. `0.0.0.0` or `::` stands alone in its family. */
  readonly addresses: readonly string[]
  readonly ports: readonly [number, number]
  readonly log: Log
}

export type StunServer = {
  /** Binding requests answered. */
  readonly requests: () => number
  /** Datagrams dropped because their network had its share. */
  readonly limited: () => number
  /** Resolves when all sockets are closed, after the signal aborted. */
  readonly closed: Promise<void>
}

/** A gateway that starts asks about 40 times within five seconds, then once in 20 s; a /24 of a provider may hide hundreds. */
const LIMIT = { perSecond: 20, burst: 100 }

/** @throws UsageError if an address is none of this host's, or a port of it is taken. */
export async function runStunServer(
  { addresses, ports, log }: StunServerOptions,
  signal: AbortSignal,
): Promise<StunServer> {
  const admit = createPrefixLimit(LIMIT, randomBytes(4).readInt32BE())
  let requests = 0
  let limited = 0
  const open: Socket[] = []
  const closeAll = (): Promise<unknown> =>
    Promise.all(open.map((socket) => new Promise<void>((done) => socket.close(done))))

  const serve = async (places: StunSockets, family: Family): Promise<void> => {
    const sockets: Socket[] = []
    for (const place of places) {
      const socket = await bind(place, family)
      open.push(socket)
      sockets.push(socket)
    }
    for (const [index, socket] of sockets.entries()) {
      // An answer that could not be sent, such as to a forged source that has no route: whoever forges must not fill the log.
      socket.on('error', (err) => log.debug({ err, addr: formatSocketAddress(places[index]!) }, 'stun socket failed'))
      socket.on('message', (datagram, { address, port }) => {
        if (!admit(address, performance.now())) return void limited++
        const source = socketAddress(address, port)
        if (source === undefined) return
        const reply = respond(places, index, datagram, source)
        if (reply === undefined) return
        requests++
        sockets[reply.from]!.send(reply.datagram, reply.port, address)
      })
    }
  }

  try {
    for (const [family, places] of layout(addresses, ports)) await serve(places, family)
  } catch (error) {
    await closeAll()
    throw error
  }
  const closed = new Promise<void>((resolve) => {
    const close = (): void => void closeAll().then(() => resolve())
    onAbort(signal, close)
  })
  return { requests: () => requests, limited: () => limited, closed }
}

/** The sockets of each family, in the order that `respond` expects. */
function layout(addresses: readonly string[], [p1, p2]: readonly [number, number]): ReadonlyMap<Family, StunSockets> {
  if (p1 === p2) throw new UsageError(`--stun-ports ${p1},${p2}: the two ports must differ`)
  const byFamily = new Map<Family, string[]>()
  for (const text of addresses) {
    const parsed = socketAddress(text, 0)
    if (parsed === undefined) throw new UsageError(`--stun ${text}: is no IP address`)
    const { address, family } = parsed
    const list = byFamily.get(family) ?? []
    if (!list.includes(address)) byFamily.set(family, [...list, address])
  }
  const layouts = new Map<Family, StunSockets>()
  for (const [family, [a, b, ...more]] of byFamily) {
    const at = (address: string, port: number): SocketAddress => ({ address, port, family })
    if (more.length > 0) throw new UsageError(`--stun ${addresses.join(',')}: takes two IPv${family} addresses at most`)
    if (b !== undefined && [a!, b].some(isUnspecified))
      throw new UsageError(`--stun ${a},${b}: an address for all leaves none for another; name both addresses`)
    if (b === undefined) layouts.set(family, [at(a!, p1), at(a!, p2)])
    else layouts.set(family, [at(a!, p1), at(a!, p2), at(b, p1), at(b, p2)])
  }
  return layouts
}

function bind(place: SocketAddress, family: Family): Promise<Socket> {
  const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6, lookup: addressLookup })
  return new Promise((resolve, reject) => {
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      socket.close()
      reject(cannotBind(place, cause))
    })
    socket.bind(place.port, place.address, () => {
      socket.removeAllListeners('error')
      resolve(socket)
    })
  })
}

function cannotBind(place: SocketAddress, cause: NodeJS.ErrnoException): Error {
  const where = formatSocketAddress(place)
  switch (cause.code) {
    case 'EADDRINUSE':
      return new UsageError(`STUN port ${where}/udp is in use by another process; choose others by --stun-ports`, {
        cause,
      })
    case 'EADDRNOTAVAIL':
      return new UsageError(`--stun ${place.address}: no interface of this host has this address`, { cause })
    case 'EACCES':
      return new UsageError(`STUN port ${where}/udp: ports under 1024 need CAP_NET_BIND_SERVICE`, { cause })
    default:
      return new UsageError(`STUN port ${where}/udp: ${cause.message}`, { cause })
  }
}
