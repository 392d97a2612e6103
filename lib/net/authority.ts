// The relay's certificates on disk, in STATE_DIR/issuer: the mesh's CA, made once, and the relay's server certificate,
// made anew when it ages or when the relay's names change. A key and its certificate share one file, so that no crash
// can part them; `ca.crt` beside is a copy for people.

import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { createAuthority, issueServer, validFor, type KeyPair } from '../certificates.ts'
import { makePrivateFolder, PRIVATE_MODE, readIfPresent, writeNew, writeWhole } from './files.ts'
import { identityPaths } from './identity.ts'
import { UsageError } from './lifetime.ts'

export type ServerCertificate = KeyPair & { readonly renewAtMs: number }

const CA_DAYS = 3650
const SERVER_DAYS = 90
/** A certificate is made anew after so much of its life. */
const RENEW_AFTER = 0.7
/** Names by which pods and people on the relay's machine may dial it beside its public addresses. */
const OWN_NAMES = [
  'localhost',
  '127.0.0.1',
  '::1',
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
]

export const issuerFolder = (stateDir: string): string => join(stateDir, 'issuer')

/**
 * As openAuthority, for commands of people, whom it tells on stderr if it made one.
 * @throws UsageError on a machine that is a node and no relay: credentials made there would be good for nothing.
 */
export async function openAuthorityForPeople(command: string, stateDir: string, nowMs: number): Promise<KeyPair> {
  const { certificate } = identityPaths(stateDir)
  const isRelay = (await readIfPresent(join(issuerFolder(stateDir), 'authority.pem'))) !== undefined
  if (!isRelay && (await readIfPresent(certificate)) !== undefined)
    throw new UsageError(
      `${stateDir} is of a machine that is a node, not a relay: run this where fulmar relay runs, or give its --state-dir`,
    )
  const { created, ...authority } = await openAuthority(stateDir, nowMs)
  if (created)
    process.stderr.write(
      `${command}: there was no CA in ${stateDir} yet; made one, for a relay with this --state-dir\n`,
    )
  return authority
}

/**
 * Opens the CA, or creates it; of several processes that create one at a time, one wins and all return the same.
 * @throws UsageError naming the file if it is damaged.
 */
export async function openAuthority(stateDir: string, nowMs: number): Promise<KeyPair & { readonly created: boolean }> {
  const path = join(issuerFolder(stateDir), 'authority.pem')
  const present = await readIfPresent(path)
  if (present !== undefined) return { ...authorityIn(path, present), created: false }
  await makePrivateFolder(issuerFolder(stateDir))
  const created = await writeNew(path, joined(await createAuthority('fulmar', validFor(nowMs, CA_DAYS))), PRIVATE_MODE)
  const authority = authorityIn(path, (await readIfPresent(path))!)
  await writeWhole(join(issuerFolder(stateDir), 'ca.crt'), authority.certificatePem)
  return { ...authority, created }
}

/** Opens the server certificate, or issues a new one if there is none that is whole, young and has just these names. */
export async function openServerCertificate(
  stateDir: string,
  authority: KeyPair,
  publicNames: readonly string[],
  nowMs: number,
): Promise<ServerCertificate> {
  const path = join(issuerFolder(stateDir), 'server.pem')
  const names = [...new Set([...publicNames, ...OWN_NAMES])]
  const present = split((await readIfPresent(path)) ?? '')
  const renewAtMs = present && usableUntil(present, authority, names, nowMs)
  if (present !== undefined && renewAtMs !== undefined) return { ...present, renewAtMs }
  const pair = await issueServer(authority, names, validFor(nowMs, SERVER_DAYS))
  await writeWhole(path, joined(pair), PRIVATE_MODE)
  return { ...pair, renewAtMs: renewalOf(new X509Certificate(pair.certificatePem)) }
}

function usableUntil(pair: KeyPair, authority: KeyPair, names: readonly string[], nowMs: number): number | undefined {
  const certificate = new X509Certificate(pair.certificatePem)
  const ca = new X509Certificate(authority.certificatePem)
  const renewAtMs = renewalOf(certificate)
  if (nowMs >= renewAtMs || nowMs < certificate.validFromDate.getTime() || !certificate.verify(ca.publicKey))
    return undefined
  const has = (name: string) =>
    (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined
  const count = certificate.subjectAltName?.split(', ').length
  return count === names.length && names.every(has) ? renewAtMs : undefined
}

function renewalOf({ validFromDate, validToDate }: X509Certificate): number {
  const from = validFromDate.getTime()
  return from + (validToDate.getTime() - from) * RENEW_AFTER
}

const joined = ({ keyPem, certificatePem }: KeyPair): string => `${keyPem.trimEnd()}\n${certificatePem}`

function authorityIn(path: string, text: string): KeyPair {
  const pair = split(text)
  if (pair === undefined)
    throw new UsageError(`${path}: does not hold a key and a certificate; restore it from a backup`)
  return pair
}

function split(text: string): KeyPair | undefined {
  const [keyPem, certificatePem] = text.match(/-----BEGIN [A-Z ]+-----[^-]+-----END [A-Z ]+-----\n/g) ?? []
  return keyPem === undefined || certificatePem === undefined ? undefined : { keyPem, certificatePem }
}
