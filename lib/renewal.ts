// When a certificate is renewed. Pure, and the same whoever asks: both daemons of a node, before and after a restart.

import type { X509Certificate } from 'node:crypto'

type Dated = Pick<X509Certificate, 'validFromDate' | 'validToDate'>

/** A certificate is renewed after so much of its life. */
const RENEW_AFTER = 0.7
/** Of its life: sites that were set up in one hour come at times of their own. */
const SPREAD = 0.1

export const spanMsOf = ({ validFromDate, validToDate }: Dated): number =>
  validToDate.getTime() - validFromDate.getTime()

/** @returns Unix milliseconds, from 70 to 80 % of the life; which, the certificate's own hash says. */
export function renewalMs(certificate: Dated & Pick<X509Certificate, 'fingerprint256'>): number {
  const draw = Number.parseInt(certificate.fingerprint256.replaceAll(':', '').slice(0, 8), 16) / 2 ** 32
  return certificate.validFromDate.getTime() + spanMsOf(certificate) * (RENEW_AFTER + SPREAD * draw)
}
