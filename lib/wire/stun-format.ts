// The numbers of STUN (RFC 8489, 5780, 8445) and how its header is told from other datagrams.

export const HEADER_BYTES = 20
export const COOKIE = 0x2112a442

export const MAPPED_ADDRESS = 0x0001
export const CHANGE_REQUEST = 0x0003
export const SOURCE_ADDRESS = 0x0004
export const CHANGED_ADDRESS = 0x0005
export const USERNAME = 0x0006
export const MESSAGE_INTEGRITY = 0x0008
export const ERROR_CODE = 0x0009
export const UNKNOWN_ATTRIBUTES = 0x000a
export const NONCE = 0x0015
export const MESSAGE_INTEGRITY_SHA256 = 0x001c
export const XOR_MAPPED_ADDRESS = 0x0020
export const PRIORITY = 0x0024
export const PADDING = 0x0026
export const RESPONSE_PORT = 0x0027
export const FINGERPRINT = 0x8028
export const RESPONSE_ORIGIN = 0x802b
export const OTHER_ADDRESS = 0x802c
/** Must be understood, and mean nothing to us: REALM, PASSWORD-ALGORITHM, USERHASH, USE-CANDIDATE. */
export const WITHOUT_MEANING: readonly number[] = [0x0014, 0x001d, 0x001e, 0x0025]

/** True for a datagram that has the shape and the cookie of STUN; nothing is allocated. False for RFC 3489. */
export function isStun(datagram: Uint8Array): boolean {
  return (
    datagram.length >= HEADER_BYTES &&
    (datagram[0]! & 0xc0) === 0 &&
    (datagram[3]! & 3) === 0 &&
    u32(datagram, 4) === COOKIE &&
    HEADER_BYTES + u16(datagram, 2) <= datagram.length
  )
}

/** RFC 3489 has no mark of its own, so only the three Binding messages of exactly the right length are taken for it. */
export function isClassicStun(datagram: Uint8Array): boolean {
  if (datagram.length < HEADER_BYTES || HEADER_BYTES + u16(datagram, 2) !== datagram.length) return false
  const type = u16(datagram, 0)
  return (type === 0x0001 || type === 0x0101 || type === 0x0111) && u32(datagram, 4) !== COOKIE
}

export const padded = (length: number): number => (length + 3) & ~3
export const u16 = (bytes: Uint8Array, offset: number): number => (bytes[offset]! << 8) | bytes[offset + 1]!
export const u32 = (bytes: Uint8Array, offset: number): number => u16(bytes, offset) * 0x10000 + u16(bytes, offset + 2)
