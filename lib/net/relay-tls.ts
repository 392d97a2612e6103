// TLS to what our CA vouches for, on a machine that may not know what time it is. Where the wall clock is right, it is
// tls.connect. Where it is behind the floor (lib/clock.ts), OpenSSL would refuse every certificate for being of the future;
// then all that it checks is checked here, and of the dates what can be known: that the certificate had not ended by the
// floor. Such a certificate must be issued by the CA itself, which those of relays are. It is checked here too where OpenSSL
// is not to know the CA.

import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import tls, { type ConnectionOptions, type TLSSocket } from 'node:tls'
import type { Clock } from '../clock.ts'

/** RFC 5280 §4.2.1.12. */
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'

/**
 * @param to with a CA. @param clock without it, the wall clock is trusted.
 * @param shown of our own: OpenSSL sends the CA's certificate after ours wherever it knows it.
 */
export function connectTls(
  to: ConnectionOptions,
  clock: Clock | undefined,
  shown: 'with the CA' | 'alone' = 'with the CA',
): TLSSocket {
  const host = to.host ?? ''
  const options = { ...to, path: undefined, servername: serverNameOf(host) }
  const behind = clock?.isBehind() === true
  if (!behind && shown === 'with the CA') return tls.connect(options)
  const socket = tls.connect({ ...options, rejectUnauthorized: false, ...(shown === 'alone' && { ca: [] }) })
  // The first listener: nobody else hears of a connection that is not what it should be.
  socket.once('secureConnect', () => {
    const nowMs = clock?.now() ?? Date.now()
    const certificate = socket.getPeerX509Certificate()
    const fault = faultOf(certificate, caOf(to), host, nowMs) ?? (behind ? undefined : earlyOf(certificate!, nowMs))
    if (fault !== undefined) socket.destroy(new Error(`the certificate of ${host} ${fault}`))
  })
  return socket
}

const earlyOf = ({ validFromDate }: X509Certificate, nowMs: number): string | undefined =>
  validFromDate.getTime() > nowMs ? `is not yet valid: from ${validFromDate.toISOString()}` : undefined

/** Where an https URL leads, as tls.connect takes it. */
export function tlsTargetOf(url: URL): { readonly host: string; readonly port: number; readonly servername: string } {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return { host, port: url.port === '' ? 443 : Number(url.port), servername: serverNameOf(host) }
}

/** RFC 6066 §3: no addresses in SNI. */
export const serverNameOf = (host: string): string => (isIP(host) === 0 ? host : '')

/** @param nowMs at the least. @returns what is wrong with a server's certificate. */
function faultOf(
  certificate: X509Certificate | undefined,
  ca: X509Certificate,
  host: string,
  nowMs: number,
): string | undefined {
  if (certificate === undefined) return 'is missing'
  if (!certificate.checkIssued(ca) || !certificate.verify(ca.publicKey)) return 'was not issued by our CA'
  if (certificate.ca || certificate.keyUsage?.includes(SERVER_AUTH) !== true) return 'is not a server’s'
  const names = isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)
  if (names === undefined) return 'is not for this name'
  if (certificate.validToDate.getTime() < nowMs) return `ended at ${certificate.validToDate.toISOString()}`
  return undefined
}

function caOf({ ca }: ConnectionOptions): X509Certificate {
  const [pem] = [ca].flat()
  if (typeof pem !== 'string') throw new TypeError('a CA in PEM is needed')
  return new X509Certificate(pem)
}
