// Where the other end of an accepted connection wanted to go: the address that it dialled, which is not always that of the
// listener. A route may lead packets for other hosts into this one (the socket's local address is theirs then), and nft's
// `redirect` may have translated their destination (getsockopt SO_ORIGINAL_DST, netfilter_ipv4.h, tells it).

import type * as Ffi from 'node:ffi'
import type { Socket } from 'node:net'
import { canonicalAddress } from '../address.ts'
import { familyOf, type Family } from '../cidr.ts'
import { loadFfi } from './ffi.ts'
import { addressIn, SOCKADDR_BYTES } from './sockaddr.ts'

/** SOL_IP and SOL_IPV6. */
const LEVEL: Readonly<Record<Family, number>> = { 4: 0, 6: 41 }
/** SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST. */
const ORIGINAL_DESTINATION = 80

const SIGNATURES = {
  getsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'] },
} as const satisfies Ffi.FunctionDefinitions

type Getsockopt = (fd: number, level: number, name: number, value: Buffer, length: Buffer) => number
let getsockopt: Getsockopt | 'none' | undefined

/** @param socket accepted by a listener of one family. @returns in canonical text; undefined for a socket that is closed. */
export function originalDestination(socket: Socket): string | undefined {
  const local = canonicalAddress(socket.localAddress ?? '')
  const family = local === undefined ? undefined : familyOf(local)
  if (local === undefined || family === undefined) return undefined
  return translatedFrom(socket, family) ?? local
}

/** undefined where the kernel tracks no connections, or not this one. */
function translatedFrom(socket: Socket, family: Family): string | undefined {
  const { fd } = (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle ?? {}
  if (fd === undefined || fd < 0) return undefined
  getsockopt ??= load()
  if (getsockopt === 'none') return undefined
  const name = Buffer.alloc(SOCKADDR_BYTES[6])
  const length = Buffer.from([name.length, 0, 0, 0])
  if (getsockopt(fd, LEVEL[family], ORIGINAL_DESTINATION, name, length) !== 0) return undefined
  return addressIn(name)
}

function load(): Getsockopt | 'none' {
  try {
    return loadFfi().dlopen(null, SIGNATURES).functions.getsockopt
  } catch {
    return 'none'
  }
}
