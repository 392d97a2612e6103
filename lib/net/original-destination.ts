// Where the other end of an accepted connection wanted to go: the address that it dialled, which is not always that of the
// listener. A route may lead packets for other hosts into this one (the socket's local address is theirs then), and nft's
// `redirect` may have translated their destination (getsockopt SO_ORIGINAL_DST, netfilter_ipv4.h, tells it).

import type { Socket } from 'node:net'
import { canonicalAddress } from '../address.ts'
import { familyOf, type Family } from '../cidr.ts'
import { fdOf, libc } from './ffi.ts'
import { addressIn, SOCKADDR_BYTES } from './sockaddr.ts'

/** SOL_IP and SOL_IPV6. */
const LEVEL: Readonly<Record<Family, number>> = { 4: 0, 6: 41 }
/** SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST. */
const ORIGINAL_DESTINATION = 80

const functions = libc({
  getsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'] },
})

/** @param socket accepted by a listener of one family. @returns in canonical text; undefined for a socket that is closed. */
export function originalDestination(socket: Socket): string | undefined {
  const local = canonicalAddress(socket.localAddress ?? '')
  const family = local === undefined ? undefined : familyOf(local)
  if (local === undefined || family === undefined) return undefined
  return translatedFrom(socket, family) ?? local
}

/** undefined where the kernel tracks no connections, or not this one. */
function translatedFrom(socket: Socket, family: Family): string | undefined {
  const fd = fdOf(socket)
  if (fd < 0) return undefined
  const name = Buffer.alloc(SOCKADDR_BYTES[6])
  const length = Buffer.from([name.length, 0, 0, 0])
  const failed = functions()?.getsockopt(fd, LEVEL[family], ORIGINAL_DESTINATION, name, length)
  return failed === 0 ? addressIn(name) : undefined
}
