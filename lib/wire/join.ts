// How a machine becomes a node. The operator carries a token from the relay to it:
//
//   fmj1:NODE:SECRET:CA     SECRET 24 random bytes, CA the SHA-256 of the CA's SubjectPublicKeyInfo, both base64url
//
// The machine dials the relay, finds the CA by that hash in the chain that the relay shows (as kubeadm's discovery hash
// does), verifies the relay by it, and only then sends the secret with a certificate request: POST /fulmar/v1/join, JSON.
//
// A pod on a node of a Kubernetes cluster has a projected ServiceAccount token instead, for the audience `fulmar`, and the CA
// from whoever mounted that.
//
// A node renews its certificate with the one that it has, which it shows in TLS: POST /fulmar/v1/renew, JSON with a
// request for a new key. The answer is that of a join.

import { isIP } from 'node:net'

export const JOIN_PATH = '/fulmar/v1/join'
export const RENEW_PATH = '/fulmar/v1/renew'
/** A request or an answer longer than this is refused. */
export const MAX_JOIN_BYTES = 32 * 1024
export const SECRET_BYTES = 24

export type JoinToken = { readonly node: string; readonly secret: string; readonly caHash: string }
/** What is given for a certificate: the secret of a join token, or a pod's token. */
export type Credential = { readonly secret: string } | { readonly serviceAccountToken: string }
export type JoinRequest = { readonly version: 1; readonly csr: string } & Credential
export type RenewRequest = { readonly version: 1; readonly csr: string }
export type JoinAnswer = {
  readonly version: 1
  readonly node: string
  /** PEM. */
  readonly certificate: string
  readonly ca: string
  /** URLs of the relay, and its STUN servers as `ip:port`. */
  readonly relays: readonly string[]
  readonly stun: readonly string[]
}
export type JoinRefusal = { readonly code: JoinRefusalCode; readonly message: string }
export type JoinRefusalCode =
  | 'FULMAR_JOIN_MALFORMED'
  | 'FULMAR_JOIN_BUSY'
  | 'FULMAR_TOKEN_UNKNOWN'
  | 'FULMAR_TOKEN_EXPIRED'
  | 'FULMAR_TOKEN_USED'
  | 'FULMAR_TOKEN_OTHER_NODE'
  | 'FULMAR_CERTIFICATE_UNKNOWN'
  | 'FULMAR_CERTIFICATE_EXPIRED'
  | 'FULMAR_CERTIFICATE_OTHER_NODE'
  | 'FULMAR_NODE_DELETED'
  | 'FULMAR_SERVICE_ACCOUNT_REFUSED'
  | 'FULMAR_SERVICE_ACCOUNT_OTHER_NODE'
  | 'FULMAR_REVIEW_UNAVAILABLE'

const PREFIX = 'fmj1'

export const formatToken = ({ node, secret, caHash }: JoinToken): string => [PREFIX, node, secret, caHash].join(':')

/** @throws Error saying what is wrong with the text. */
export function parseToken(text: string): JoinToken {
  const [prefix, node, secret, caHash, ...rest] = text.trim().split(':')
  if (prefix !== PREFIX)
    throw new Error(`is not a join token; one starts with ${PREFIX}: and comes from fulmar token create`)
  if (
    node === undefined ||
    !isNodeName(node) ||
    !isBase64Url(secret, SECRET_BYTES) ||
    !isBase64Url(caHash, 32) ||
    rest.length > 0
  )
    throw new Error('is damaged or cut off; copy the whole line that fulmar token create printed')
  return { node, secret, caHash }
}

/** A name that Kubernetes accepts for a Node (RFC 1123 subdomain). */
export const isNodeName = (name: string): boolean =>
  name.length <= 253 &&
  isIP(name) === 0 &&
  /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name)

/** @returns undefined for anything else than a request. */
export function decodeJoinRequest(text: string): JoinRequest | undefined {
  const value = parseObject(text)
  const { secret, serviceAccountToken, csr } = value ?? {}
  if (typeof csr !== 'string') return undefined
  if (isJwt(serviceAccountToken)) return { version: 1, serviceAccountToken, csr }
  return isBase64Url(secret, SECRET_BYTES) ? { version: 1, secret, csr } : undefined
}

export function decodeRenewRequest(text: string): RenewRequest | undefined {
  const { csr } = parseObject(text) ?? {}
  return typeof csr === 'string' ? { version: 1, csr } : undefined
}

export function decodeJoinAnswer(text: string): JoinAnswer | undefined {
  const value = parseObject(text)
  const { node, certificate, ca, relays, stun } = value ?? {}
  if (typeof node !== 'string' || typeof certificate !== 'string' || typeof ca !== 'string') return undefined
  if (!isTexts(relays) || !isTexts(stun)) return undefined
  return { version: 1, node, certificate, ca, relays, stun }
}

export function decodeJoinRefusal(text: string): JoinRefusal | undefined {
  const { code, message } = parseObject(text) ?? {}
  return typeof code === 'string' && typeof message === 'string'
    ? { code: code as JoinRefusalCode, message }
    : undefined
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (text.length > MAX_JOIN_BYTES) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

const MAX_TOKEN = 16 * 1024
/** RFC 7519 §3, in its look; what it says is for the API server to verify. */
const isJwt = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= MAX_TOKEN && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(value)

/**
 * The node that a pod's token names, where it does (Kubernetes 1.30 and later): for whoever has the token to know, and
 * nothing that others may trust.
 */
export function nodeInToken(token: string): string | undefined {
  const [, payload = ''] = token.split('.')
  const claims = parseObject(Buffer.from(payload, 'base64url').toString())?.['kubernetes.io'] as Claims | undefined
  const name = claims?.node?.name
  return typeof name === 'string' && isNodeName(name) ? name : undefined
}
type Claims = { readonly node?: { readonly name?: unknown } }

const MAX_LIST = 64
const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.length <= MAX_LIST && value.every((item) => typeof item === 'string')
const isBase64Url = (value: unknown, bytes: number): value is string =>
  typeof value === 'string' && value.length === Math.ceil((bytes * 4) / 3) && /^[A-Za-z0-9_-]+$/.test(value)
