// What a STUN server with NAT behaviour discovery answers (RFC 8489 §6.3, RFC 5780 §6), and from which of its sockets.
//
// A server of one family has sockets on one address or two, and on two ports of each; a socket's index has the port in
// bit 0 and the address in bit 1, so "the other port" is `^ 1` and "the other address" `^ 2`. With one address only it
// names no OTHER-ADDRESS and refuses CHANGE-REQUEST, which tells clients that filtering cannot be found out here.

import type { SocketAddress } from '../lib/address.ts'
import { decodeStun, encodeStun, METHOD_BINDING, type StunMessage } from '../lib/wire/stun.ts'
import { CHANGE_REQUEST } from '../lib/wire/stun-format.ts'

/** Of one family: A:p1, A:p2 and, with a second address, B:p1, B:p2. */
export type StunSockets =
  | readonly [SocketAddress, SocketAddress]
  | readonly [SocketAddress, SocketAddress, SocketAddress, SocketAddress]

export type StunReply = {
  readonly datagram: Buffer
  /** Index of the socket to send it from. */
  readonly from: number
  /** Where to, at the request's source address. */
  readonly port: number
}

/** @param received index of the socket that got the datagram. @returns undefined for what gets no answer. */
export function respond(
  sockets: StunSockets,
  received: number,
  datagram: Uint8Array,
  source: SocketAddress,
): StunReply | undefined {
  const request = decodeStun(datagram)
  if (request?.class !== 'request' || request.method !== METHOD_BINDING || source.port === 0) return undefined
  const { changeRequest, responsePort, padding } = request
  const changesAddress = changeRequest?.address === true
  const changesPort = changeRequest?.port === true
  const twoAddresses = sockets.length === 4
  // RFC 5780 §6.1 refuses even one that changes nothing; clients of RFC 3489 send that in every request.
  const refusable = changeRequest !== undefined && (!request.classic || changesAddress || changesPort)
  const refused = refusable && !twoAddresses ? [CHANGE_REQUEST] : []
  const unknownAttributes = [...request.unknownAttributes, ...refused]
  const error = (code: number, reason: string): StunReply => ({
    datagram: encodeStun({ ...answer(request, 'error'), errorCode: { code, reason }, unknownAttributes }),
    from: received,
    port: source.port,
  })
  if (unknownAttributes.length > 0) return error(420, 'Unknown Attribute')
  // RFC 5780 §7.6: one fragment test at a time, and none to a third party.
  if (responsePort !== undefined && (padding !== undefined || responsePort === 0)) return error(400, 'Bad Request')

  const from = received ^ (changesPort ? 1 : 0) ^ (changesAddress ? 2 : 0)
  const origin = sockets[from]!
  const other = twoAddresses ? sockets[received ^ 3] : undefined
  const message: StunMessage = {
    ...answer(request, 'success'),
    // RFC 5780 §6.1 wants both: where they differ, something on the way rewrites addresses in packets.
    mappedAddress: source,
    ...(request.classic ? {} : { xorMappedAddress: source }),
    ...(isUnspecified(origin.address) ? {} : { responseOrigin: origin }),
    ...(other === undefined ? {} : { otherAddress: other }),
    // As long as the request's and no longer: whoever forges a source must not get more out of us than he puts in.
    ...(padding === undefined ? {} : { padding: padding & ~3 }),
  }
  return { datagram: encodeStun(message), from, port: responsePort ?? source.port }
}

const answer = (
  { method, transactionId, classic }: StunMessage,
  kind: 'success' | 'error',
): Pick<StunMessage, 'class' | 'method' | 'transactionId' | 'classic' | 'unknownAttributes'> => ({
  class: kind,
  method,
  transactionId,
  classic,
  unknownAttributes: [],
})

export const isUnspecified = (address: string): boolean => address === '0.0.0.0' || address === '::'
