// A TCP connection to carry a stream: with half-close, without delay, and noticed by the kernel when its other end is gone
// without a word.

import { connect, type Socket } from 'node:net'
import { onAbort } from './lifetime.ts'

const KEEP_ALIVE_MS = 60_000
/** The kernel asks a second time after one second. */
const ATTEMPT_MS = 1_500
const CARRYING = {
  ...{ allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
  // Nothing is read ahead: it waits in the kernel.
  readableHighWaterMark: 0,
}

/**
 * @param address not a name.
 * @param signal ends the attempt; the connection outlives it.
 * @throws Error of the system, or one without a code where the signal aborted.
 */
export function connectTcp(address: string, port: number, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const socket: Socket = connect({ ...CARRYING, host: address, port })
  const onLate = (): void => void socket.destroy(new Error('too late'))
  const settle = (): void => {
    socket.off('error', onError)
    socket.off('connect', onConnect)
    signal.removeEventListener('abort', onLate)
  }
  const onError = (error: Error): void => {
    settle()
    reject(error)
  }
  const onConnect = (): void => {
    settle()
    resolve(socket)
  }
  socket.on('error', onError)
  socket.on('connect', onConnect)
  // Not net.connect's own option for it, which would end the socket at any time later.
  onAbort(signal, onLate)
  return promise
}

/**
 * Tries the addresses in turn, each but the last for ATTEMPT_MS at the most.
 * @param addresses at least one, no names.
 * @throws the Error of the last that was tried, as `connectTcp` does.
 */
export async function connectTcpToAny(
  addresses: readonly string[],
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  for (const address of addresses.slice(0, -1)) {
    const attempt = AbortSignal.any([signal, AbortSignal.timeout(ATTEMPT_MS)])
    try {
      return await connectTcp(address, port, attempt)
    } catch (error) {
      if (signal.aborted) throw error
    }
  }
  return connectTcp(addresses.at(-1)!, port, signal)
}

/** @param where `address:port`. */
export function connectFailure({ code, message }: NodeJS.ErrnoException, where: string): string {
  switch (code) {
    case 'ECONNREFUSED':
      return `nothing listens on ${where}`
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return `no route to ${where}`
    default:
      return `cannot connect to ${where}: ${message}`
  }
}
