// Certificates and requests for them (RFC 5280, RFC 2986): the CA of a mesh, its relay's server certificate, the client
// certificates of nodes and users. All keys are P-256, which Go, Node and OpenSSL accept everywhere.
//
// The only user of @peculiar/x509, which takes 100 ms to load and so is imported where it is needed: whoever only reads
// certificates uses node:crypto's X509Certificate.

import { createHash, KeyObject, type webcrypto, type X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

export type KeyPair = { readonly certificatePem: string; readonly keyPem: string }
export type Validity = { readonly notBefore: Date; readonly notAfter: Date }

/** Clocks differ: what is issued is valid from so long ago, or from a tenth of a short life ago. */
const BACKDATE_MS = 5 * 60_000
const BACKDATE_SHARE = 10
const DAY_MS = 86_400_000
const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const SERIAL_BYTES = 16

/** @param days may be a fraction. */
export function validFor(nowMs: number, days: number): Validity {
  const lifeMs = days * DAY_MS
  return {
    notBefore: new Date(nowMs - Math.min(BACKDATE_MS, lifeMs / BACKDATE_SHARE)),
    notAfter: new Date(nowMs + lifeMs),
  }
}

type Dated = Pick<X509Certificate, 'validFromDate' | 'validToDate'>

/** When a certificate of `validFor` was issued, to the second: what it is valid from, without the back-dating. */
export function issuedMs({ validFromDate, validToDate }: Dated): number {
  const spanMs = validToDate.getTime() - validFromDate.getTime()
  const lifeMs = Math.max(spanMs - BACKDATE_MS, (spanMs * BACKDATE_SHARE) / (BACKDATE_SHARE + 1))
  return Math.round(validToDate.getTime() - lifeMs)
}

/** SHA-256 of a certificate's SubjectPublicKeyInfo, base64url: what a join token carries of the CA (RFC 7469 §2.4). */
export function spkiHash(certificate: X509Certificate): string {
  return createHash('sha256').update(spkiOf(certificate)).digest('base64url')
}
const spkiOf = (certificate: X509Certificate): Buffer => certificate.publicKey.export({ type: 'spki', format: 'der' })

export async function createAuthority(name: string, validity: Validity): Promise<KeyPair> {
  const x509 = await load()
  const keys = await generateKeys()
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: P256,
    ...validity,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certificatePem: pem(certificate.toString('pem')), keyPem: pemOf(keys) }
}

/** @param names DNS names and IP addresses that clients may dial; they become the SANs. */
export async function issueServer(
  authority: KeyPair,
  names: readonly string[],
  validity: Validity,
  subject: ClientSubject = { commonName: 'fulmar-relay', organization: undefined },
): Promise<KeyPair> {
  const x509 = await load()
  const keys = await generateKeys()
  const certificatePem = await issue(authority, {
    subject,
    publicKey: keys.publicKey,
    validity,
    extensions: [
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((name) => ({ type: isIP(name) === 0 ? ('dns' as const) : ('ip' as const), value: name })),
      ),
    ],
  })
  return { certificatePem, keyPem: pemOf(keys) }
}

export type ClientSubject = { readonly commonName: string; readonly organization: string | undefined }

/** @param spki the public key, DER; whoever asks has proven that it holds the private one. */
export async function issueClient(
  authority: KeyPair,
  subject: ClientSubject,
  spki: Uint8Array,
  validity: Validity,
): Promise<string> {
  const x509 = await load()
  return issue(authority, {
    subject,
    publicKey: new Uint8Array(spki),
    validity,
    extensions: [new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth])],
  })
}

/** A new key and the certificate for it, for users who are given both. */
export async function createClient(authority: KeyPair, subject: ClientSubject, validity: Validity): Promise<KeyPair> {
  const keys = await generateKeys()
  const spki = new Uint8Array(await crypto.subtle.exportKey('spki', keys.publicKey))
  return { certificatePem: await issueClient(authority, subject, spki, validity), keyPem: pemOf(keys) }
}

