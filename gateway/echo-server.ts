// The socket for echoes inside the WireGuard devices (gateway/echo.ts): answers a peer's, sends ours, and tells which
// device each came through.

import { createSocket } from 'node:dgram'
import { DEVICES } from '../lib/owned.ts'
import { portError } from '../lib/net/port-error.ts'
import type { Rung } from '../lib/status.ts'
import { MAX_PEERS } from './announcement.ts'
import { carriedBytes, decodeEcho, ECHO_PORT, encodeEcho, toReply, type Echo } from './echo.ts'

export type EchoServer = {
  /** @param to the peer's link-local address, without a zone. */
  readonly send: (rung: Rung, to: string, request: Omit<Echo, 'kind'>) => void
  /** @returns what WireGuard has carried of requests and replies with a peer over a rung, both ways, bytes. */
  readonly carried: (rung: Rung, peer: string) => number
}

/** Three rungs of as many gateways as are remembered; WireGuard lets peers alone in, and over the years they change. */
const MAX_COUNTERS = 3 * MAX_PEERS

export async function openEchoServer(
  options: {
    /** @param interested whether the sender has traffic for us. */
    readonly onRequest: (rung: Rung, from: string, interested: boolean) => void
    readonly onReply: (rung: Rung, from: string, sequence: number) => void
  },
  signal: AbortSignal,
): Promise<EchoServer> {
  const socket = createSocket({ type: 'udp6', ipv6Only: true })
  const carried = new Map<string, number>()
  const count = (rung: Rung, peer: string, bytes: number): void => {
    const key = `${rung} ${peer}`
    if (carried.size >= MAX_COUNTERS && !carried.has(key)) carried.delete(carried.keys().next().value!)
    carried.set(key, (carried.get(key) ?? 0) + bytes)
  }
  const bound = Promise.withResolvers<void>()
  socket.once('error', bound.reject)
  socket.bind(ECHO_PORT, bound.resolve)
  try {
    await bound.promise
  } catch (cause) {
    socket.close()
    throw portError('UDP', ECHO_PORT, 'echoes between gateways', undefined, cause)
  }
  socket.off('error', bound.reject)
  // A device that is being made anew refuses packets; the echo counts as lost.
  socket.on('error', () => {})
  socket.on('message', (datagram, { address, port }) => {
    const [from, device] = address.split('%')
    const rung = RUNG_OF_DEVICE.get(device)
    const echo = decodeEcho(datagram)
    // Only WireGuard devices: whoever else is on the LAN is not authenticated.
    if (rung === undefined || echo === undefined || port !== ECHO_PORT) return
    const bytes = carriedBytes(echo.size)
    count(rung, from!, echo.kind === 'reply' ? bytes : 2 * bytes)
    if (echo.kind === 'reply') return options.onReply(rung, from!, echo.sequence)
    socket.send(toReply(datagram), port, address, () => {})
    options.onRequest(rung, from!, echo.interested)
  })
  signal.addEventListener('abort', () => socket.close(), { once: true })
  return {
    carried: (rung, peer) => carried.get(`${rung} ${peer}`) ?? 0,
    send: (rung, to, request) => {
      if (signal.aborted) return
      count(rung, to, carriedBytes(request.size))
      socket.send(encodeEcho({ ...request, kind: 'request' }), ECHO_PORT, `${to}%${DEVICES[rung]}`, () => {})
    },
  }
}

const RUNG_OF_DEVICE = new Map<string | undefined, Rung>(
  Object.entries(DEVICES).map(([rung, device]) => [device, rung as Rung]),
)
