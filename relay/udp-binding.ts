// What the relay answers to a request to bind (lib/wire/udp-bind.ts), without remembering anything: only one who knows a
// side's cookie is answered more than "I do not know you", and only one who receives where he sends from may bind.

import type { SocketAddress } from '../lib/address.ts'
import { decodeStun, hasIntegrity, METHOD_BINDING } from '../lib/wire/stun.ts'
import { encodeBound, encodeChallenge, encodeUnknown, isFresh, nonceFor } from '../lib/wire/udp-bind.ts'
import type { Places } from './udp-relay.ts'
import type { Side } from './udp-sessions.ts'

export type Verdict =
  | { readonly kind: 'ignored' }
  | { readonly kind: 'refused'; readonly answer: Buffer; readonly port: number }
  | { readonly kind: 'challenged'; readonly answer: Buffer; readonly port: number }
  /** The answer holds once the kernel forwards from there. */
  | { readonly kind: 'bound'; readonly answer: Buffer; readonly port: number; readonly side: Side }

const IGNORED: Verdict = { kind: 'ignored' }

/** @param key the relay's own, for nonces. */
export function judge(
  datagram: Uint8Array,
  source: SocketAddress,
  sideAt: (port: number) => Side | undefined,
  places: Places,
  key: Uint8Array,
  nowMs: number,
): Verdict {
  const address = places[source.family]
  const request = decodeStun(datagram)
  if (address === undefined || request?.class !== 'request' || request.method !== METHOD_BINDING || request.classic)
    return IGNORED
  const { username, nonce } = request
  if (username === undefined || !/^[1-9]\d{0,4}$/.test(username) || source.port === 0) return IGNORED
  const port = Number(username)
  const origin = { address, port, family: source.family }
  const side = sideAt(port)
  if (side === undefined || !hasIntegrity(datagram, side.cookie) || request.unknownAttributes.length > 0) {
    const answer = encodeUnknown(request, origin)
    // The source may be forged: nobody is sent more than was sent here in his name.
    return answer.length > datagram.length ? IGNORED : { kind: 'refused', answer, port }
  }
  if (nonce === undefined || !isFresh(nonce, source, username, key, nowMs)) {
    const challenge = nonceFor(source, username, key, nowMs)
    return { kind: 'challenged', answer: encodeChallenge(request, origin, challenge, side.cookie), port }
  }
  return { kind: 'bound', answer: encodeBound(request, origin, side.cookie), port, side }
}

/** A side's port names it. */
export const usernameOf = ({ port }: Side): string => String(port)