/** A signed request by a P-256 key. @param keyPem PKCS#8. */
export async function createRequest(keyPem: string, publicKeyPem: string, subject: ClientSubject): Promise<string> {
  const x509 = await load()
  const keys = {
    privateKey: await crypto.subtle.importKey('pkcs8', derOf(keyPem), P256, false, ['sign']),
    publicKey: await crypto.subtle.importKey('spki', derOf(publicKeyPem), P256, true, ['verify']),
  }
  const name = nameOf(subject)
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name, keys, signingAlgorithm: P256 })
  return pem(request.toString('pem'))
}

export type CertificateRequest = { readonly subject: ClientSubject; readonly spki: Uint8Array<ArrayBuffer> }

/** @returns undefined unless it is a request with one CN and at most one O, signed by the key that it names. */
export async function readRequest(requestPem: string): Promise<CertificateRequest | undefined> {
  const x509 = await load()
  try {
    const request = new x509.Pkcs10CertificateRequest(requestPem)
    const names = request.subjectName.getField('CN')
    const organizations = request.subjectName.getField('O')
    const [commonName] = names
    if (commonName === undefined || names.length > 1 || organizations.length > 1) return undefined
    if (!ACCEPTED_KEYS.has(keyNameOf(request.publicKey.algorithm)) || !(await request.verify())) return undefined
    return { subject: { commonName, organization: organizations[0] }, spki: new Uint8Array(request.publicKey.rawData) }
  } catch {
    // Whatever the parser finds wrong with bytes from the network, the answer is the same: not a request.
    return undefined
  }
}

const ACCEPTED_KEYS: ReadonlySet<string> = new Set(['P-256', 'P-384', 'Ed25519'])
const keyNameOf = (algorithm: { readonly name: string; readonly namedCurve?: string }): string =>
  algorithm.name === 'ECDSA' ? (algorithm.namedCurve ?? '') : algorithm.name

type X509 = typeof import('@peculiar/x509')

async function load(): Promise<X509> {
  await import('reflect-metadata')
  return import('@peculiar/x509')
}

type Issue = {
  readonly subject: ClientSubject
  readonly publicKey: CryptoKey | Uint8Array<ArrayBuffer>
  readonly validity: Validity
  readonly extensions: readonly InstanceType<X509['Extension']>[]
}

async function issue(authority: KeyPair, { subject, publicKey, validity, extensions }: Issue): Promise<string> {
  const x509 = await load()
  const issuer = new x509.X509Certificate(authority.certificatePem)
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    issuer: issuer.subject,
    subject: nameOf(subject),
    publicKey,
    signingKey: await crypto.subtle.importKey('pkcs8', derOf(authority.keyPem), P256, false, ['sign']),
    signingAlgorithm: P256,
    ...validity,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
      ...extensions,
    ],
  })
  return pem(certificate.toString('pem'))
}

const nameOf = ({ commonName, organization }: ClientSubject): Record<string, string[]>[] => [
  ...(organization === undefined ? [] : [{ O: [organization] }]),
  { CN: [commonName] },
]

/** Positive and of a fixed length: the first bits are 01 (RFC 5280 §4.1.2.2). */
function serial(): string {
  const bytes = crypto.getRandomValues(Buffer.alloc(SERIAL_BYTES))
  bytes[0] = (bytes[0]! & 0x3f) | 0x40
  return bytes.toString('hex')
}

const generateKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  crypto.subtle.generateKey(P256, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>
const pemOf = ({ privateKey }: webcrypto.CryptoKeyPair): string =>
  KeyObject.from(privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
const derOf = (text: string): Buffer<ArrayBuffer> =>
  Buffer.from(text.replaceAll(/-----[A-Z ]+-----/g, ''), 'base64') as Buffer<ArrayBuffer>
const pem = (text: string): string => `${text.replaceAll('\r', '').trimEnd()}\n`
