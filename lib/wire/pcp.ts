// Requests to the router before us for a port that the outside may send to, and its answers: PCP (RFC 6887, version 2)
// and its predecessor NAT-PMP (RFC 6886, version 0), both on UDP port 5351. A router that knows only the latter answers
// the former with its own version and "unsupported version".
//
//   PCP request      | 2 | opcode | 0 0 | lifetime 4 | client IP 16 |                MAP: 36 bytes more
//   PCP response     | 2 | 128 + opcode | 0 | result | lifetime 4 | epoch 4 | 0 × 12 | MAP: 36 bytes more
//   PCP MAP          | nonce 12 | protocol | 0 × 3 | internal port 2 | external port 2 | external IP 16 |
//   NAT-PMP address  | 0 | 0 |                                                     -> | 0 | 128 | result 2 | epoch 4 | IPv4 4 |
//   NAT-PMP map      | 0 | 1 | 0 0 | internal port 2 | external port 2 | lifetime 4 |
//                                -> | 0 | 129 | result 2 | epoch 4 | internal port 2 | external port 2 | lifetime 4 |
//
// IP addresses of 16 bytes hold IPv4 as ::ffff:a.b.c.d. Lifetimes and epochs are in seconds.

import { canonicalAddress, readAddress, socketAddress, writeAddress, type SocketAddress } from '../address.ts'
import { familyOf } from '../cidr.ts'

export const PCP_PORT = 5351
export const NONCE_BYTES = 12
/** RFC 6887 §7: a longer datagram is none of PCP's. */
const MAX_BYTES = 1100

/** Result codes of RFC 6887 §7.4; NAT-PMP's first four mean the same. */
export const SUCCESS = 0
const UNSUPPORTED_VERSION = 1
const RESULTS: readonly string[] = [
  'success',
  'unsupported version',
  'not authorized',
  'malformed request',
  'unsupported opcode',
  'unsupported option',
  'malformed option',
  'network failure',
  'no resources',
  'unsupported protocol',
  'quota exceeded',
  'cannot provide the external address',
  'address mismatch: there is another NAT in between',
  'excessive remote peers',
]
const PMP_RESULTS: readonly string[] = [
  'success',
  'unsupported version',
  'not authorized',
  'network failure',
  'no resources',
  'unsupported opcode',
]
export const resultText = (protocol: 'pcp' | 'nat-pmp', result: number): string =>
  (protocol === 'pcp' ? RESULTS : PMP_RESULTS)[result] ?? `result code ${result}`

export type MapRequest = {
  /** The address that the request is sent from. */
  readonly client: string
  readonly nonce: Uint8Array
  readonly internalPort: number
  /** What is wished for; a router may give another. */
  readonly external?: SocketAddress | undefined
  readonly lifetimeSeconds: number
}

/** What a router answered; none of it is checked against what it was asked. */
export type MappingReply =
  | {
      readonly kind: 'pcp-map'
      readonly result: number
      /** For an error: how long the router expects to answer the same. */
      readonly lifetimeSeconds: number
      readonly epochSeconds: number
      readonly nonce: Uint8Array
      readonly protocol: number
      readonly internalPort: number
      readonly external: SocketAddress
    }
  | { readonly kind: 'pcp-announce'; readonly result: number; readonly epochSeconds: number }
  | {
      readonly kind: 'pmp-map'
      readonly result: number
      readonly epochSeconds: number
      readonly internalPort: number
      readonly externalPort: number
      readonly lifetimeSeconds: number
    }
  | { readonly kind: 'pmp-address'; readonly result: number; readonly epochSeconds: number; readonly address: string }
  /** To whatever it was asked; `version` is the router's highest. */
  | { readonly kind: 'unsupported-version'; readonly version: number }

export const IPPROTO_UDP = 17
const PCP_VERSION = 2
const ANNOUNCE = 0
const MAP = 1
const RESPONSE = 0x80
const HEADER_BYTES = 24
const MAP_BYTES = HEADER_BYTES + 36

