// `fulmar join`: makes this machine a node. It verifies the relay by the hash in the token before it sends anything, and
// exchanges the token for a certificate (lib/net/enrolment.ts). An interrupted join is finished by the same command: the key is
// kept from before the token is sent until everything is in place. A pod has a ServiceAccount token in its place.

import { X509Certificate } from 'node:crypto'
import { spkiHash } from '../lib/certificates.ts'
import { stateDirOption } from '../lib/common-options.ts'
import { flag, optional, optionalText, url, type Options, type Values } from '../lib/config.ts'
import { enrol, enrolPod } from '../lib/net/enrolment.ts'
import { readIfPresent } from '../lib/net/files.ts'
import { damageOf, IdentityError, loadIdentity, type NodeIdentity } from '../lib/net/identity.ts'
import { findAuthority, JoinError } from '../lib/net/issuer-client.ts'
import { UsageError } from '../lib/net/lifetime.ts'
import { readOptions } from '../lib/net/options.ts'
import { parseToken, type JoinToken } from '../lib/wire/join.ts'

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
    fallback: '',
    parse: optional(parseToken),
  },
  serviceAccountToken: {
    name: 'service-account-token',
    value: 'FILE',
    doc: 'instead, in a pod on this node: a projected token for the audience fulmar',
    fallback: '',
    parse: optionalText,
  },
  ca: {
    name: 'ca',
    value: 'FILE',
    doc: 'with that, the CA of the relay (PEM)',
    fallback: '',
    parse: optionalText,
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
  const { token, serviceAccountToken, ca, node, relay, force, stateDir } = values
  if (
    (token === undefined) === (serviceAccountToken === undefined) ||
    (ca === undefined) !== (serviceAccountToken === undefined)
  )
    throw new UsageError('fulmar join: give --token, or --service-account-token with --ca')
  if (token !== undefined && node !== undefined && node !== token.node)
    throw new JoinError(`the token is for node ${token.node}, not for ${node}`)

  const present = force ? undefined : await presentIdentity(stateDir)
  if (present !== undefined) return alreadyJoined(present, relay, await meantBy(values), stateDir)
  const identity = await (token === undefined
    ? enrolPod(stateDir, { relay, caFile: ca!, tokenFile: serviceAccountToken!, node })
    : joinByToken(stateDir, relay, token))
  process.stdout.write(
    `joined ${relay.origin} as node ${identity.node}, until ${expiryOf(identity)}; the identity is in ${stateDir}\n`,
  )
  return 0
}

async function joinByToken(stateDir: string, relay: URL, { node, secret, caHash }: JoinToken): Promise<NodeIdentity> {
  const caPem = await findAuthority(relay, caHash)
  return enrol(stateDir, node, { relay, caPem, credential: { secret } })
}

/** Which node of which mesh is asked for; a pod's token may not name its node. */
type Meant = { readonly node: string | undefined; readonly caHash: string }

async function meantBy({ token, node, ca }: Values<typeof OPTIONS>): Promise<Meant> {
  if (token !== undefined) return token
  const caPem = await readIfPresent(ca!)
  if (caPem === undefined) throw new UsageError(`--ca ${ca}: is missing`)
  return { node, caHash: spkiHash(new X509Certificate(caPem)) }
}

/** @returns undefined if this machine has no identity that works now. */
async function presentIdentity(stateDir: string): Promise<NodeIdentity | undefined> {
  try {
    const identity = await loadIdentity(stateDir)
    if (damageOf(identity, stateDir) !== undefined) return undefined
    return new Date() < new X509Certificate(identity.certificatePem).validToDate ? identity : undefined
  } catch (error) {
    if (error instanceof IdentityError) return undefined
    throw error
  }
}

async function alreadyJoined(identity: NodeIdentity, relay: URL, meant: Meant, stateDir: string): Promise<number> {
  const { node = identity.node, caHash } = meant
  const same = identity.node === node && spkiHash(new X509Certificate(identity.caPem)) === caHash
  const what = `this machine is already node ${identity.node} of ${identity.relays[0]}, until ${expiryOf(identity)} (${stateDir})`
  if (!same) throw new JoinError(`${what}; to make it node ${node} of ${relay.origin} instead, give --force`)
  process.stdout.write(`${what}; nothing to do\n`)
  return 0
}

const expiryOf = ({ certificatePem }: NodeIdentity): string =>
  new X509Certificate(certificatePem).validToDate.toISOString().slice(0, 10)
