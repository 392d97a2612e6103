// `fulmar join`: makes this machine a node. It generates a key that never leaves the machine, verifies the relay by the
// hash in the token before it sends anything, and exchanges the token for a certificate. An interrupted join is finished
// by the same command: the key is kept from before the token is sent until everything is in place.

import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { rename } from 'node:fs/promises'
import { createRequest } from '../lib/certificates.ts'
import { stateDirOption } from '../lib/common-options.ts'
import { flag, optionalText, url, type Options, type Values } from '../lib/config.ts'
import { makePrivateFolder, PRIVATE_MODE, readIfPresent, writeNew, writeWhole } from '../lib/net/files.ts'
import { identityPaths, IdentityError, loadIdentity, type NodeFile, type NodeIdentity } from '../lib/net/identity.ts'
import { readOptions } from '../lib/net/options.ts'
import { parseToken, type JoinAnswer, type JoinToken } from '../lib/wire/join.ts'
import { findAuthority, JoinError, postJoin } from './join-client.ts'

const relayUrl = (value: string): URL => {
  const parsed = url('https')(value)
  if (parsed.pathname !== '/' || parsed.search !== '') throw new Error('has a path; give https://HOST:PORT only')
  return parsed
}

const OPTIONS = {
  relay: { name: 'relay', value: 'URL', doc: 'the relay, https://HOST:PORT', parse: relayUrl },
  token: {
    name: 'token',
    value: 'TOKEN',
    doc: 'from fulmar token create, for this node',
    parse: parseToken,
  },
  node: {
    name: 'node',
    value: 'NAME',
    doc: 'the name that the token must be for, as a check',
    fallback: '',
    parse: optionalText,
  },
  force: {
    name: 'force',
    doc: 'join again, as a new identity',
    fallback: 'false',
    parse: flag,
  },
  stateDir: stateDirOption('where the identity is kept'),
} satisfies Options

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar join --relay URL --token TOKEN', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { token, node, relay, force, stateDir } = values
  if (node !== undefined && node !== token.node)
    throw new JoinError(`the token is for node ${token.node}, not for ${node}`)

  const present = force ? undefined : await presentIdentity(stateDir)
  if (present !== undefined) return alreadyJoined(present, values)
  const identity = await join(relay, token, stateDir)
  process.stdout.write(
    `joined ${relay.origin} as node ${identity.node}, until ${expiryOf(identity)}; the identity is in ${stateDir}\n`,
  )
  return 0
}

async function join(relay: URL, token: JoinToken, stateDir: string): Promise<NodeIdentity> {
  const paths = identityPaths(stateDir)
  const caPem = await findAuthority(relay, token.caHash)
  await makePrivateFolder(paths.folder)
  const keyPem = await pendingKey(paths.pendingKey)
  const publicKeyPem = createPublicKey(keyPem).export({ type: 'spki', format: 'pem' }).toString()
  const subject = { commonName: `system:node:${token.node}`, organization: 'system:nodes' }
  const csr = await createRequest(keyPem, publicKeyPem, subject)
  const answer = await postJoin(relay, caPem, { version: 1, secret: token.secret, csr })
  checkAnswer(answer, token.node, keyPem, caPem)

  const server = withPort(relay.origin)
  const relays = [...new Set([server, ...answer.relays])]
  const file: NodeFile = { node: answer.node, relays, stun: answer.stun, server }
  await writeWhole(paths.certificate, answer.certificate)
  await writeWhole(paths.ca, caPem)
  await writeWhole(paths.node, `${JSON.stringify(file, undefined, 2)}\n`)
  await rename(paths.pendingKey, paths.key)
  return { ...file, certificatePem: answer.certificate, keyPem, caPem }
}

/** The key of an earlier attempt, or a new one: synced to disk before the token is sent. */
async function pendingKey(path: string): Promise<string> {
  const { privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  await writeNew(path, privateKey, PRIVATE_MODE)
  return (await readIfPresent(path))!
}

function checkAnswer(answer: JoinAnswer, node: string, keyPem: string, caPem: string): void {
  const certificate = new X509Certificate(answer.certificate)
  const good =
    answer.node === node &&
    certificate.checkPrivateKey(createPrivateKey(keyPem)) &&
    certificate.verify(new X509Certificate(caPem).publicKey)
  if (!good)
    throw new JoinError('the relay answered with a certificate that is not for this key, this node and its own CA')
  const now = new Date()
  if (now < certificate.validFromDate)
    throw new JoinError(
      `the clock of this machine (${now.toISOString()}) is before ${certificate.validFromDate.toISOString()}, from when on ` +
        'the certificate is valid; set the clock and run the same command again',
    )
}

/** @returns undefined if this machine has no identity that works now. */
async function presentIdentity(stateDir: string): Promise<NodeIdentity | undefined> {
  try {
    const identity = await loadIdentity(stateDir)
    const certificate = new X509Certificate(identity.certificatePem)
    const inTime = new Date() < certificate.validToDate
    return inTime && certificate.checkPrivateKey(createPrivateKey(identity.keyPem)) ? identity : undefined
  } catch (error) {
    if (error instanceof IdentityError) return undefined
    throw error
  }
}

async function alreadyJoined(
  identity: NodeIdentity,
  { relay, token, stateDir }: Values<typeof OPTIONS>,
): Promise<number> {
  const { spkiHash } = await import('../lib/certificates.ts')
  const same = identity.node === token.node && spkiHash(new X509Certificate(identity.caPem)) === token.caHash
  const what = `this machine is already node ${identity.node} of ${identity.relays[0]}, until ${expiryOf(identity)} (${stateDir})`
  if (!same) throw new JoinError(`${what}; to make it node ${token.node} of ${relay.origin} instead, give --force`)
  process.stdout.write(`${what}; nothing to do\n`)
  return 0
}

const expiryOf = ({ certificatePem }: NodeIdentity): string =>
  new X509Certificate(certificatePem).validToDate.toISOString().slice(0, 10)
/** URL leaves out 443; here it is said. */
const withPort = (origin: string): string => (URL.parse(origin)?.port === '' ? `${origin}:443` : origin)
