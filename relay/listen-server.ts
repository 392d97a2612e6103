// A TCP port or a Unix socket to listen on, or words that tell why it cannot be had and what to do.

import type { Server } from 'node:net'
import { formatSocketAddress, type SocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { UsageError } from '../lib/net/lifetime.ts'

export type ListenAddress = Pick<SocketAddress, 'address' | 'port'>

/** kube-apiserver in a static pod runs as root; others that may are of the socket's group. */
const SOCKET_UMASK = 0o117

/**
 * Resolves when the server listens; what it fails to accept from then on is logged.
 * @param where an address, or the path of a Unix socket.
 * @param flag by which another may be chosen.
 * @throws UsageError naming the place; its cause is the system's error.
 */
export async function listen(server: Server, where: ListenAddress | string, flag: string, log: Log): Promise<void> {
  const addr = typeof where === 'string' ? where : formatSocketAddress(where)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  server.once('listening', resolve)
  if (typeof where === 'string') bindSocket(server, where)
  else server.listen({ host: where.address, port: where.port, ipv6Only: where.address.includes(':') })
  try {
    await promise
  } catch (cause) {
    throw new UsageError(`cannot listen on ${addr}: ${remedyOf(cause as NodeJS.ErrnoException, where, flag)}`, {
      cause,
    })
  } finally {
    server.off('error', reject)
  }
  // Out of file descriptors, most likely; those who are connected go on.
  server.on('error', (err) => log.error({ err, addr }, 'cannot accept a connection'))
}

/** @returns where it listens; port 0 has become a real one. */
export const addressOf = (server: Server): ListenAddress => server.address() as { address: string; port: number }

/** bind() happens inside listen(), so there is no moment in which others may connect. */
function bindSocket(server: Server, path: string): void {
  const umask = process.umask(SOCKET_UMASK)
  try {
    server.listen(path)
  } finally {
    process.umask(umask)
  }
}

function remedyOf(cause: NodeJS.ErrnoException, where: ListenAddress | string, flag: string): string {
  const otherwise = `choose another by ${flag}`
  if (typeof where === 'string') return `${cause.message}; ${otherwise}`
  switch (cause.code) {
    case 'EADDRINUSE':
      return `another process has it (ss -ltnp 'sport = :${where.port}' names it); stop that or ${otherwise}`
    case 'EACCES':
      return `ports below 1024 need root or CAP_NET_BIND_SERVICE; or ${otherwise}`
    case 'EADDRNOTAVAIL':
      return `this machine does not have the address; ${otherwise}`
    default:
      return `${cause.message}; ${otherwise}`
  }
}
