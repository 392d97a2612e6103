// Who this node is, as `fulmar join` left it in the state folder, and how it proves it to the relay.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readIfPresent } from './files.ts'

export type NodeIdentity = {
  readonly node: string
  /** PEM: the node's certificate, its key (PKCS#8), and the CA that relays and peers are verified by. */
  readonly certificatePem: string
  readonly keyPem: string
  readonly caPem: string
  /** URLs of the relay, the one that the node joined by first; at least one. */
  readonly relays: readonly string[]
  /** STUN servers, `ip:port`. */
  readonly stun: readonly string[]
  /** URL of the Kubernetes API. */
  readonly server: string
}

/** What node.json holds. */
export type NodeFile = Pick<NodeIdentity, 'node' | 'relays' | 'stun' | 'server'>

export class IdentityError extends Error {
  readonly code = 'FULMAR_IDENTITY'
  override readonly name = 'IdentityError'
}

export const identityPaths = (stateDir: string) => ({
  folder: join(stateDir, 'identity'),
  certificate: join(stateDir, 'identity', 'node.crt'),
  key: join(stateDir, 'identity', 'node.key'),
  ca: join(stateDir, 'identity', 'ca.crt'),
  /** The key of a join or a renewal that has not succeeded yet, or not quite: a certificate for it counts. */
  pendingKey: join(stateDir, 'identity', 'pending.key'),
  /** The floor of the clock (lib/clock.ts), in ISO 8601. */
  clock: join(stateDir, 'identity', 'clock'),
  node: join(stateDir, 'node.json'),
})

/** The certificate, and then the key, may be replaced in the middle of a look at both. */
const LOOKS = 5
const LOOK_AGAIN_MS = 20

/** @throws IdentityError naming what is missing or damaged. */
export async function loadIdentity(stateDir: string): Promise<NodeIdentity> {
  const paths = identityPaths(stateDir)
  const [node, caPem] = await Promise.all([paths.node, paths.ca].map(need))
  const file = readNodeFile(node!)
  if (file === undefined) throw new IdentityError(`${paths.node} is damaged; ${JOIN_ANEW}`)
  for (let look = 1; ; look++) {
    const certificatePem = await need(paths.certificate)
    const [pending, key] = [await readIfPresent(paths.pendingKey), await readIfPresent(paths.key)]
    const matching = [key, pending].find((pem) => pem !== undefined && isPair(certificatePem, pem))
    if (matching === undefined && look < LOOKS && pending !== undefined) await sleep(LOOK_AGAIN_MS)
    else return { ...file, certificatePem, keyPem: matching ?? key ?? (await need(paths.key)), caPem: caPem! }
  }
}

async function need(path: string): Promise<string> {
  const content = await readIfPresent(path)
  if (content === undefined)
    throw new IdentityError(`${path} is missing: this machine is not a node yet; run fulmar join`)
  return content
}

/** Why it is of no use, with what to do; undefined where certificate, key and CA are what they should be. */
export function damageOf(identity: NodeIdentity, stateDir: string): string | undefined {
  const paths = identityPaths(stateDir)
  const { certificatePem, keyPem, caPem } = identity
  const bad = [
    ...(isReadable(() => new X509Certificate(certificatePem)) ? [] : [paths.certificate]),
    ...(isReadable(() => createPrivateKey(keyPem)) ? [] : [paths.key]),
    ...(isReadable(() => new X509Certificate(caPem)) ? [] : [paths.ca]),
  ]
  if (bad.length > 0) return `${bad.join(' and ')} cannot be read; ${JOIN_ANEW}`
  return isPair(certificatePem, keyPem)
    ? undefined
    : `${paths.key} is not the key of ${paths.certificate}; ${JOIN_ANEW}`
}
const JOIN_ANEW = 'run fulmar join --force with a new token'

function isReadable(read: () => unknown): boolean {
  try {
    read()
    return true
  } catch {
    return false
  }
}

function isPair(certificatePem: string, keyPem: string): boolean {
  try {
    return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem))
  } catch {
    // Whoever uses them says what is wrong with them.
    return false
  }
}

/** Options of tls.connect, https.request and ws: shows the node's certificate, accepts only what the mesh's CA issued. */
export const tlsOptions = ({ certificatePem, keyPem, caPem }: NodeIdentity) =>
  ({ cert: certificatePem, key: keyPem, ca: caPem, minVersion: 'TLSv1.2' }) as const

function readNodeFile(text: string): NodeFile | undefined {
  let value: Partial<Record<keyof NodeFile, unknown>> | null
  try {
    value = JSON.parse(text) as Partial<Record<keyof NodeFile, unknown>> | null
  } catch {
    return undefined
  }
  const { node, relays, stun, server } = value ?? {}
  if (typeof node !== 'string' || typeof server !== 'string' || !isTexts(relays) || !isTexts(stun)) return undefined
  return relays.length === 0 ? undefined : { node, relays, stun, server }
}

const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string')
