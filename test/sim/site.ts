// A place of the simulated world, and its keys.

import { createHash } from 'node:crypto'
import type { SocketAddress } from '../../lib/address.ts'
import type { NodeIdentity } from '../../lib/net/identity.ts'
import type { Nat } from './internet.ts'

export type Site = {
  readonly node: string
  readonly pool: string
  readonly identity: Pick<NodeIdentity, 'node' | 'certificatePem' | 'keyPem' | 'caPem'>
  readonly privateKey: string
  readonly publicKey: string
  readonly podCidrs: readonly string[]
  /** Of WireGuard's direct port, inside the site. */
  readonly inside: SocketAddress
  readonly nat: Nat
  /** To the relay and to the Internet, one way. */
  readonly latencyMs: number
}

/** Each is its pool's only gateway. */
export const ROLE = { active: true, term: 1 } as const

export const privateKeyFor = (node: string, seed: number): string =>
  createHash('sha256').update(`${seed} ${node}`).digest('base64')
