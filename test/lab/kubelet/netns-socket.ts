// TCP sockets inside another network namespace: a socket stays where it was made, whoever uses it. Through node:ffi; the
// thread is in the other namespace only between two lines of one function.

import { closeSync, constants, openSync } from 'node:fs'
import { Socket } from 'node:net'
import { loadFfi } from '../../../lib/net/ffi.ts'
import { onAbort } from '../../../lib/net/lifetime.ts'
import { AF, encodeSockaddr, SOCK } from '../../../lib/net/sockaddr.ts'
import type { Family } from '../../../lib/cidr.ts'

const CLONE_NEWNET = 0x4000_0000
const KIND = SOCK.stream | SOCK.nonBlocking | SOCK.closeOnExec
const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const BACKLOG = 511

const SIGNATURES = {
  setns: { return: 'int32', arguments: ['int32', 'int32'] },
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'] },
  bind: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  listen: { return: 'int32', arguments: ['int32', 'int32'] },
} as const

const load = () => loadFfi().dlopen(null, SIGNATURES).functions
let libc: ReturnType<typeof load> | undefined

/** A descriptor that listens on a port of all addresses of a namespace, in both families. */
export function listenIn(namespace: string, port: number): number {
  return within(namespace, (c) => {
    const descriptor = c.socket(AF[6], KIND, 0)
    const name = encodeSockaddr('::', 6, port)
    const one = Buffer.from([1, 0, 0, 0])
    const done =
      c.setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, one, one.length) === 0 &&
      c.bind(descriptor, name, name.length) === 0 &&
      c.listen(descriptor, BACKLOG) === 0
    if (done) return descriptor
    closeSync(descriptor)
    throw new Error(`${namespace}: port ${port} cannot be had`)
  })
}

/** A connection to a port of a namespace's own loopback, by IPv4 or else IPv6, as containerd does it. */
export async function connectIn(namespace: string, port: number, signal: AbortSignal): Promise<Socket> {
  try {
    return await connect(namespace, 4, '127.0.0.1', port, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error
    return connect(namespace, 6, '::1', port, signal)
  }
}

function connect(namespace: string, family: Family, host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const fd = within(namespace, (c) => c.socket(AF[family], KIND, 0))
  const socket = new Socket({ fd, allowHalfOpen: true })
  return connected(socket.connect({ host, port }), signal)
}

/** @param signal ends the attempt, and not what comes of it. */
export function connected(socket: Socket, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const stop = (): void => void socket.destroy(signal.reason as Error)
  onAbort(signal, stop)
  socket.once('error', reject)
  socket.once('connect', () => {
    socket.off('error', reject)
    resolve(socket)
  })
  return promise.finally(() => signal.removeEventListener('abort', stop))
}

function within<T>(namespace: string, body: (c: NonNullable<typeof libc>) => T): T {
  libc ??= load()
  const there = openSync(namespace, constants.O_RDONLY)
  const here = openSync('/proc/thread-self/ns/net', constants.O_RDONLY)
  try {
    if (libc.setns(there, CLONE_NEWNET) !== 0) throw new Error(`${namespace} cannot be entered`)
    try {
      return body(libc)
    } finally {
      // Whoever stayed there would do everything else in the wrong place.
      if (libc.setns(here, CLONE_NEWNET) !== 0) process.abort()
    }
  } finally {
    closeSync(there)
    closeSync(here)
  }
}
