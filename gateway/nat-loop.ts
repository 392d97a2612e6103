// Learns what the NAT does, and keeps it true: mapping and filtering when it starts, when the network changes, when a path
// falls, and every half hour; hairpinning and the lifetime of mappings, which take packets and minutes, once for each
// network and twice a day.

import type { SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import { pause } from '../lib/net/lifetime.ts'
import type { NatBehaviour } from '../lib/status.ts'
import { isAnotherNat, isKnown, lookAgainMs, UNKNOWN_NAT } from './nat.ts'
import { discoverNat } from './nat-client.ts'
import { testHairpin } from './nat-hairpin-client.ts'
import { refreshMs } from './nat-lifetime.ts'
import { measureLifetime } from './nat-lifetime-client.ts'

export type NatWatch = {
  readonly behaviour: () => NatBehaviour
  /** undefined for a family that is not looked at: IPv6, where there are servers of IPv4. */
  readonly behaviourOf: (family: Family) => NatBehaviour | undefined
  /** Whether there has been a look. */
  readonly looked: () => boolean
  /** How often a mapping is to be refreshed. */
  readonly refreshMs: () => number
  /** Something failed that a changed NAT or firewall would explain: find out what they do now. */
  readonly lookAgain: () => void
  /** This is another network: what was found out says nothing of it. */
  readonly startOver: () => void
  /** Where servers see us: if that is another place than before, it is another network. */
  readonly seenAt: (addresses: readonly SocketAddress[]) => void
}

/** What takes long to find out. */
type Details = Pick<NatBehaviour, 'hairpin' | 'lifetimeMs' | 'lifetimeBelowMs'>
/** `of`: what the NAT was like when its details were begun to be found out. */
type Study = { readonly of: NatBehaviour; readonly startedAtMs: number; readonly ending: AbortController }

const DETAILS_MS = 12 * 3_600_000
/** A NAT that spreads a host's mappings over many addresses shows another all the time, and is no other network for that. */
const STAY_MS = 10 * 60_000

/** @param options.onChange called when `behaviour` is another. */
export function runNat(
  options: { readonly servers: readonly SocketAddress[]; readonly onChange: () => void },
  signal: AbortSignal,
): NatWatch {
  const { servers, onChange } = options
  const asked = { servers, family: servers.some((server) => server.family === 4) ? 4 : 6 } as const
  let basics = UNKNOWN_NAT
  let details: Details = {}
  let study: Study | undefined
  let sleep = new AbortController()
  let again = false
  let seen: { readonly address: string; readonly sinceMs: number } | undefined

  const set = (nextBasics: NatBehaviour, nextDetails: Details): void => {
    const before = JSON.stringify([basics, details])
    basics = nextBasics
    details = nextDetails
    if (JSON.stringify([basics, details]) !== before) onChange()
  }

  const discover = async (): Promise<void> => {
    for (let failures = 0; !signal.aborted;) {
      again = false
      const next = await discoverNat(asked, signal)
      if (study !== undefined && isAnotherNat(study.of, next)) endStudy()
      set(next, details)
      failures = isKnown(next) ? 0 : failures + 1
      sleep = new AbortController()
      // Asked to look again while it looked: what it found may be half of what was before and half of what is now.
      if (again) continue
      if (next.udp === 'open') begin(next)
      await pause(lookAgainMs(next, failures), AbortSignal.any([signal, sleep.signal]))
    }
  }

  const endStudy = (): void => {
    study?.ending.abort()
    study = undefined
    set(basics, {})
  }

  const startOver = (): void => {
    endStudy()
    again = true
    sleep.abort()
  }

  const begin = (of: NatBehaviour): void => {
    if (study !== undefined && performance.now() - study.startedAtMs < DETAILS_MS) return
    study?.ending.abort()
    study = { of, startedAtMs: performance.now(), ending: new AbortController() }
    void learn(study)
  }

  const learn = async (current: Study): Promise<void> => {
    const stopped = AbortSignal.any([signal, current.ending.signal])
    const { mapping, filtering } = current.of
    // Where every packet comes in there is nothing that could end.
    const open = mapping === 'none' && filtering === 'none'
    const hairpin = mapping === 'none' ? undefined : await testHairpin(asked, stopped)
    if (stopped.aborted) return
    if (hairpin !== undefined) set(basics, { ...details, hairpin })
    const lifetime = open ? undefined : await measureLifetime(asked, stopped)
    if (stopped.aborted) return
    if (lifetime !== undefined) {
      const { livedMs, diedMs } = lifetime
      const ends = diedMs === undefined ? {} : { lifetimeBelowMs: diedMs }
      set(basics, { ...(hairpin === undefined ? {} : { hairpin }), lifetimeMs: livedMs, ...ends })
    } else if (!open) study = undefined // to be tried again after the next look
  }

  const behaviour = (): NatBehaviour => ({ ...basics, ...details })

  void discover()
  return {
    behaviour,
    behaviourOf: (family) => (family === asked.family ? behaviour() : undefined),
    looked: () => basics !== UNKNOWN_NAT,
    refreshMs: () => refreshMs(details.lifetimeMs),
    lookAgain: () => {
      // The first look sees whatever there is; paths that begin meanwhile are no news.
      again = basics !== UNKNOWN_NAT
      sleep.abort()
    },
    startOver,
    seenAt: (addresses) => {
      const address = addresses.find(({ family }) => family === asked.family)?.address
      if (address === undefined || address === seen?.address) return
      const nowMs = performance.now()
      const moved = seen !== undefined && nowMs - seen.sinceMs >= STAY_MS
      seen = { address, sinceMs: nowMs }
      if (moved) startOver()
    },
  }
}
