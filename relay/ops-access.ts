// Who may use the relay as a proxy into nodes, beside kube-apiserver: people with a certificate of the group
// system:masters, and those in a file of the operator's, each for some nodes and their ports or targets.
//
//   # user       SHA-256 of the token, hex   nodes           ports and targets
//   prometheus   9f86d081884c7d65…           edge-*,cloud-1  10250,9100
//   jane         -                           edge-7          console,192.168.1.20:502
//
// A token comes as `Bearer TOKEN`, or as the password of `Basic`, which is what HTTPS_PROXY=https://USER:TOKEN@… sends. A
// user with `-` shows a certificate of that name. A number is a port of the node itself; `*` is all of them and all targets.

import { createHash, timingSafeEqual } from 'node:crypto'
import { GROUP_MASTERS, type Identity } from '../lib/identity.ts'
import type { ProxyTarget } from './proxy-route.ts'

export type OpsUser = {
  readonly name: string
  /** Of the token; undefined for who comes with a certificate. */
  readonly hash: Buffer | undefined
  /** Names in which `*` stands for any characters. */
  readonly nodes: readonly string[]
  /** Ports, names of targets, and `HOST:PORT`, as in the file; undefined: all. */
  readonly targets: readonly string[] | undefined
}

export type OpsGrant = {
  readonly user: string
  readonly mayDial: (target: ProxyTarget) => boolean
  /** Everything: nothing need be hidden. */
  readonly all: boolean
}

const MAX_USERS = 1000
const MAX_TOKEN_BYTES = 4096

/** @throws Error with every line that is wrong. */
export function parseUsers(text: string): readonly OpsUser[] {
  const mistakes: string[] = []
  const users: OpsUser[] = []
  for (const [index, line] of text.split('\n').entries()) {
    const words = line.replace(/#.*$/, '').trim().split(/\s+/)
    if (words[0] === '') continue
    const [name = '', hash = '', nodes = '', targets = '', ...rest] = words
    const wrong = (what: string): void => void mistakes.push(`line ${index + 1}: ${what}`)
    const all = targets.toLowerCase().split(',')
    const wrongTarget = all.find((target) => !isTarget(target))
    if (targets === '' || rest.length > 0) wrong('is not USER SHA256 NODE,… PORT,…')
    else if (!/^[A-Za-z0-9][-A-Za-z0-9_.@]{0,62}$/.test(name)) wrong(`${name} is no user`)
    else if (!/^([0-9a-f]{64}|-)$/i.test(hash))
      wrong(`the token of ${name} is not given as the 64 digits of its SHA-256, nor as - for a certificate`)
    else if (!/^[-a-z0-9.*,]+$/.test(nodes)) wrong(`${nodes} are no names of nodes`)
    else if (targets !== '*' && wrongTarget !== undefined) wrong(`${wrongTarget} is neither a port nor a target`)
    else
      users.push({
        name,
        hash: hash === '-' ? undefined : Buffer.from(hash, 'hex'),
        nodes: nodes.split(','),
        targets: targets === '*' ? undefined : all,
      })
  }
  if (users.length > MAX_USERS) mistakes.push(`has more than ${MAX_USERS} users`)
  if (mistakes.length > 0) throw new Error(mistakes.join('; '))
  return users
}

/** A port, the name of a target, or HOST:PORT. */
function isTarget(text: string): boolean {
  const [, host, digits] = /^(?:(.+):)?(\d{1,5})$/.exec(text) ?? []
  if (digits === undefined) return /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(text)
  return Number(digits) > 0 && Number(digits) < 65536 && (host === undefined || /^[-a-z0-9._]+$/.test(host))
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
  if (caller.kind === 'user' && caller.groups.includes(GROUP_MASTERS))
    return { user: caller.user, mayDial: () => true, all: true }
  const rows = rowsOf(caller, authorization, users)
  const [first] = rows
  if (first === undefined) return undefined
  return { user: first.name, mayDial: (target) => rows.some((row) => mayDial(row, target)), all: false }
}

function rowsOf(caller: Identity, authorization: string | undefined, users: readonly OpsUser[]): readonly OpsUser[] {
  const shown = credentialsOf(authorization)
  if (shown === undefined)
    return caller.kind === 'user' ? users.filter(({ name, hash }) => hash === undefined && name === caller.user) : []
  const hash = createHash('sha256').update(shown.token).digest()
  // All are compared, so that the time tells nothing of which.
  const found = users.filter((each) => each.hash !== undefined && timingSafeEqual(each.hash, hash))
  return found.filter(({ name }) => shown.user === undefined || shown.user === name)
}

function mayDial({ nodes, targets }: OpsUser, { node, host, port }: ProxyTarget): boolean {
  if (!nodes.some((pattern) => matches(pattern, node))) return false
  if (targets === undefined) return true
  const asked = host.toLowerCase()
  return host === node
    ? targets.includes(String(port))
    : targets.includes(`${asked}:${port}`) || (!/^\d+$/.test(asked) && targets.includes(asked))
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
