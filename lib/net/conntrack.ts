// Flows that the kernel tracks, deleted one by one by their tuple (ctnetlink): it is found by its hash, where `conntrack -D`
// walks the whole table, which all namespaces share and which takes 20 ms, for each command.
//
//   nfgenmsg: u8 family, u8 version 0, u16 0 | attributes (lib/net/netfilter.ts)
//   TUPLE_ORIG { IP { src, dst }, PROTO { u8 number, u16 source port, u16 destination port } }, ports in network order

import { writeAddress } from '../address.ts'
import type { Family } from '../cidr.ts'
import {
  attribute,
  CONNTRACK,
  ENOENT,
  errnoOf,
  NESTED,
  NetfilterError,
  openNetfilter,
  TIMEOUT_MS,
} from './netfilter.ts'
import { AF } from './sockaddr.ts'

/** The first direction of a flow, as it was before any translation. */
export type UdpFlow = {
  readonly family: Family
  readonly source: string
  readonly sourcePort: number
  readonly destination: string
  readonly destinationPort: number
}

const CT_DELETE = CONNTRACK | 2
const TUPLE_ORIG = 1
const TUPLE = { ip: 1, proto: 2 }
const IP: Readonly<Record<Family, { readonly src: number; readonly dst: number }>> = {
  4: { src: 1, dst: 2 },
  6: { src: 3, dst: 4 },
}
const PROTO = { number: 1, sourcePort: 2, destinationPort: 3 }
const UDP = 17

/**
 * Those that are gone already count as deleted.
 * @throws Error with what the kernel said, after which the others are deleted none the less.
 */
export async function deleteUdpFlows(flows: readonly UdpFlow[]): Promise<void> {
  const socket = openNetfilter()
  try {
    let failed: Error | undefined
    for (const flow of flows) {
      const [[answer]] = await socket.request(CT_DELETE, encodeFlow(flow), { checkError: false, timeout: TIMEOUT_MS })
      const errno = errnoOf(answer)
      if (errno !== 0 && errno !== ENOENT)
        failed = new NetfilterError(`conntrack: cannot delete the flow to ${flow.destination}`, errno)
    }
    if (failed !== undefined) throw failed
  } finally {
    socket.close()
  }
}

/** The body of the request. */
export function encodeFlow({ family, source, sourcePort, destination, destinationPort }: UdpFlow): Buffer {
  return Buffer.concat([
    Buffer.from([AF[family], 0, 0, 0]),
    attribute(
      TUPLE_ORIG | NESTED,
      attribute(
        TUPLE.ip | NESTED,
        attribute(IP[family].src, addressBytes(source, family)),
        attribute(IP[family].dst, addressBytes(destination, family)),
      ),
      attribute(
        TUPLE.proto | NESTED,
        attribute(PROTO.number, Buffer.from([UDP])),
        attribute(PROTO.sourcePort, portBytes(sourcePort)),
        attribute(PROTO.destinationPort, portBytes(destinationPort)),
      ),
    ),
  ])
}

function addressBytes(address: string, family: Family): Buffer {
  const bytes = Buffer.alloc(family === 4 ? 4 : 16)
  writeAddress(address, family, bytes, 0)
  return bytes
}

function portBytes(port: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(port)
  return bytes
}
