// How a gateway binds its WireGuard port to a session of the relay, in STUN (RFC 8489): all from that port, to the port
// of the relay that stands for the peer.
//
//   gateway -> relay   Binding request    USERNAME, [NONCE,] MESSAGE-INTEGRITY-SHA256 keyed by the side's cookie
//   relay -> gateway   438 Stale Nonce    RESPONSE-ORIGIN, NONCE, integrity: show me that this reaches you
//                      success            RESPONSE-ORIGIN, integrity: packets from where this came from are forwarded
//                      401                RESPONSE-ORIGIN, no integrity: I know no such session; ask for it anew
//
// The nonce is a MAC over the source address: the relay remembers nothing before it comes back from there, and nobody
// can bind an address at which he does not receive. The same exchange, every 20 s, keeps the binding and the NAT's
// mapping; usually it is one round trip, since a nonce is good for minutes.
//
// RESPONSE-ORIGIN is always the first attribute of an answer: the relay's kernel takes the port to send from out of it.

import { createHmac, timingSafeEqual } from 'node:crypto'
import { formatSocketAddress, type SocketAddress } from '../address.ts'
import { encodeStun, METHOD_BINDING, type StunMessage } from './stun.ts'

/** Where the port in RESPONSE-ORIGIN stands in an answer: behind STUN's header, the attribute's, a zero and the family. */
export const ORIGIN_PORT_OFFSET = 20 + 4 + 2
/** Nonces of this window and the one before are good. */
const NONCE_WINDOW_MS = 120_000
const NONCE_BYTES = 12

export const STALE_NONCE = 438
export const UNAUTHENTICATED = 401

export type Binding = { readonly username: string; readonly cookie: Uint8Array }

export const encodeBindRequest = (
  transactionId: Uint8Array,
  { username, cookie }: Binding,
  nonce: string | undefined,
): Buffer =>
  encodeStun(
    { ...plain('request', transactionId), username, ...(nonce === undefined ? {} : { nonce }) },
    { integrityKey: cookie },
  )

/** @param origin the session's port on the relay, with the relay's address. */
export const encodeBound = (request: StunMessage, origin: SocketAddress, cookie: Uint8Array): Buffer =>
  encodeStun({ ...plain('success', request.transactionId), responseOrigin: origin }, { integrityKey: cookie })

export const encodeChallenge = (
  request: StunMessage,
  origin: SocketAddress,
  nonce: string,
  cookie: Uint8Array,
): Buffer =>
  encodeStun(
    {
      ...plain('error', request.transactionId),
      responseOrigin: origin,
      errorCode: { code: STALE_NONCE, reason: 'Stale Nonce' },
      nonce,
    },
    { integrityKey: cookie },
  )

/** Shorter than any request that gets it. */
export const encodeUnknown = (request: StunMessage, origin: SocketAddress): Buffer =>
  encodeStun({
    ...plain('error', request.transactionId),
    responseOrigin: origin,
    errorCode: { code: UNAUTHENTICATED, reason: '' },
  })

/** What only somebody who receives at `source` can show. @param key the relay's own, 32 random bytes. */
export function nonceFor(source: SocketAddress, username: string, key: Uint8Array, nowMs: number): string {
  return nonceOf(source, username, key, Math.floor(nowMs / NONCE_WINDOW_MS))
}

export function isFresh(
  nonce: string,
  source: SocketAddress,
  username: string,
  key: Uint8Array,
  nowMs: number,
): boolean {
  const window = Math.floor(nowMs / NONCE_WINDOW_MS)
  const given = Buffer.from(nonce)
  return [window, window - 1].some((each) => {
    const expected = Buffer.from(nonceOf(source, username, key, each))
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
}

function nonceOf(source: SocketAddress, username: string, key: Uint8Array, window: number): string {
  const mac = createHmac('sha256', key)
    .update(`${window} ${username} ${formatSocketAddress(source)}`)
    .digest()
  return mac.subarray(0, NONCE_BYTES).toString('base64')
}

const plain = (kind: StunMessage['class'], transactionId: Uint8Array): StunMessage => ({
  class: kind,
  method: METHOD_BINDING,
  transactionId,
  classic: false,
  unknownAttributes: [],
})
