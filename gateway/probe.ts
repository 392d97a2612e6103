// A probe asks one candidate address of a peer: "does a packet from WireGuard's port get there and back?" It is a STUN
// Binding request (RFC 8489) with MESSAGE-INTEGRITY-SHA256, so that one nft rule catches probes and STUN answers alike,
// and so that an address counts only after the peer itself has answered from it (sites share private prefixes).
//
// The key comes from X25519 between the two gateways' WireGuard keys: the relay knows neither half.

import { createHash, createPrivateKey, createPublicKey, diffieHellman, hkdfSync } from 'node:crypto'
import type { SocketAddress } from '../lib/address.ts'
import { encodeStun, METHOD_BINDING, type StunMessage } from '../lib/wire/stun.ts'

/** An X25519 private key as WireGuard writes it: 32 bytes in base64. */
export type WireGuardKey = string

/** Whether a text has the form of a key, private or public: 32 bytes in base64. */
export const isKey = (text: string): text is WireGuardKey => /^[A-Za-z0-9+/]{43}=$/.test(text)

/** @returns 32 bytes that only the two owners of the keys can compute. */
export function probeKey(privateKey: WireGuardKey, publicKey: WireGuardKey): Buffer {
  const secret = diffieHellman({
    privateKey: createPrivateKey({
      key: Buffer.concat([PKCS8_X25519, Buffer.from(privateKey, 'base64')]),
      format: 'der',
      type: 'pkcs8',
    }),
    publicKey: createPublicKey({
      key: Buffer.concat([SPKI_X25519, Buffer.from(publicKey, 'base64')]),
      format: 'der',
      type: 'spki',
    }),
  })
  return Buffer.from(hkdfSync('sha256', secret, '', 'fulmar probe 1', 32))
}

/**
 * Whether probes can be made with a peer's key: it is the base64 of 32 bytes, and no point of low order, with which every
 * secret is zero (RFC 7748 §6.1).
 */
export function isPublicKey(text: string): boolean {
  if (!isKey(text)) return false
  try {
    probeKey(ANY_PRIVATE_KEY, text)
    return true
  } catch {
    return false
  }
}

/** @returns the public half of a WireGuard private key, base64. */
export function publicKeyOf(privateKey: WireGuardKey): string {
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_X25519, Buffer.from(privateKey, 'base64')]),
    format: 'der',
    type: 'pkcs8',
  })
  return createPublicKey(key).export({ type: 'spki', format: 'der' }).subarray(-32).toString('base64')
}

/**
 * USERNAME tells the receiver which peer's key to check with: the first 8 bytes of the hash of the sender's WireGuard
 * key, in hex. It says nothing to anyone who does not know the key already.
 */
export const usernameOf = (wireguardKey: string): string =>
  createHash('sha256').update(`fulmar username ${wireguardKey}`).digest('hex').slice(0, 16)

export function encodeProbe(transactionId: Uint8Array, sender: string, key: Uint8Array): Buffer {
  return encodeStun(
    {
      class: 'request',
      method: METHOD_BINDING,
      transactionId,
      username: sender,
      unknownAttributes: [],
      classic: false,
    },
    { integrityKey: key },
  )
}

export function encodeProbeAnswer(request: StunMessage, source: SocketAddress, key: Uint8Array): Buffer {
  return encodeStun(
    {
      class: 'success',
      method: METHOD_BINDING,
      transactionId: request.transactionId,
      xorMappedAddress: source,
      unknownAttributes: [],
      classic: false,
    },
    { integrityKey: key },
  )
}

const ANY_PRIVATE_KEY = Buffer.alloc(32, 1).toString('base64')

/** DER headers of RFC 8410 for a raw X25519 key. */
const PKCS8_X25519 = Buffer.from('302e020100300506032b656e04220420', 'hex')
const SPKI_X25519 = Buffer.from('302a300506032b656e032100', 'hex')
