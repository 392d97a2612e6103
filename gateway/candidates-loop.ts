// Keeps our own announcement true: asks STUN servers through WireGuard's port what address it has (which also keeps the
// NAT's mapping alive), has the router map a port, reads the interfaces, and learns the NAT's behaviour.

import { networkInterfaces } from 'node:os'
import type { SocketAddress } from '../lib/address.ts'
import { formatSocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import type { NatBehaviour } from '../lib/status.ts'
import { hostAddresses, ownCandidates, type IsInside } from './candidates.ts'
import type { Candidate } from './announcement.ts'
import { UNKNOWN_NAT } from './nat.ts'
import { discoverNat } from './nat-client.ts'
import { wantsMapping } from './port-mapping.ts'
import { runPortMapping } from './port-mapping-client.ts'
import type { Binder } from './stun-client.ts'

export type Reachability = {
  readonly candidates: () => readonly Candidate[]
  readonly nat: () => NatBehaviour
  /** Something failed that a changed NAT or firewall would explain: find out what they do now. */
  readonly lookAgain: () => void
}

/** Shorter than the 30 s after which the strictest NATs forget an unanswered mapping. */
const REFRESH_MS = 20_000
const BINDING_TIMEOUT_MS = 1_500
/** Interfaces are read so often; a new address is announced at once. */
const INTERFACES_MS = 2_000
const DISCOVERY_MS = 30 * 60_000
const DISCOVERY_RETRY_MS = 30_000

export function runCandidates(
  options: {
    /** WireGuard's. */
    readonly port: () => number
    readonly mappingNonce: Uint8Array
    readonly stun: readonly SocketAddress[]
    readonly binder: Binder
    readonly isInside: IsInside
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): Reachability {
  const { stun, binder, onChange } = options
  let reflexive: readonly SocketAddress[] = []
  let behaviour: NatBehaviour = UNKNOWN_NAT
  /** The family whose NAT `behaviour` is, once there has been a look. */
  let lookedAt: Family | undefined
  let addresses = ''
  let sleep = new AbortController()
  let again = false

  const bind = async (): Promise<void> => {
    while (!signal.aborted) {
      const answers = await Promise.all(stun.map((server) => binder.request(server, BINDING_TIMEOUT_MS)))
      const seen = answers.filter((answer) => answer !== undefined)
      const news = JSON.stringify(seen) !== JSON.stringify(reflexive)
      // A round without any answer says that UDP fails now, not that the address has gone.
      if (seen.length > 0) reflexive = seen
      if (news) onChange()
      await pause(REFRESH_MS, signal)
    }
  }
  const watchInterfaces = async (): Promise<void> => {
    while (!signal.aborted) {
      const text = JSON.stringify(hosts())
      if (text !== addresses) onChange()
      addresses = text
      await pause(INTERFACES_MS, signal)
    }
  }
  const discover = async (): Promise<void> => {
    for (let failures = 0; !signal.aborted;) {
      again = false
      const family = stun.some((server) => server.family === 4) ? 4 : 6
      const next = await discoverNat({ servers: stun.filter((server) => server.family === family), family }, signal)
      const first = lookedAt === undefined
      lookedAt = family
      if (first || JSON.stringify(next) !== JSON.stringify(behaviour)) {
        behaviour = next
        onChange()
        mappings.look()
      }
      failures = isKnown(next) ? 0 : failures + 1
      sleep = new AbortController()
      // Asked to look again while it looked: what it found may be half of what was before and half of what is now.
      if (again) continue
      await pause(failures === 0 ? DISCOVERY_MS : retryMs(next, failures), AbortSignal.any([signal, sleep.signal]))
    }
  }
  const hosts = () => hostAddresses(networkInterfaces(), options.port(), options.isInside)
  const mappings = runPortMapping(
    {
      port: options.port,
      nonce: options.mappingNonce,
      // Until it is known what stands before us, nothing is asked of it.
      wants: (family) => lookedAt !== undefined && wantsMapping(family, lookedAt === family ? behaviour : undefined),
      onChange,
      log: options.log,
    },
    signal,
  )

  void bind()
  void watchInterfaces()
  void discover()
  return {
    lookAgain: () => {
      // The first look sees whatever there is; paths that begin meanwhile are no news.
      again = behaviour !== UNKNOWN_NAT
      sleep.abort()
      mappings.look()
    },
    candidates: () => ownCandidates(hosts(), mappings.mapped(), reflexive),
    nat: () => ({
      ...behaviour,
      ...(reflexive[0] === undefined ? {} : { mapped: formatSocketAddress(reflexive[0]) }),
    }),
  }
}

const isKnown = ({ udp, mapping, filtering }: NatBehaviour): boolean =>
  udp === 'open' && mapping !== 'unknown' && filtering !== 'unknown'

/** A firewall may open at any time; what a server with one address cannot tell is asked ever less often. */
const retryMs = ({ udp }: NatBehaviour, failures: number): number =>
  udp === 'open' ? Math.min(DISCOVERY_MS, DISCOVERY_RETRY_MS * 2 ** (failures - 1)) : DISCOVERY_RETRY_MS