/** @throws TypeError for a client that is no address. */
export function encodeMapRequest(request: MapRequest): Buffer {
  const bytes = header(MAP, request.client, request.lifetimeSeconds, MAP_BYTES)
  bytes.set(request.nonce.subarray(0, NONCE_BYTES), 24)
  bytes[36] = IPPROTO_UDP
  bytes.writeUInt16BE(request.internalPort, 40)
  bytes.writeUInt16BE(request.external?.port ?? request.internalPort, 42)
  // Unspecified, the address still tells which family is asked for (§11.1).
  writeAddress16(request.external?.address ?? (familyOf(request.client) === 4 ? '0.0.0.0' : '::'), bytes, 44)
  return bytes
}

/** Asks for nothing but a sign of life, which tells whether the router still knows our mappings (§14.1). */
export const encodeAnnounceRequest = (client: string): Buffer => header(ANNOUNCE, client, 0, HEADER_BYTES)

export const encodePmpAddressRequest = (): Buffer => Buffer.from([0, 0])

export function encodePmpMapRequest(request: Omit<MapRequest, 'client' | 'nonce'>): Buffer {
  const bytes = Buffer.alloc(12)
  bytes[1] = 1
  bytes.writeUInt16BE(request.internalPort, 4)
  bytes.writeUInt16BE(request.external?.port ?? request.internalPort, 6)
  bytes.writeUInt32BE(request.lifetimeSeconds, 8)
  return bytes
}

/** @returns undefined for what is no answer of either protocol. Trailing bytes, such as options, are ignored. */
export function decodeMappingReply(datagram: Uint8Array): MappingReply | undefined {
  const bytes = Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength)
  if (bytes.length < 4 || bytes.length > MAX_BYTES || bytes[1]! < RESPONSE) return undefined
  const opcode = bytes[1]! & ~RESPONSE
  if (bytes[0] === 0) return decodePmp(bytes, opcode)
  if (bytes[3] === UNSUPPORTED_VERSION) return { kind: 'unsupported-version', version: bytes[0]! }
  if (bytes[0] !== PCP_VERSION || bytes.length < HEADER_BYTES) return undefined
  const [result, lifetimeSeconds, epochSeconds] = [bytes[3]!, bytes.readUInt32BE(4), bytes.readUInt32BE(8)]
  if (opcode === ANNOUNCE) return { kind: 'pcp-announce', result, epochSeconds }
  if (opcode !== MAP || bytes.length < MAP_BYTES) return undefined
  const external = socketAddress(canonicalAddress(readAddress(bytes, 6, 44)) ?? '', bytes.readUInt16BE(42))
  if (external === undefined) return undefined
  return {
    kind: 'pcp-map',
    result,
    lifetimeSeconds,
    epochSeconds,
    nonce: bytes.subarray(24, 24 + NONCE_BYTES),
    protocol: bytes[36]!,
    internalPort: bytes.readUInt16BE(40),
    external,
  }
}

function decodePmp(bytes: Buffer, opcode: number): MappingReply | undefined {
  const result = bytes.readUInt16BE(2)
  if (result === UNSUPPORTED_VERSION) return { kind: 'unsupported-version', version: 0 }
  if (bytes.length < 8) return undefined
  const epochSeconds = bytes.readUInt32BE(4)
  if (opcode === 0 && (bytes.length >= 12 || result !== SUCCESS))
    return {
      kind: 'pmp-address',
      result,
      epochSeconds,
      address: bytes.length >= 12 ? readAddress(bytes, 4, 8) : '0.0.0.0',
    }
  if (opcode !== 1 || bytes.length < 16) return undefined
  return {
    kind: 'pmp-map',
    result,
    epochSeconds,
    internalPort: bytes.readUInt16BE(8),
    externalPort: bytes.readUInt16BE(10),
    lifetimeSeconds: bytes.readUInt32BE(12),
  }
}

function header(opcode: number, client: string, lifetimeSeconds: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  bytes[0] = PCP_VERSION
  bytes[1] = opcode
  bytes.writeUInt32BE(lifetimeSeconds, 4)
  writeAddress16(client, bytes, 8)
  return bytes
}

function writeAddress16(address: string, target: Buffer, offset: number): void {
  if (familyOf(address) === 6) return writeAddress(address, 6, target, offset)
  target.fill(0xff, offset + 10, offset + 12)
  writeAddress(address, 4, target, offset + 12)
}
