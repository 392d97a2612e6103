// How a machine comes to its certificate, and to the next: a key that never leaves the machine is made and synced to disk,
// the issuer certifies it, and then the certificate takes its place at once. That is the moment in which the new identity
// counts: a key whose file was not moved yet is found beside (loadIdentity), so a crash at any time leaves an identity
// that is whole, the old one or the new one. An attempt that broke off is gone on with by the next, with the same key.

import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { createRequest } from '../certificates.ts'
import type { Clock } from '../clock.ts'
import { nodeInToken, type Credential, type JoinAnswer } from '../wire/join.ts'
import { makePrivateFolder, PRIVATE_MODE, readIfPresent, writeNew, writeWhole } from './files.ts'
import { identityPaths, type NodeFile, type NodeIdentity } from './identity.ts'
import { JoinError, postJoin, postRenewal } from './issuer-client.ts'
import { UsageError } from './lifetime.ts'

/**
 * Joins a relay. @param caPem the CA that it must prove itself by.
 * @throws JoinError
 */
export async function enrol(
  stateDir: string,
  node: string,
  { relay, caPem, credential }: { readonly relay: URL; readonly caPem: string; readonly credential: Credential },
): Promise<NodeIdentity> {
  const paths = identityPaths(stateDir)
  await makePrivateFolder(paths.folder)
  const { keyPem, csr } = await request(stateDir, node)
  const answer = await postJoin(relay, caPem, { version: 1, ...credential, csr })
  checkAnswer(answer, node, keyPem, caPem)
  const { validFromDate } = new X509Certificate(answer.certificate)
  const now = new Date()
  if (now < validFromDate)
    throw new JoinError(
      `the clock of this machine (${now.toISOString()}) is before ${validFromDate.toISOString()}, from when on ` +
        'the certificate is valid; set the clock and run the same command again',
    )

  const server = withPort(relay.origin)
  const relays = [...new Set([server, ...answer.relays])]
  const file: NodeFile = { node: answer.node, relays, stun: answer.stun, server }
  await writeWhole(paths.ca, caPem)
  await writeWhole(paths.node, `${JSON.stringify(file, undefined, 2)}\n`)
  await commit(stateDir, answer.certificate, keyPem)
  return { ...file, certificatePem: answer.certificate, keyPem, caPem }
}

/** How a pod joins: by files that are mounted into it. */
export type PodJoin = {
  readonly relay: URL
  /** The CA of the mesh, PEM. */
  readonly caFile: string
  /** A projected ServiceAccount token. */
  readonly tokenFile: string
  /** Where the token does not say it. */
  readonly node: string | undefined
}

/**
 * What the flags say of that. @param node where a flag names it. @returns undefined where they say nothing.
 * @throws UsageError where they say half of it.
 */
export function podJoinOf(
  { joinRelay: relay, joinCa: caFile, joinToken: tokenFile }: JoinFlags,
  node?: string,
): PodJoin | undefined {
  const given = [relay, caFile, tokenFile].filter((flag) => flag !== undefined)
  if (given.length === 0) return undefined
  if (relay === undefined || caFile === undefined || tokenFile === undefined)
    throw new UsageError('--join-relay, --join-ca and --join-token: give all of them, or none')
  return { relay, caFile, tokenFile, node }
}
type JoinFlags = {
  readonly joinRelay: URL | undefined
  readonly joinCa: string | undefined
  readonly joinToken: string | undefined
}

/** @throws JoinError */
export async function enrolPod(stateDir: string, { relay, caFile, tokenFile, node }: PodJoin): Promise<NodeIdentity> {
  const [ca, token] = await Promise.all([caFile, tokenFile].map(readIfPresent))
  if (ca === undefined || token === undefined)
    throw new JoinError(`${ca === undefined ? caFile : tokenFile} is missing: it must be mounted into this pod`)
  const serviceAccountToken = token.trim()
  const name = node ?? nodeInToken(serviceAccountToken)
  if (name === undefined) throw new JoinError(`the token in ${tokenFile} does not name its node; give --node`)
  return enrol(stateDir, name, { relay, caPem: ca, credential: { serviceAccountToken } })
}

/**
 * Trades the certificate for the next one, with a new key. Both daemons of a node may do so at a time.
 * @throws JoinError
 */
export async function renew(
  stateDir: string,
  { clock, ...identity }: NodeIdentity & { readonly clock?: Clock },
  relay: URL,
): Promise<NodeIdentity> {
  const { keyPem, csr } = await request(stateDir, identity.node)
  const answer = await postRenewal(relay, { ...identity, ...(clock && { clock }) }, { version: 1, csr })
  checkAnswer(answer, identity.node, keyPem, identity.caPem)
  await commit(stateDir, answer.certificate, keyPem)
  return { ...identity, certificatePem: answer.certificate, keyPem }
}

async function request(stateDir: string, node: string): Promise<{ readonly keyPem: string; readonly csr: string }> {
  const keyPem = await pendingKey(identityPaths(stateDir).pendingKey)
  const publicKeyPem = createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString()
  const subject = { commonName: `system:node:${node}`, organization: 'system:nodes' }
  return { keyPem, csr: await createRequest(keyPem, publicKeyPem, subject) }
}

/** The key of an earlier attempt, or a new one: synced to disk before anything is sent. */
async function pendingKey(path: string): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  await writeNew(path, privateKey, PRIVATE_MODE)
  return (await readIfPresent(path)) ?? pendingKey(path)
}

async function commit(stateDir: string, certificatePem: string, keyPem: string): Promise<void> {
  const paths = identityPaths(stateDir)
  const isAt = async (path: string): Promise<boolean> => (await readIfPresent(path)) === keyPem
  // The other daemon of this node may have had the same key certified, and have been first.
  const pending = await isAt(paths.pendingKey)
  if (!pending && !(await isAt(paths.key)))
    throw new JoinError('another process has replaced the key meanwhile; try again')
  await writeWhole(paths.certificate, certificatePem)
  if (!pending) return
  try {
    await rename(paths.pendingKey, paths.key)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
}

function checkAnswer(answer: JoinAnswer, node: string, keyPem: string, caPem: string): void {
  const certificate = new X509Certificate(answer.certificate)
  const good =
    answer.node === node &&
    certificate.checkPrivateKey(createPrivateKey(keyPem)) &&
    certificate.verify(new X509Certificate(caPem).publicKey)
  if (!good)
    throw new JoinError('the relay answered with a certificate that is not for this key, this node and its own CA')
}

/** URL leaves out 443; here it is said. */
const withPort = (origin: string): string => (URL.parse(origin)?.port === '' ? `${origin}:443` : origin)
