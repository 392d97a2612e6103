// Who may use the relay as a proxy into nodes, beside kube-apiserver: people with a certificate of the group
// system:masters, and programs with a token from a file of the operator's, each for some nodes and ports.
//
//   # user       SHA-256 of the token, hex   nodes           ports
//   prometheus   9f86d081884c7d65…           edge-*,cloud-1  10250,9100
//
// A token comes as `Bearer TOKEN`, or as the password of `Basic`, which is what HTTPS_PROXY=https://USER:TOKEN@… sends.

import { createHash, timingSafeEqual } from 'node:crypto'
import { GROUP_MASTERS, type Identity } from '../lib/identity.ts'

export type OpsUser = {
  readonly name: string
  readonly hash: Buffer
  /** Names in which `*` stands for any characters. */
  readonly nodes: readonly string[]
  /** undefined: all. */
  readonly ports: readonly number[] | undefined
}

export type OpsGrant = { readonly user: string; readonly mayDial: (node: string, port: number) => boolean }

const MAX_USERS = 1000
const MAX_TOKEN_BYTES = 4096

/** @throws Error with every line that is wrong. */
export function parseUsers(text: string): readonly OpsUser[] {
  const mistakes: string[] = []
  const users: OpsUser[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.replace(/#.*$/, '').trim().split(/\s+/)
    if (words[0] === '') continue
    const [name = '', hash = '', nodes = '', ports = '', ...rest] = words
    const wrong = (what: string): void => void mistakes.push(`line ${index + 1}: ${what}`)
    const numbers = ports === '*' ? undefined : ports.split(',').map(Number)
    if (ports === '' || rest.length > 0) wrong('is not USER SHA256 NODE,… PORT,…')
    else if (!/^[A-Za-z0-9][-A-Za-z0-9_.@]{0,62}$/.test(name)) wrong(`${name} is no user`)
    else if (!/^[0-9a-f]{64}$/i.test(hash)) wrong(`the token of ${name} is not given as the 64 digits of its SHA-256`)
    else if (!/^[-a-z0-9.*,]+$/.test(nodes)) wrong(`${nodes} are no names of nodes`)
    else if (numbers?.some((port) => !(Number.isInteger(port) && port > 0 && port < 65536)))
      wrong(`${ports} are no ports`)
    else users.push({ name, hash: Buffer.from(hash, 'hex'), nodes: nodes.split(','), ports: numbers })
  }
  if (users.length > MAX_USERS) mistakes.push(`has more than ${MAX_USERS} users`)
  if (mistakes.length > 0) throw new Error(mistakes.join('; '))
  return users
}

/**
 * @param authorization the Proxy-Authorization header.
 * @returns what the caller may dial; undefined for whoever proves nothing.
 */
export function grantOf(
  caller: Identity,
  authorization: string | undefined,
  users: readonly OpsUser[],
): OpsGrant | undefined {
  if (caller.kind === 'user' && caller.groups.includes(GROUP_MASTERS)) return { user: caller.user, mayDial: () => true }
  const shown = credentialsOf(authorization)
  if (shown === undefined) return undefined
  const hash = createHash('sha256').update(shown.token).digest()
  // All are compared, so that the time tells nothing of which.
  const found = users.filter((each) => timingSafeEqual(each.hash, hash))
  const rows = found.filter(({ name }) => shown.user === undefined || shown.user === name)
  const [first] = rows
  if (first === undefined) return undefined
  return {
    user: first.name,
    mayDial: (node, port) =>
      rows.some(
        ({ nodes, ports }) => (ports?.includes(port) ?? true) && nodes.some((pattern) => matches(pattern, node)),
      ),
  }
}

function credentialsOf(header = ''): { readonly user?: string; readonly token: string } | undefined {
  const [, scheme, value] = /^(bearer|basic) +(\S+)$/i.exec(header.trim()) ?? []
  if (scheme === undefined || value === undefined || value.length > MAX_TOKEN_BYTES) return undefined
  if (scheme.toLowerCase() === 'bearer') return { token: value }
  const [, user, token] = /^([^:]*):(.+)$/s.exec(Buffer.from(value, 'base64').toString()) ?? []
  return user === undefined || token === undefined ? undefined : { user, token }
}

function matches(pattern: string, node: string): boolean {
  const expression = pattern.split('*').map((part) => part.replaceAll('.', '\\.'))
  return new RegExp(`^${expression.join('.*')}$`).test(node)
}
