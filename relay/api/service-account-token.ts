// Tokens of ServiceAccounts as this API gives them out and takes them: compact JWS (RFC 7515 §7.1) with HS256 (RFC 7518
// §3.2), since nobody else verifies them, and the claims of Kubernetes' own bound tokens. Pure.

import { createHmac, createPrivateKey, hkdfSync, timingSafeEqual } from 'node:crypto'

export type ObjectRef = { readonly name: string; readonly uid: string }
export type TokenClaims = {
  readonly iss: string
  readonly sub: string
  readonly aud: readonly string[]
  /** Unix seconds. */
  readonly iat: number
  readonly nbf: number
  readonly exp: number
  readonly 'kubernetes.io': {
    readonly namespace: string
    readonly serviceaccount: ObjectRef
    /** Of a token that ends with its pod. */
    readonly pod?: ObjectRef
    readonly node?: { readonly name: string; readonly uid?: string }
  }
}

export const TOKEN_MAX_BYTES = 16 * 1024
/** No other is read: what a header says of the algorithm is nothing to go by. */
const HEADER = Buffer.from('{"alg":"HS256","typ":"JWT"}').toString('base64url')

/** The key of all relays that have this CA, which is restored from a backup with it. @param authorityPem its private key. */
export function tokenKeyOf(authorityPem: string): Uint8Array {
  const secret = createPrivateKey(authorityPem).export({ type: 'pkcs8', format: 'der' })
  return new Uint8Array(hkdfSync('sha256', secret, '', 'fulmar tokens of ServiceAccounts', 32))
}

/** @param key 32 bytes. */
export function formatToken(key: Uint8Array, claims: TokenClaims): string {
  const signed = `${HEADER}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`
  return `${signed}.${mac(key, signed).toString('base64url')}`
}

/** @returns what was signed with this key, whatever the time is; undefined for anything else. */
export function parseToken(key: Uint8Array, text: string): TokenClaims | undefined {
  if (text.length > TOKEN_MAX_BYTES) return undefined
  const [header, payload, signature, ...rest] = text.split('.')
  if (header !== HEADER || payload === undefined || signature === undefined || rest.length > 0) return undefined
  const given = Buffer.from(signature, 'base64url')
  const wanted = mac(key, `${header}.${payload}`)
  if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) return undefined
  return JSON.parse(Buffer.from(payload, 'base64url').toString()) as TokenClaims
}

const mac = (key: Uint8Array, text: string): Buffer => createHmac('sha256', key).update(text).digest()
