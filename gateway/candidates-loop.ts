// Keeps our own announcement true: asks STUN servers through WireGuard's port what address it has (which also keeps the
// NAT's mapping alive), has the router map a port, reads the interfaces, and learns the NAT's behaviour.

import { networkInterfaces } from 'node:os'
import type { SocketAddress } from '../lib/address.ts'
import { formatSocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { pause, tick } from '../lib/net/lifetime.ts'
import type { NatBehaviour } from '../lib/status.ts'
import { hostAddresses, ownCandidates, type IsInside } from './candidates.ts'
import type { Candidate } from './announcement.ts'
import { runNat } from './nat-loop.ts'
import { watchNetwork } from './network-loop.ts'
import { wantsMapping } from './port-mapping.ts'
import { runPortMapping } from './port-mapping-client.ts'
import type { StunClient } from './stun-client.ts'

export type Reachability = {
  readonly candidates: () => readonly Candidate[]
  readonly nat: () => NatBehaviour
  /** Something failed that a changed NAT or firewall would explain: find out what they do now. */
  readonly lookAgain: () => void
}

const BINDING_TIMEOUT_MS = 1_500
/** Interfaces are read so often; a new address is announced at once. */
const INTERFACES_MS = 2_000

export function runCandidates(
  options: {
    /** WireGuard's. */
    readonly port: () => number
    readonly mappingNonce: Uint8Array
    readonly stun: readonly SocketAddress[]
    /** Asks from WireGuard's port. */
    readonly stunClient: Pick<StunClient, 'request'>
    readonly isInside: IsInside
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): Reachability {
  const { stun, stunClient, onChange } = options
  let reflexive: readonly SocketAddress[] = []
  let addresses = ''
  let sleep = new AbortController()

  const bind = async (): Promise<void> => {
    while (!signal.aborted) {
      const answers = await Promise.all(stun.map((server) => stunClient.request(server, BINDING_TIMEOUT_MS)))
      const seen = answers.filter((answer) => answer !== undefined)
      const news = JSON.stringify(seen) !== JSON.stringify(reflexive)
      // A round without any answer says that UDP fails now, not that the address has gone.
      if (seen.length > 0) reflexive = seen
      nat.seenAt(seen)
      if (news) onChange()
      sleep = new AbortController()
      await pause(nat.refreshMs(), AbortSignal.any([signal, sleep.signal]))
    }
  }
  const watchInterfaces = async (): Promise<void> => {
    while (!signal.aborted) {
      const text = JSON.stringify(hosts())
      if (text !== addresses) onChange()
      addresses = text
      await tick(INTERFACES_MS, signal)
    }
  }
  const nat = runNat(
    {
      servers: stun,
      onChange: () => {
        mappings.look()
        // A mapping may live shorter than it was given so far.
        sleep.abort()
        onChange()
      },
    },
    signal,
  )
  const hosts = () => hostAddresses(networkInterfaces(), options.port(), options.isInside)
  const mappings = runPortMapping(
    {
      port: options.port,
      nonce: options.mappingNonce,
      // Until it is known what stands before us, nothing is asked of it.
      wants: (family) => (stun.length === 0 || nat.looked()) && wantsMapping(family, nat.behaviourOf(family)),
      onChange,
      log: options.log,
    },
    signal,
  )

  void bind()
  void watchInterfaces()
  watchNetwork(
    {
      addresses: () => hostAddresses(networkInterfaces(), 0, () => false).map(({ address }) => address),
      onChange: () => {
        nat.startOver()
        sleep.abort()
        onChange()
      },
      log: options.log,
    },
    signal,
  )
  return {
    lookAgain: () => {
      nat.lookAgain()
      mappings.look()
    },
    candidates: () => ownCandidates(hosts(), mappings.mapped(), reflexive),
    nat: () => ({
      ...nat.behaviour(),
      ...(reflexive[0] === undefined ? {} : { mapped: formatSocketAddress(reflexive[0]) }),
    }),
  }
}
