// The UDP socket of a daemon on its pool's LAN, for both families. Where its port cannot be had the daemon goes on without
// and asks again: the LAN channel makes a pool better, and no node may be worse for it.

import { createSocket, type Socket } from 'node:dgram'
import { isIPv4 } from 'node:net'
import type { Log } from '../log.ts'
import { pause } from './lifetime.ts'
import { portError } from './port-error.ts'
import { addressLookup, bindUdp } from './udp-socket.ts'

export type LanSocket = {
  /** A datagram that cannot be sent counts as lost. */
  readonly send: (datagram: Buffer, port: number, address: string) => void
  /** Why there is none; undefined while there is. */
  readonly problem: () => string | undefined
}

const RETRY_MS = 5_000
/** Bursts after a stall wait here rather than being lost. */
const RECEIVE_BYTES = 1 << 18

export function openLanSocket(
  options: {
    readonly port: number
    /** @param answer sends to where it came from. */
    readonly onMessage: (datagram: Buffer, answer: (datagram: Buffer) => void) => void
    readonly log: Log
  },
  signal: AbortSignal,
): LanSocket {
  const { port, log } = options
  let open: { readonly socket: Socket; readonly dual: boolean } | undefined
  let problem: string | undefined

  const bind = async (type: 'udp6' | 'udp4'): Promise<Socket> => {
    const socket = createSocket({ type, recvBufferSize: RECEIVE_BYTES, lookup: addressLookup })
    await bindUdp(socket, port)
    return socket
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted && open === undefined) {
      try {
        // A kernel without IPv6 has no such socket.
        const socket = await bind('udp6').catch((error: NodeJS.ErrnoException) => {
          if (error.code === 'EADDRINUSE') throw error
          return bind('udp4')
        })
        if (signal.aborted) return void socket.close()
        signal.addEventListener('abort', () => socket.close(), { once: true })
        socket.on('error', (err) => log.debug({ err }, 'the LAN socket met an error'))
        socket.on('message', (datagram, { port, address }) =>
          options.onMessage(datagram, (answer) => {
            if (!signal.aborted) socket.send(answer, port, address, () => {})
          }),
        )
        open = { socket, dual: 'address' in socket.address() && socket.address().family === 'IPv6' }
        problem = undefined
      } catch (cause) {
        const err = portError('UDP', port, "the pool's LAN", 'choose another --lan-port on all nodes', cause)
        if (problem === undefined) log.error({ err }, 'no LAN channel; trying again')
        problem = err.message
        await pause(RETRY_MS, signal)
      }
    }
  }
  void run()

  return {
    problem: () => problem,
    send: (datagram, to, address) => {
      if (open === undefined || signal.aborted) return
      if (isIPv4(address)) open.socket.send(datagram, to, open.dual ? `::ffff:${address}` : address, () => {})
      else if (open.dual) open.socket.send(datagram, to, address, () => {})
    },
  }
}
