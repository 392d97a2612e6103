// STUN messages over UDP: RFC 8489, with the attributes of NAT behaviour discovery (RFC 5780) and, for old clients, the
// form of RFC 3489, which has no cookie and a transaction id of 16 bytes.
//
//    0                   1                   2                   3
//   |0 0|  type: method, class  |   length of the attributes    |
//   |               magic cookie 0x2112A442                     |
//   |               transaction id, 12 bytes                    |
//   then attributes: u16 type | u16 length | value, padded to 4 bytes; types under 0x8000 must be understood
//
// What follows an integrity attribute is not covered by it and therefore never read.

import type { SocketAddress } from '../address.ts'
import { addressValueBytes, readAddressValue, writeAddressValue } from './stun-address.ts'
import * as format from './stun-format.ts'
import { HEADER_BYTES, isClassicStun, isStun, padded, u16, u32 } from './stun-format.ts'
import { fingerprintOf, integrityOf, SHA256_BYTES } from './stun-integrity.ts'

export { isStun } from './stun-format.ts'
export { hasIntegrity } from './stun-integrity.ts'

export type StunClass = 'request' | 'indication' | 'success' | 'error'

export type StunMessage = {
  readonly class: StunClass
  /** 12 bits; 1 is Binding. */
  readonly method: number
  /** 12 bytes; 16 if `classic`. Decoded, it is a view into the datagram. */
  readonly transactionId: Uint8Array
  /** RFC 3489: no cookie, and MAPPED-, SOURCE- and CHANGED-ADDRESS instead of the newer three. */
  readonly classic: boolean
  readonly xorMappedAddress?: SocketAddress
  readonly mappedAddress?: SocketAddress
  /** RFC 5780: where this answer was sent from; SOURCE-ADDRESS of RFC 3489. */
  readonly responseOrigin?: SocketAddress
  /** RFC 5780: the server's other address with its other port; CHANGED-ADDRESS of RFC 3489. */
  readonly otherAddress?: SocketAddress
  /** RFC 5780: answer from the other address, from the other port. */
  readonly changeRequest?: { readonly address: boolean; readonly port: boolean }
  /** RFC 5780: answer to this port of the source address. */
  readonly responsePort?: number
  /** RFC 5780: length of PADDING; a multiple of 4. */
  readonly padding?: number
  readonly username?: string
  /** What a server made up and wants to see again. */
  readonly nonce?: string
  readonly priority?: number
  /** 300-699. */
  readonly errorCode?: { readonly code: number; readonly reason: string }
  /**
   * Attributes that must be understood and are not. In an error: those that its sender did not understand. A request
   * with any is answered by 420, a response with any is discarded.
   */
  readonly unknownAttributes: readonly number[]
}

export const METHOD_BINDING = 1
export const TRANSACTION_ID_BYTES = 12

const CLASSES: readonly StunClass[] = ['request', 'indication', 'success', 'error']
/** RFC 8489 §14.3: fewer than 509 bytes. */
const MAX_USERNAME_BYTES = 508
/** RFC 8489 §14.10: fewer than 128 characters, which are up to 763 bytes. */
const MAX_NONCE_BYTES = 763
/** RFC 8489 §14.8: fewer than 128 characters, which are up to 763 bytes. */
const MAX_REASON_BYTES = 763
/** No message of use has more; the rest of a longer list is left out. */
const MAX_UNKNOWN_ATTRIBUTES = 32
const MAX_DATAGRAM_BYTES = 65507

/**
 * Reads a message of RFC 8489, or one of RFC 3489's Binding messages. Attributes that may be ignored are, and so are
 * bytes behind the message; of an attribute that comes twice the first counts.
 * @returns undefined for anything malformed, and for a wrong FINGERPRINT.
 */
export function decodeStun(datagram: Uint8Array): StunMessage | undefined {
  const classic = !isStun(datagram)
  if (classic && !isClassicStun(datagram)) return undefined
  const type = u16(datagram, 0)
  const end = HEADER_BYTES + u16(datagram, 2)
  const unknown: number[] = []
  const message: Mutable<StunMessage> = {
    class: CLASSES[((type >> 7) & 2) | ((type >> 4) & 1)]!,
    method: (type & 0x000f) | ((type >> 1) & 0x0070) | ((type >> 2) & 0x0f80),
    transactionId: datagram.subarray(classic ? 4 : 8, HEADER_BYTES),
    classic,
    unknownAttributes: unknown,
  }
  let covered = false
  for (let offset = HEADER_BYTES; offset < end;) {
    if (offset + 4 > end) return undefined
    const attribute = u16(datagram, offset)
    const length = u16(datagram, offset + 2)
    const value = offset + 4
    const next = value + padded(length)
    if (next > end) return undefined
    if (attribute === format.FINGERPRINT) {
      return length === 4 && u32(datagram, value) === fingerprintOf(datagram, offset) ? message : undefined
    }
    if (attribute === format.MESSAGE_INTEGRITY || attribute === format.MESSAGE_INTEGRITY_SHA256) covered = true
    if (!covered && !readAttribute(message, datagram, attribute, value, length, unknown)) return undefined
    offset = next
  }
  return message
}

