// WireGuard packets over a WebSocket (wss://relay/fulmar/v1/packets), one binary message each:
//
//    0        1        2                                   6
//   +--------+--------+--------+--------+--------+--------+- - - -
//   | ver = 1|  type  |        index (u32, big-endian)    | payload
//   +--------+--------+--------+--------+--------+--------+- - - -
//
//   type 0 DATA   payload: one WireGuard packet
//   type 1 BIND   payload: a node's name in UTF-8; from now on `index` means this node, in this direction
//
// Each sender numbers its own peers: a gateway those it sends to, the relay those that it forwards from, each before
// the first DATA. Binding an index again gives it a new meaning. Other types are ignored, so that versions may differ.
//
// The relay changes the index in the buffer that it received and sends that buffer on: nothing here allocates per
// packet but `dataFrame`.

import { ProtocolError } from './signal.ts'

export const PACKETS_PATH = '/fulmar/v1/packets'
export const PACKET_HEADER_BYTES = 6
/** A message longer than this closes the connection. */
export const MAX_PACKET_FRAME_BYTES = 4096
export const MAX_INDEX = 0xffffffff
/** What a WireGuard keepalive has; whatever is longer carries somebody's data. */
export const KEEPALIVE_BYTES = 32

const VERSION = 1
const TYPE_DATA = 0
const TYPE_BIND = 1
const MAX_NAME_BYTES = 253

export type PacketFrameKind = 'data' | 'bind' | 'unknown'

/** @throws ProtocolError for a frame without a header or of another version. */
export function kindOf(frame: Uint8Array): PacketFrameKind {
  if (frame.length < PACKET_HEADER_BYTES) throw new ProtocolError(`packet frame of ${frame.length} bytes`)
  if (frame[0] !== VERSION) throw new ProtocolError(`packet frame of version ${frame[0]}`)
  switch (frame[1]) {
    case TYPE_DATA:
      return 'data'
    case TYPE_BIND:
      return 'bind'
    default:
      return 'unknown'
  }
}

/** The three below expect a frame that `kindOf` accepted. */
export const indexOf = (frame: Uint8Array): number =>
  ((frame[2]! << 24) | (frame[3]! << 16) | (frame[4]! << 8) | frame[5]!) >>> 0

export function setIndex(frame: Uint8Array, index: number): void {
  frame[2] = index >>> 24
  frame[3] = index >>> 16
  frame[4] = index >>> 8
  frame[5] = index
}

/** The packet in a DATA frame, a view of the same memory. */
export const packetOf = (frame: Uint8Array): Uint8Array => frame.subarray(PACKET_HEADER_BYTES)

/** The node that a BIND frame names. @throws ProtocolError unless it is 1 to 253 bytes of UTF-8. */
export function boundNode(frame: Uint8Array): string {
  const length = frame.length - PACKET_HEADER_BYTES
  if (length < 1 || length > MAX_NAME_BYTES) throw new ProtocolError(`packet frame binds a name of ${length} bytes`)
  try {
    return UTF8.decode(packetOf(frame))
  } catch (cause) {
    throw new ProtocolError('packet frame binds a name that is not UTF-8', { cause })
  }
}
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws RangeError for a packet that the other side would close the connection for. */
export function dataFrame(index: number, packet: Uint8Array): Buffer {
  const length = PACKET_HEADER_BYTES + packet.length
  if (length > MAX_PACKET_FRAME_BYTES) throw new RangeError(`packet of ${packet.length} bytes`)
  const frame = Buffer.allocUnsafe(length)
  frame.set(packet, PACKET_HEADER_BYTES)
  return header(frame, TYPE_DATA, index)
}

export function bindFrame(index: number, node: string): Buffer {
  const name = Buffer.from(node, 'utf8')
  if (name.length < 1 || name.length > MAX_NAME_BYTES) throw new RangeError(`node name of ${name.length} bytes`)
  const frame = Buffer.allocUnsafe(PACKET_HEADER_BYTES + name.length)
  frame.set(name, PACKET_HEADER_BYTES)
  return header(frame, TYPE_BIND, index)
}

function header(frame: Buffer, type: number, index: number): Buffer {
  frame[0] = VERSION
  frame[1] = type
  setIndex(frame, index)
  return frame
}
