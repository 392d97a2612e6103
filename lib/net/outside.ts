// Addresses that this node must reach without the mesh: its own on the LAN, its resolvers, and those of relays, STUN
// servers and the API. A route that took one of them into the mesh would cut off the way on which its mistake is mended.
// Names are looked up as those who dial them do, again and again; what is not known yet, or offline, holds nothing up.

import { lookup as lookUpHost, Resolver } from 'node:dns/promises'
import { isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { isDeepStrictEqual } from 'node:util'
import { canonicalAddress, parseSocketAddress } from '../address.ts'
import { backoffMs } from '../backoff.ts'
import { contains, parseCidr } from '../cidr.ts'
import { withoutOutside, type OutsideAddress, type Pool } from '../k8s/pools.ts'
import type { NodeIdentity } from './identity.ts'
import { aborted, pause, tick } from './lifetime.ts'

export type OutsideOptions = {
  readonly identity: Pick<NodeIdentity, 'node' | 'relays' | 'stun' | 'server'>
  /** Where sessions with the relay lead: a name may have other addresses for them than for us. */
  readonly sessions?: () => readonly (string | undefined)[]
  /** Pools may be routable now that were not, or the other way round. */
  readonly onChange: () => void
  /** All addresses of a name. @throws if it has none, or nobody answers. */
  readonly lookup?: (name: string) => Promise<readonly string[]>
}
export type Outside = {
  /** Those that matter to a node of these pools: its own among its own pods are inside. */
  readonly addresses: (pools: readonly Pool[]) => readonly OutsideAddress[]
  /** Pools as this node may route them, and what was left out. */
  readonly routable: (pools: readonly Pool[]) => { pools: readonly Pool[]; problems: readonly string[] }
  /** Resolves after the signal aborted. */
  readonly done: Promise<void>
}

/** Interfaces and resolv.conf are read so often. */
const LOCAL_MS = 5_000
/** Some 7 MB a month for a daemon that asks over a metered link. */
const LOOKUP_MS = 5 * 60_000
const RETRY = { baseMs: 500, capMs: 30_000 }
const ADDRESSES_MAX = 64

export function followOutside(
  { identity, sessions = () => [], onChange, lookup = allAddresses }: OutsideOptions,
  signal: AbortSignal,
): Outside {
  const hosts = hostsOf(identity)
  const names = [...new Set(hosts.map(({ host }) => host))].filter((host) => host !== '' && isIP(host) === 0)
  const found = new Map<string, readonly string[]>()

  const lookUpNames = async (): Promise<void> => {
    for (let failures = 0; !signal.aborted && names.length > 0;) {
      let failed = false
      // One at a time: a lookup that hangs holds one of the four threads that the process has for such.
      for (const name of names)
        try {
          const addresses = (await lookup(name)).slice(0, ADDRESSES_MAX).toSorted()
          const news = addresses.join() !== found.get(name)?.join()
          found.set(name, addresses)
          if (news && !signal.aborted) onChange()
        } catch {
          // Whoever dials the name tells that it leads nowhere; the addresses that it had still count.
          failed = true
        }
      failures = failed ? failures + 1 : 0
      await pause(failed ? backoffMs(RETRY, failures, Math.random()) : LOOKUP_MS, signal)
    }
  }
  let local = localAddresses()
  const watchLocal = async (): Promise<void> => {
    while (!signal.aborted) {
      await tick(LOCAL_MS, signal)
      const before = local
      local = localAddresses()
      if (!isDeepStrictEqual(local, before) && !signal.aborted) onChange()
    }
  }

  const outside = (): readonly OutsideAddress[] => [
    ...hosts.flatMap(({ host, what }) => (found.get(host) ?? [host]).map((address) => ({ address, what }))),
    ...sessions().flatMap((address) => (address === undefined ? [] : [{ address, what: 'the relay' }])),
    ...local,
  ]
  const addresses: Outside['addresses'] = (pools) => {
    const own = pools.flatMap(({ nodes }) => nodes.filter(({ name }) => name === identity.node))
    const inside = own.flatMap(({ podCidrs }) => podCidrs.flatMap((text) => parseCidr(text) ?? []))
    return outside().filter(({ address }) => isIP(address) !== 0 && !inside.some((cidr) => contains(cidr, address)))
  }
  return {
    addresses,
    routable: (pools) => withoutOutside(pools, addresses(pools)),
    // A lookup cannot be called off.
    done: Promise.race([Promise.all([lookUpNames(), watchLocal()]), aborted(signal)]).then(() => undefined),
  }
}

function hostsOf({ relays, stun, server }: OutsideOptions['identity']): readonly { host: string; what: string }[] {
  return [
    ...relays.map((url) => ({ host: hostOf(url), what: 'the relay' })),
    ...stun.map((text) => ({ host: parseSocketAddress(text)?.address ?? '', what: 'a STUN server' })),
    { host: hostOf(server), what: 'the Kubernetes API' },
  ]
}

const hostOf = (url: string): string => (URL.parse(url)?.hostname ?? '').replace(/^\[|\]$/g, '')

/** Of this node and of its resolvers. */
function localAddresses(): readonly OutsideAddress[] {
  const own = Object.entries(networkInterfaces()).flatMap(([device, infos]) =>
    device.startsWith('fm-')
      ? []
      : (infos ?? []).map(({ address }) => ({ address, what: `an address of this node on ${device}` })),
  )
  const resolvers = new Resolver().getServers().flatMap((text) => {
    const address = isIP(text) === 0 ? parseSocketAddress(text)?.address : canonicalAddress(text)
    return address === undefined ? [] : [{ address, what: 'a resolver of this node' }]
  })
  return [...own, ...resolvers]
}

const allAddresses = async (name: string): Promise<readonly string[]> =>
  (await lookUpHost(name, { all: true })).map(({ address }) => address)
