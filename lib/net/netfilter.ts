// What netfilter's netlink families (conntrack, nftables) have in common: the socket, the attributes, and answers that are
// errors.
//
//   attribute: u16 length, u16 type, value, pad to 4
//
// Lengths and types are in the byte order of the host, which is little-endian on every machine that Node 26 is built for but s390x.

import { getSystemErrorName } from 'node:util'
import { createNetlink, parseError, Protocol, type NetlinkMessage, type NetlinkSocket } from 'netlink'

/** Kinds of message are below it: `NFTABLES | kind`. */
export const NFTABLES = 10 << 8
export const CONNTRACK = 1 << 8
export const ENOENT = 2
export const TIMEOUT_MS = 2_000
/** Of an attribute that holds attributes. */
export const NESTED = 0x8000

const TYPE_MASK = 0x3fff
const MESSAGE_ERROR = 2

/** `errno` is the name, e.g. EPERM. */
export class NetfilterError extends Error {
  readonly code = 'FULMAR_NETFILTER'
  override readonly name = 'NetfilterError'
  readonly errno: string
  /** @param errno as the kernel has it, above zero. */
  constructor(operation: string, errno: number) {
    const errnoName = getSystemErrorName(-errno)
    super(`${operation}: ${errnoName}`)
    this.errno = errnoName
  }
}

/** Does not keep the process alive. */
export function openNetfilter(): NetlinkSocket {
  const socket = createNetlink(Protocol.NETFILTER, { ref: false } as Parameters<typeof createNetlink>[1])
  // An answer that was lost shows as the time-out of its request.
  socket.on('error', () => undefined)
  return socket
}

/** @returns the number of the error that the kernel answered with; 0 for none. */
export function errnoOf(answer: NetlinkMessage | undefined): number {
  return answer?.type === MESSAGE_ERROR ? -parseError(answer.data, answer.flags).errno : 0
}

export function attribute(type: number, ...content: readonly Buffer[]): Buffer {
  const value = Buffer.concat(content)
  const padded = Buffer.alloc((4 + value.length + 3) & ~3)
  padded.writeUInt16LE(4 + value.length, 0)
  padded.writeUInt16LE(type, 2)
  value.copy(padded, 4)
  return padded
}

/** A name, ending in zero. */
export const textAttribute = (type: number, text: string): Buffer => attribute(type, Buffer.from(`${text}\0`))

/** Without what is cut short, and all behind it. */
export function* attributes(bytes: Buffer): Generator<readonly [type: number, value: Buffer]> {
  for (let offset = 0; offset + 4 <= bytes.length;) {
    const length = bytes.readUInt16LE(offset)
    if (length < 4 || offset + length > bytes.length) return
    yield [bytes.readUInt16LE(offset + 2) & TYPE_MASK, bytes.subarray(offset + 4, offset + length)]
    offset += (length + 3) & ~3
  }
}
