// The socket for echoes inside the WireGuard devices (gateway/echo.ts): answers a peer's, sends ours, and tells which
// device each came through.

import { createSocket } from 'node:dgram'
import { onAbort } from '../lib/net/lifetime.ts'
import { CARRIERS, DEVICES } from '../lib/owned.ts'
import { portError } from '../lib/net/port-error.ts'
import { addressLookup, bindUdp } from '../lib/net/udp-socket.ts'
import type { Rung } from '../lib/status.ts'
import { MAX_PEERS } from './announcement.ts'
import { carriedBytes, decodeEcho, ECHO_PORT, encodeEcho, toReply, type Echo } from './echo.ts'
import type { Role } from './roles.ts'

export type EchoServer = {
  /** @param to the peer's link-local address, without a zone. */
  readonly send: (rung: Rung, to: string, request: Omit<Echo, 'kind' | 'role'>) => void
  /** Tells a peer our role. */
  readonly tellRole: (rung: Rung, to: string) => void
  /** @returns what WireGuard has carried of requests and replies with a peer over a rung, both ways, bytes. */
  readonly carried: (rung: Rung, peer: string) => number
}

/** For other messages of gateways between them. */
export type OtherSender = {
  /** @param device its name. @param to the peer's link-local address, without a zone. */
  readonly sendOther: (device: string, to: string, datagram: Buffer) => void
}

/** Three rungs of as many gateways as are remembered; WireGuard lets peers alone in, and over the years they change. */
const MAX_COUNTERS = 3 * MAX_PEERS

export async function openEchoServer(
  options: {
    /** @param interested whether the sender has traffic for us. */
    readonly onRequest: (rung: Rung, from: string, interested: boolean) => void
    readonly onReply: (rung: Rung, from: string, sequence: number) => void
    /** What is no echo. @param device its name. */
    readonly onOther?: (device: string, from: string, datagram: Buffer) => void
    /** What a peer says of itself, in echoes and by itself. */
    readonly onRole?: (from: string, role: Role) => void
    /** Ours; undefined while it is not decided. */
    readonly role?: () => Role | undefined
  },
  signal: AbortSignal,
): Promise<EchoServer & OtherSender> {
  const socket = createSocket({ type: 'udp6', ipv6Only: true, lookup: addressLookup })
  const carried = new Map<string, number>()
  const count = (rung: Rung, peer: string, bytes: number): void => {
    const key = `${rung} ${peer}`
    if (carried.size >= MAX_COUNTERS && !carried.has(key)) carried.delete(carried.keys().next().value!)
    carried.set(key, (carried.get(key) ?? 0) + bytes)
  }
  await bindUdp(socket, ECHO_PORT).catch((cause: unknown) => {
    throw portError('UDP', ECHO_PORT, 'echoes between gateways', undefined, cause)
  })
  // A device that is being made anew refuses packets; the echo counts as lost.
  socket.on('error', () => {})
  socket.on('message', (datagram, { address, port }) => {
    const [from, device] = address.split('%')
    const rung = RUNG_OF_DEVICE.get(device)
    const echo = decodeEcho(datagram)
    // Only WireGuard devices: whoever else is on the LAN is not authenticated.
    if (device === undefined || !OWN_DEVICES.has(device) || port !== ECHO_PORT) return
    if (echo === undefined) return options.onOther?.(device, from!, datagram)
    if (rung === undefined) return
    const bytes = carriedBytes(echo.size)
    count(rung, from!, echo.kind === 'request' ? 2 * bytes : bytes)
    if (echo.role !== undefined) options.onRole?.(from!, echo.role)
    if (echo.kind === 'reply') return options.onReply(rung, from!, echo.sequence)
    if (echo.kind === 'role') return
    socket.send(toReply(datagram, options.role?.()), port, address, () => {})
    options.onRequest(rung, from!, echo.interested)
  })
  onAbort(signal, () => socket.close())
  const send = (rung: Rung, to: string, echo: Echo): void => {
    if (signal.aborted) return
    count(rung, to, carriedBytes(echo.size))
    const datagram = encodeEcho({ ...echo, role: options.role?.() })
    socket.send(datagram, ECHO_PORT, `${to}%${DEVICES[rung]}`, () => {})
  }
  return {
    carried: (rung, peer) => carried.get(`${rung} ${peer}`) ?? 0,
    sendOther: (device, to, datagram) => {
      if (!signal.aborted) socket.send(datagram, ECHO_PORT, `${to}%${device}`, () => {})
    },
    send: (rung, to, request) => send(rung, to, { ...request, kind: 'request' }),
    tellRole: (rung, to) => send(rung, to, { kind: 'role', sequence: 0, size: 'small', interested: false }),
  }
}

const OWN_DEVICES: ReadonlySet<string> = new Set(Object.values(CARRIERS))
const RUNG_OF_DEVICE = new Map<string | undefined, Rung>(
  Object.entries(DEVICES).map(([rung, device]) => [device, rung as Rung]),
)
