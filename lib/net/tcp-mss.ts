// The size of TCP's segments on connections that a listener accepts, in both directions. A path that loses larger packets
// and says nothing stalls a connection for seconds, again with each new one, before TCP suspects it (RFC 4821); segments
// that IPv6's least MTU carries pass wherever the mesh may be used at all, and cost a fifth more packets, 1 % more bytes.

import type { Server } from 'node:net'
import { fdOf, libc } from './ffi.ts'

/** 1280 bytes (RFC 8200 §5) less the headers of IPv6 and TCP. */
const LEAST_MSS = 1220
/** linux/in.h and linux/tcp.h. */
const IPPROTO_TCP = 6
const TCP_MAXSEG = 2

const functions = libc({
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'int32'] },
})

/**
 * Both ends of what is accepted from now on send no larger segments: the option is in force for what we send, and is said to
 * the other end. @param server that listens. @returns false where it does not listen, or the C library cannot be called.
 */
export function limitSegments(server: Server): boolean {
  const value = Buffer.alloc(4)
  value.writeInt32LE(LEAST_MSS)
  return functions()?.setsockopt(fdOf(server), IPPROTO_TCP, TCP_MAXSEG, value, value.length) === 0
}
