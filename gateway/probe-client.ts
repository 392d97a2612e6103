// The socket that shares WireGuard's port (gateway/port-sharing.ts), one per address family: whatever it sends leaves
// from WireGuard's port, and of what arrives there it gets STUN. It carries our probes, the answers to a peer's, and
// questions to STUN servers, so that all of them see the NAT mapping that WireGuard has.

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { socketAddress, type SocketAddress } from '../lib/address.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { portError } from '../lib/net/port-error.ts'
import { addressLookup, bindUdp } from '../lib/net/udp-socket.ts'
import { decodeStun, type StunMessage } from '../lib/wire/stun.ts'

export type ProbeSocket = {
  /** @param ttl hop limit of this packet only; undefined for the usual one. */
  readonly send: (datagram: Uint8Array, to: SocketAddress, ttl?: number) => void
  /** Datagrams that were no STUN message, or came from port 0. */
  readonly malformed: () => number
}

const USUAL_TTL = 64

/** @throws UsageError when the port is taken. */
export async function openProbeSocket(
  options: {
    readonly port: number
    readonly onMessage: (message: StunMessage, datagram: Buffer, from: SocketAddress) => void
  },
  signal: AbortSignal,
): Promise<ProbeSocket> {
  let malformed = 0
  const receive = (datagram: Buffer, { address, port }: RemoteInfo): void => {
    const from = socketAddress(address, port)
    const message = decodeStun(datagram)
    // Nobody can be answered on port 0.
    if (message === undefined || from === undefined || port === 0) malformed++
    else options.onMessage(message, datagram, from)
  }
  const open = async (family: 4 | 6): Promise<Socket | undefined> => {
    const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6, lookup: addressLookup })
    try {
      await bindUdp(socket, options.port)
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException
      // A host without IPv6 has no such sockets: then the mesh runs over IPv4 alone.
      if (family === 6 && code === 'EAFNOSUPPORT') return undefined
      const remedy = 'remove gateway/ports.json in the state directory for other ports'
      throw portError('UDP', options.port, 'probes', remedy, cause)
    }
    // Errors of single packets, such as an ICMP "unreachable" for a candidate, are no news: an answer is.
    socket.on('error', () => {})
    socket.on('message', receive)
    onAbort(signal, () => socket.close())
    return socket
  }
  const [v4, v6] = await Promise.all([open(4), open(6)])
  return {
    send: (datagram, { address, port, family }, ttl) => {
      const socket = family === 4 ? v4 : v6
      if (socket === undefined || signal.aborted) return
      // With `addressLookup` the packet leaves within this call, so the hop limit is this packet's only.
      if (ttl !== undefined) socket.setTTL(ttl)
      socket.send(datagram, port, address, () => {})
      if (ttl !== undefined) socket.setTTL(USUAL_TTL)
    },
    malformed: () => malformed,
  }
}