/**
 * @param options `integrityKey` adds MESSAGE-INTEGRITY-SHA256, `fingerprint` adds FINGERPRINT.
 * @throws RangeError or TypeError for a message that cannot be written.
 */
export function encodeStun(
  message: StunMessage,
  options: { readonly integrityKey?: Uint8Array; readonly fingerprint?: boolean } = {},
): Buffer {
  const target = Buffer.allocUnsafe(sizeBound(message))
  let end = writeHeader(target, message)
  const address = (attribute: number, value: SocketAddress | undefined, xor = false): void => {
    if (value === undefined) return
    end = writeAttributeHeader(target, end, attribute, addressValueBytes(value))
    end = writeAddressValue(target, end, value, xor)
  }
  const number = (attribute: number, value: number): void => {
    end = writeAttributeHeader(target, end, attribute, 4)
    end = target.writeUInt32BE(value, end)
  }
  address(format.MAPPED_ADDRESS, message.mappedAddress)
  address(format.XOR_MAPPED_ADDRESS, message.xorMappedAddress, true)
  address(message.classic ? format.SOURCE_ADDRESS : format.RESPONSE_ORIGIN, message.responseOrigin)
  address(message.classic ? format.CHANGED_ADDRESS : format.OTHER_ADDRESS, message.otherAddress)
  const { changeRequest, errorCode } = message
  if (changeRequest !== undefined)
    number(format.CHANGE_REQUEST, (changeRequest.address ? 4 : 0) | (changeRequest.port ? 2 : 0))
  if (message.responsePort !== undefined) number(format.RESPONSE_PORT, message.responsePort * 0x10000)
  if (message.priority !== undefined) number(format.PRIORITY, message.priority)
  if (message.username !== undefined)
    end = writeBytes(target, end, format.USERNAME, bounded(message.username, MAX_USERNAME_BYTES, 'USERNAME'))
  if (errorCode !== undefined) end = writeBytes(target, end, format.ERROR_CODE, encodeError(errorCode))
  if (message.nonce !== undefined)
    end = writeBytes(target, end, format.NONCE, bounded(message.nonce, MAX_NONCE_BYTES, 'NONCE'))
  if (message.class === 'error' && message.unknownAttributes.length > 0)
    end = writeBytes(target, end, format.UNKNOWN_ATTRIBUTES, encodeList(message.unknownAttributes))
  if (message.padding !== undefined) end = writeBytes(target, end, format.PADDING, encodePadding(message.padding))
  if (options.integrityKey !== undefined) {
    const mac = integrityOf('sha256', target, end, SHA256_BYTES, options.integrityKey)
    end = writeBytes(target, end, format.MESSAGE_INTEGRITY_SHA256, mac)
  }
  if (options.fingerprint === true) {
    target.writeUInt16BE(end + 8 - HEADER_BYTES, 2)
    number(format.FINGERPRINT, fingerprintOf(target, end))
  }
  target.writeUInt16BE(end - HEADER_BYTES, 2)
  return target.subarray(0, end)
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** @returns false if the attribute is malformed. */
function readAttribute(
  message: Mutable<StunMessage>,
  datagram: Uint8Array,
  attribute: number,
  value: number,
  length: number,
  unknown: number[],
): boolean {
  switch (attribute) {
    case format.MAPPED_ADDRESS:
      return keep(message, 'mappedAddress', readAddressValue(datagram, value, length, false))
    case format.XOR_MAPPED_ADDRESS:
      return keep(message, 'xorMappedAddress', readAddressValue(datagram, value, length, true))
    case format.RESPONSE_ORIGIN:
    case format.SOURCE_ADDRESS:
      return keep(message, 'responseOrigin', readAddressValue(datagram, value, length, false))
    case format.OTHER_ADDRESS:
    case format.CHANGED_ADDRESS:
      return keep(message, 'otherAddress', readAddressValue(datagram, value, length, false))
    case format.CHANGE_REQUEST: {
      if (length !== 4) return false
      const bits = u32(datagram, value)
      return keep(message, 'changeRequest', { address: (bits & 4) !== 0, port: (bits & 2) !== 0 })
    }
    case format.RESPONSE_PORT:
      // RFC 5780 §7.5 can be read as 2 bytes and padding or as 4.
      return (length === 4 || length === 2) && keep(message, 'responsePort', u16(datagram, value))
    case format.PRIORITY:
      return length === 4 && keep(message, 'priority', u32(datagram, value))
    case format.PADDING:
      return keep(message, 'padding', length)
    case format.USERNAME:
      return length <= MAX_USERNAME_BYTES && keep(message, 'username', utf8(datagram, value, length))
    case format.NONCE:
      return length <= MAX_NONCE_BYTES && keep(message, 'nonce', utf8(datagram, value, length))
    case format.ERROR_CODE: {
      if (length < 4 || length > 4 + MAX_REASON_BYTES) return false
      const code = (datagram[value + 2]! & 7) * 100 + datagram[value + 3]!
      return keep(message, 'errorCode', { code, reason: utf8(datagram, value + 4, length - 4) })
    }
    case format.UNKNOWN_ATTRIBUTES:
      for (let i = 0; i + 2 <= length; i += 2) append(unknown, u16(datagram, value + i))
      return true
    default:
      if (attribute < 0x8000 && !format.WITHOUT_MEANING.includes(attribute) && message.class !== 'error')
        append(unknown, attribute)
      return true
  }
}

/** @returns false if the value could not be read. */
function keep<K extends keyof StunMessage>(
  message: Mutable<StunMessage>,
  key: K,
  value: Mutable<StunMessage>[K] | undefined,
): boolean {
  if (value === undefined) return false
  if (message[key] === undefined) message[key] = value
  return true
}

function append(unknown: number[], attribute: number): void {
  if (unknown.length < MAX_UNKNOWN_ATTRIBUTES) unknown.push(attribute)
}

const utf8 = (bytes: Uint8Array, offset: number, length: number): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset + offset, length).toString()

