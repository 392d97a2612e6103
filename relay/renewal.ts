// Who may have a new certificate for the one that it has. This is the one place where a certificate that expired still
// counts, for a grace, and it is good for nothing but this: a node that was without the cloud for longer than its
// certificate lives comes back by itself. Pure.

import type { X509Certificate } from 'node:crypto'
import { identityOf, type Subject } from '../lib/identity.ts'
import type { JoinRefusalCode } from '../lib/wire/join.ts'

export type Refusal = { readonly status: number; readonly code: JoinRefusalCode; readonly message: string }
export type Renewal = { readonly kind: 'node'; readonly node: string } | ({ readonly kind: 'refused' } & Refusal)

/** RFC 5280 §4.2.1.12. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const DAY_MS = 86_400_000

/**
 * TLS has proven that the caller holds its key, and nothing else: OpenSSL's verdict names one fault of several, and "it
 * expired" may hide "nobody knows who issued it". So all the rest is checked here.
 * @param presented undefined where the caller showed none.
 * @param graceMs for how long after its end a certificate may be renewed.
 */
export function judgeRenewal(
  presented: X509Certificate | undefined,
  ca: X509Certificate,
  nowMs: number,
  graceMs: number,
): Renewal {
  if (presented === undefined)
    return unknown('no client certificate was presented; run fulmar join with a token on the node')
  if (!presented.checkIssued(ca) || !presented.verify(ca.publicKey))
    return unknown(
      'the client certificate was issued by another relay; run fulmar join --force with a token of this one',
    )
  const identity = identityOf(presented.toLegacyObject().subject as Subject)
  if (identity.kind !== 'node' || presented.ca || presented.keyUsage?.includes(CLIENT_AUTH) !== true)
    return unknown('the client certificate is not a node’s')
  const { validFromDate, validToDate } = presented
  if (nowMs < validFromDate.getTime())
    return unknown(
      `the client certificate is valid from ${validFromDate.toISOString()} on, by the clock of the relay it is ` +
        `${new Date(nowMs).toISOString()}; look at the relay’s clock`,
    )
  if (nowMs >= validToDate.getTime() + graceMs)
    return {
      kind: 'refused',
      status: 403,
      code: 'FULMAR_CERTIFICATE_EXPIRED',
      message:
        `the certificate of node ${identity.node} expired at ${validToDate.toISOString()} and could be renewed for ` +
        `${Math.round(graceMs / DAY_MS)} days after; run fulmar join --force with a new token on the node`,
    }
  return { kind: 'node', node: identity.node }
}

const unknown = (message: string): Renewal => ({
  kind: 'refused',
  status: 401,
  code: 'FULMAR_CERTIFICATE_UNKNOWN',
  message,
})
