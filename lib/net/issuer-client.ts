// A node's way to the issuer: finds the CA that a token names at a relay, and posts requests for certificates.

import type { X509Certificate } from 'node:crypto'
import { connect, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { spkiHash } from '../certificates.ts'
import type { Clock } from '../clock.ts'
import {
  decodeJoinAnswer,
  decodeJoinRefusal,
  JOIN_PATH,
  MAX_JOIN_BYTES,
  RENEW_PATH,
  type JoinAnswer,
  type JoinRequest,
  type RenewRequest,
} from '../wire/join.ts'
import { https } from './http.ts'
import { tlsOptions, type NodeIdentity } from './identity.ts'
import { connectTls, tlsTargetOf } from './relay-tls.ts'

export class JoinError extends Error {
  readonly code: string
  override readonly name = 'JoinError'
  constructor(message: string, options: { code?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause })
    this.code = options.code ?? 'FULMAR_JOIN'
  }
}

const TIMEOUT_MS = 10_000
const MAX_CHAIN = 8

/**
 * Looks at the chain that the relay shows, on a connection that carries nothing else.
 * @returns the CA, PEM, whose key has the hash.
 */
export async function findAuthority(relay: URL, caHash: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connect({ ...tlsTargetOf(relay), rejectUnauthorized: false, timeout: TIMEOUT_MS }, () => {
    const authority = chainOf(socket).find((certificate) => spkiHash(certificate) === caHash)
    if (authority !== undefined) return resolve(authority.toString())
    reject(
      new JoinError(
        `${relay.origin} does not have the CA that the token names: the token was made by another relay, or someone is in ` +
          'between; nothing was sent',
      ),
    )
  })
  socket.once('error', (cause) => reject(unreachable(relay, cause)))
  socket.once('timeout', () => reject(unreachable(relay, new Error(`no answer within ${TIMEOUT_MS / 1000} s`))))
  try {
    return await promise
  } finally {
    socket.destroy()
  }
}

/** Posts a request to a relay that must prove itself by the CA. @throws JoinError with the relay's own code if it refuses. */
export const postJoin = (relay: URL, caPem: string, join: JoinRequest): Promise<JoinAnswer> =>
  post(relay, JOIN_PATH, { ca: caPem, minVersion: 'TLSv1.2' }, undefined, join)

/** The same, by the certificate that the node has. */
export const postRenewal = (
  relay: URL,
  identity: NodeIdentity & { readonly clock?: Clock },
  renewal: RenewRequest,
): Promise<JoinAnswer> => post(relay, RENEW_PATH, tlsOptions(identity), identity.clock, renewal)

async function post(
  relay: URL,
  path: string,
  tls: ConnectionOptions,
  clock: Clock | undefined,
  request: object,
): Promise<JoinAnswer> {
  const body = JSON.stringify(request)
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>()
  const target = tlsTargetOf(relay)
  const posting = https.request({
    ...target,
    ...tls,
    path,
    method: 'POST',
    // Without an agent, of which even a new one would connect by itself.
    createConnection: () => connectTls({ ...target, ...tls }, clock),
    timeout: TIMEOUT_MS,
    headers: { host: relay.host, 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
  })
  posting.once('error', (cause) => reject(unreachable(relay, cause)))
  posting.once('timeout', () => posting.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)))
  posting.once('response', (response) => {
    let text = ''
    response.setEncoding('utf8')
    response.on('error', (cause) => reject(unreachable(relay, cause)))
    response.on('data', (chunk: string) => {
      text += chunk
      if (text.length > MAX_JOIN_BYTES) posting.destroy(new Error('the answer is too long'))
    })
    response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
  })
  posting.end(body)
  const { status, text } = await promise
  const answer = status === 200 ? decodeJoinAnswer(text) : undefined
  if (answer !== undefined) return answer
  const refusal = decodeJoinRefusal(text)
  if (refusal === undefined)
    throw new JoinError(`${relay.origin} answered ${status}; is it a Fulmar relay of this version?`)
  throw new JoinError(`${relay.origin} refused: ${refusal.message}`, { code: refusal.code })
}

function chainOf(socket: TLSSocket): readonly X509Certificate[] {
  const chain: X509Certificate[] = []
  let certificate = socket.getPeerX509Certificate()
  while (certificate !== undefined && chain.length < MAX_CHAIN) {
    chain.push(certificate)
    certificate = certificate.issuerCertificate
  }
  return chain
}

function unreachable(relay: URL, cause: Error): JoinError {
  const now = new Date().toISOString()
  switch ((cause as NodeJS.ErrnoException).code) {
    case 'CERT_NOT_YET_VALID':
      return new JoinError(
        `by the clock of this machine (${now}) the certificate of ${relay.origin} is not valid yet; set the clock`,
        { cause },
      )
    case 'CERT_HAS_EXPIRED':
      return new JoinError(
        `by the clock of this machine (${now}) the certificate of ${relay.origin} has expired; set the clock, or look at the relay`,
        { cause },
      )
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'CERT_SIGNATURE_FAILURE':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
      return new JoinError(
        `${relay.origin} shows a certificate that the CA of the token did not issue: someone is in between; nothing was sent`,
        {
          cause,
        },
      )
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return new JoinError(
        `the certificate of ${relay.origin} is not for this name; add ${relay.hostname} to --public of fulmar relay`,
        { cause },
      )
    default:
      return new JoinError(
        `cannot reach the relay ${relay.origin}: ${cause.message || String((cause as NodeJS.ErrnoException).code)}; is the address right and TCP open?`,
        { cause },
      )
  }
}