/** More than the message can take; six addresses at most, each number 8 bytes, proofs 44. */
function sizeBound(message: StunMessage): number {
  const texts =
    3 * ((message.username?.length ?? 0) + (message.errorCode?.reason.length ?? 0) + (message.nonce?.length ?? 0))
  const bound = 256 + texts + 2 * message.unknownAttributes.length + (message.padding ?? 0)
  if (!(bound <= MAX_DATAGRAM_BYTES)) throw new RangeError(`STUN: a message of up to ${bound} bytes fits no datagram`)
  return bound
}

function writeHeader(target: Buffer, { class: kind, method, transactionId, classic }: StunMessage): number {
  if (!(method >= 0 && method <= 0xfff)) throw new RangeError(`STUN: method ${method} is not of 12 bits`)
  const idBytes = classic ? 16 : TRANSACTION_ID_BYTES
  if (transactionId.length !== idBytes)
    throw new RangeError(`STUN: transaction id of ${transactionId.length} bytes instead of ${idBytes}`)
  const bits = CLASSES.indexOf(kind)
  const methodBits = ((method & 0xf80) << 2) | ((method & 0x070) << 1) | (method & 0x00f)
  target.writeUInt16BE(methodBits | ((bits & 2) << 7) | ((bits & 1) << 4), 0)
  if (!classic) target.writeUInt32BE(format.COOKIE, 4)
  target.set(transactionId, HEADER_BYTES - idBytes)
  return HEADER_BYTES
}

function writeAttributeHeader(target: Buffer, offset: number, attribute: number, length: number): number {
  target.writeUInt16BE(attribute, offset)
  return target.writeUInt16BE(length, offset + 2)
}

/** @returns the offset behind the padded attribute. */
function writeBytes(target: Buffer, offset: number, attribute: number, bytes: Uint8Array): number {
  const value = writeAttributeHeader(target, offset, attribute, bytes.length)
  const end = value + padded(bytes.length)
  target.fill(0, value, end)
  target.set(bytes, value)
  return end
}

function encodeError({ code, reason }: { readonly code: number; readonly reason: string }): Buffer {
  if (!(code >= 300 && code <= 699)) throw new RangeError(`STUN: error code ${code} is not from 300 to 699`)
  return Buffer.concat([
    Uint8Array.of(0, 0, Math.trunc(code / 100), code % 100),
    bounded(reason, MAX_REASON_BYTES, 'reason'),
  ])
}

function encodeList(attributes: readonly number[]): Buffer {
  const list = Buffer.allocUnsafe(2 * attributes.length)
  for (const [i, attribute] of attributes.entries()) list.writeUInt16BE(attribute, 2 * i)
  return list
}

function encodePadding(length: number): Buffer {
  if (length % 4 !== 0) throw new RangeError(`STUN: PADDING of ${length} bytes is no multiple of 4`)
  return Buffer.alloc(length)
}

function bounded(text: string, maxBytes: number, what: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length > maxBytes) throw new RangeError(`STUN: ${what} of ${bytes.length} bytes is over ${maxBytes}`)
  return bytes
}
