// The replicas of a relay: which of them this one is, and who may call itself one.

import { isIP } from 'node:net'
import type { Identity } from '../lib/identity.ts'
import { nameOf, type Replica } from '../lib/replicas.ts'
import { FORWARD_PATH } from './forward-target.ts'
import { PRESENCE_PATH } from './presence.ts'

export const REPLICA_PATHS: readonly string[] = [PRESENCE_PATH, FORWARD_PATH]
/** Of certificates that a relay shows to its replicas; only who holds the mesh's CA can make one. */
export const GROUP_RELAYS = 'system:fulmar:relays'

export const isReplica = (caller: Identity): boolean => caller.kind === 'user' && caller.groups.includes(GROUP_RELAYS)

/**
 * Finds this relay in the list.
 * @param hosts its public addresses and names. @param port where it listens.
 * @throws Error where there is none, or more than one.
 */
export function ownReplica(replicas: readonly Replica[], hosts: readonly string[], port: number): Replica {
  const own = new Set(hosts.map((host) => URL.parse(`https://${isIP(host) === 6 ? `[${host}]` : host}:${port}`)?.host))
  const found = replicas.filter((urls) => urls.some((each) => own.has(URL.parse(each)!.host)))
  const [first] = found
  const where = `${hosts.join()} with port ${port}, as of --public and --listen`
  if (first === undefined) throw new Error(`none of them is this relay: ${where}`)
  if (found.length > 1) throw new Error(`${found.map(nameOf).join(' and ')} are both this relay: ${where}`)
  return first
}
