// TCP by the C library's own calls, through node:ffi. They block until they are done, so that what is timed is the way
// through the kernel and not an event loop. IPv4.

import type * as Ffi from 'node:ffi'
import { getSystemErrorName } from 'node:util'
import { loadFfi } from '../../lib/net/ffi.ts'
import { AF, encodeSockaddr, SOCK, SOCKADDR_BYTES } from '../../lib/net/sockaddr.ts'

const SIGNATURES = {
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  connect: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  bind: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  listen: { return: 'int32', arguments: ['int32', 'int32'] },
  accept: { return: 'int32', arguments: ['int32', 'pointer', 'pointer'] },
  send: { return: 'int64', arguments: ['int32', 'buffer', 'uint64', 'int32'] },
  recv: { return: 'int64', arguments: ['int32', 'buffer', 'uint64', 'int32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'] },
  getsockname: { return: 'int32', arguments: ['int32', 'buffer', 'buffer'] },
  getpeername: { return: 'int32', arguments: ['int32', 'buffer', 'buffer'] },
  close: { return: 'int32', arguments: ['int32'] },
  epoll_create1: { return: 'int32', arguments: ['int32'] },
  epoll_ctl: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer'] },
  epoll_wait: { return: 'int32', arguments: ['int32', 'buffer', 'int32', 'int32'] },
  __errno_location: { return: 'pointer', arguments: [] },
} as const satisfies Ffi.FunctionDefinitions

const SOL_SOCKET = 1
const SO_REUSEADDR = 2
const SO_LINGER = 13
const SO_RCVTIMEO = 20
const SO_SNDTIMEO = 21
const IPPROTO_TCP = 6
const TCP_NODELAY = 1
const MSG_NOSIGNAL = 0x4000
const BACKLOG = 4096
const EPOLL_CTL_ADD = 1
const EPOLLIN = 1
/** struct epoll_event is packed on x86-64 only. */
const EVENT = process.arch === 'x64' ? { bytes: 12, data: 4 } : { bytes: 16, data: 8 }
const EVENTS_MAX = 64
/** Whoever waits longer for an answer has none. */
const TIMEOUT_SECONDS = 2n

const ffi = loadFfi()
const libc = ffi.dlopen(null, SIGNATURES).functions
const errnoAt = libc.__errno_location()

/** Of its own, so that it stays where it is; not from Node's pool. */
export const memory = (bytes: number): Buffer => Buffer.from(new ArrayBuffer(bytes))

const fail = (what: string): Error => new Error(`${what}: ${getSystemErrorName(-ffi.getInt32(errnoAt))}`)
function checked(result: number, what: string): number {
  if (result < 0) throw fail(what)
  return result
}

const ONE = integers(1)
/** Closing then sends a reset: nothing waits in TIME_WAIT. */
const NO_LINGER = integers(1, 0)
const TIMEOUT = memory(16)
TIMEOUT.writeBigInt64LE(TIMEOUT_SECONDS)

/** A struct sockaddr_in, made once for an address that is called often. */
export const socketName = (address: string, port: number): Buffer => encodeSockaddr(address, 4, port)

/** @returns a descriptor. @throws Error */
export function openSocket(): number {
  const fd = checked(libc.socket(AF[4], SOCK.stream, 0), 'socket')
  libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, TIMEOUT, TIMEOUT.length)
  libc.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, TIMEOUT, TIMEOUT.length)
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, NO_LINGER, NO_LINGER.length)
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, ONE.length)
  return fd
}

export const connectSocket = (fd: number, name: Buffer): void =>
  void checked(libc.connect(fd, name, name.length), 'connect')

export function listenOn(port: number): number {
  const fd = checked(libc.socket(AF[4], SOCK.stream, 0), 'socket')
  libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, ONE, ONE.length)
  const name = socketName('0.0.0.0', port)
  checked(libc.bind(fd, name, name.length), `bind ${port}`)
  checked(libc.listen(fd, BACKLOG), `listen ${port}`)
  return fd
}

export function acceptFrom(listening: number): number {
  const fd = checked(libc.accept(listening, 0n, 0n), 'accept')
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, ONE, ONE.length)
  return fd
}

/** @throws Error unless all is taken. */
export function sendAll(fd: number, bytes: Buffer, length: bigint): void {
  const sent = libc.send(fd, bytes, length, MSG_NOSIGNAL)
  if (sent !== length) throw sent < 0n ? fail('send') : new Error(`send: ${sent} of ${length} bytes`)
}

/** @returns 0 for the end, and for a connection that was reset. */
export function receiveSome(fd: number, into: Buffer): number {
  const length = Number(libc.recv(fd, into, BigInt(into.length), 0))
  return length < 0 ? 0 : length
}

/** @throws Error where nothing comes. */
export function receive(fd: number, into: Buffer): number {
  const length = Number(libc.recv(fd, into, BigInt(into.length), 0))
  if (length <= 0) throw length < 0 ? fail('recv') : new Error('recv: the connection was closed')
  return length
}

export const closeSocket = (fd: number): void => void libc.close(fd)

/** `ADDRESS:PORT` */
export const ownName = (fd: number): string => nameBy('getsockname', fd)
export const peerName = (fd: number): string => nameBy('getpeername', fd)
function nameBy(call: 'getsockname' | 'getpeername', fd: number): string {
  const name = memory(SOCKADDR_BYTES[4])
  checked(libc[call](fd, name, integers(name.length)), call)
  return `${name.subarray(4, 8).join('.')}:${name.readUInt16BE(2)}`
}

/** Descriptors that are waited for together. */
export class Waiting {
  readonly #fd = checked(libc.epoll_create1(0), 'epoll_create1')
  readonly #events = memory(EVENT.bytes * EVENTS_MAX)

  add(fd: number): void {
    const event = memory(EVENT.bytes)
    event.writeUInt32LE(EPOLLIN)
    event.writeInt32LE(fd, EVENT.data)
    checked(libc.epoll_ctl(this.#fd, EPOLL_CTL_ADD, fd, event), 'epoll_ctl')
  }

  /** @returns how many can be read, at most 64. */
  wait(timeoutMs: number): number {
    return libc.epoll_wait(this.#fd, this.#events, EVENTS_MAX, timeoutMs)
  }

  /** Of those of the last `wait`. */
  ready(i: number): number {
    return this.#events.readInt32LE(i * EVENT.bytes + EVENT.data)
  }

  close(): void {
    libc.close(this.#fd)
  }
}

function integers(...values: readonly number[]): Buffer {
  const bytes = memory(4 * values.length)
  values.forEach((value, i) => bytes.writeInt32LE(value, 4 * i))
  return bytes
}
