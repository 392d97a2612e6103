// What must change on a WireGuard device so that its peers become those wanted: a plan from what the kernel has.
// Sessions are precious (a handshake costs a round trip, and 5 s where one is lost), so a peer that is right is never
// touched, and a peer's endpoint, which WireGuard itself follows when the other side roams, is set only where asked for.

import { normalise } from '../lib/cidr.ts'
import type { DevicePeer, PeerSettings } from '../lib/net/wireguard.ts'

export type WireGuardPeer = {
  /** 32 bytes in base64, as `wg pubkey` prints them. */
  readonly publicKey: string
  /** Prefixes; an address stands for itself. */
  readonly allowedIps: readonly string[]
  /** `ip:port` or `[ip]:port`. */
  readonly endpoint?: string
  /** 0 is off. */
  readonly keepaliveSeconds: number
}

export type ObservedPeer = DevicePeer
/** What a device is known to have, by a look at it or from what was set. */
type PresentPeer = Pick<DevicePeer, 'publicKey' | 'allowedIps' | 'keepaliveSeconds'> & {
  readonly endpoint?: string | undefined
}
/** One peer's part of a change; what is absent stays as it is. */
export type PeerChange = PeerSettings

export type EndpointPolicy = {
  /** Where each peer was seen or put last, by public key: for peers that the device does not have (any more). */
  readonly last: ReadonlyMap<string, string>
  /** Whether the endpoints of `wanted` are to be set on peers that are there; otherwise they are WireGuard's own affair. */
  readonly due: boolean
}

/** Whether a device that has the one has the other; order counts, since prefixes move in it. */
export const samePeers = (a: readonly WireGuardPeer[], b: readonly WireGuardPeer[]): boolean =>
  a.length === b.length && a.every((peer, i) => samePeer(peer, b[i]!))

const samePeer = (a: WireGuardPeer, b: WireGuardPeer): boolean =>
  a.publicKey === b.publicKey &&
  a.keepaliveSeconds === b.keepaliveSeconds &&
  a.endpoint === b.endpoint &&
  a.allowedIps.length === b.allowedIps.length &&
  a.allowedIps.every((prefix, i) => prefix === b.allowedIps[i])

/** @returns the changes, removals last: a prefix that moves from one peer to another is never on neither. */
export function planPeers(
  observed: readonly PresentPeer[],
  wanted: readonly WireGuardPeer[],
  endpoints: EndpointPolicy,
): readonly PeerChange[] {
  const present = new Map(observed.map((peer) => [peer.publicKey, peer]))
  const changes = wanted.flatMap((peer) => changeOf(present.get(peer.publicKey), peer, endpoints) ?? [])
  const keys = new Set(wanted.map(({ publicKey }) => publicKey))
  const removals = observed.flatMap(({ publicKey }) =>
    keys.has(publicKey) ? [] : [{ kind: 'remove' as const, publicKey }],
  )
  return [...changes, ...removals]
}

function changeOf(
  present: PresentPeer | undefined,
  wanted: WireGuardPeer,
  { last, due }: EndpointPolicy,
): PeerChange | undefined {
  const { publicKey, keepaliveSeconds } = wanted
  const covered = present !== undefined && samePrefixes(present.allowedIps, wanted.allowedIps)
  const allowedIps = covered ? wanted.allowedIps : wanted.allowedIps.map(prefixText)
  if (present === undefined) {
    const endpoint = (due && wanted.endpoint) || (last.get(publicKey) ?? wanted.endpoint)
    return { kind: 'set', publicKey, allowedIps, keepaliveSeconds, ...(endpoint && { endpoint }) }
  }
  const { endpoint } = due ? wanted : {}
  const change = {
    ...(!covered && { allowedIps }),
    ...(endpoint !== undefined && endpoint !== present.endpoint && { endpoint }),
    ...(keepaliveSeconds !== present.keepaliveSeconds && { keepaliveSeconds }),
  }
  return Object.keys(change).length === 0 ? undefined : { kind: 'set', publicKey, ...change }
}

/** Canonical text of a prefix as the kernel reports it; text that is none stays, for `wg` to refuse by name. */
function prefixText(text: string): string {
  if (text.includes('/')) return normalise(text) ?? text
  const address = normalise(text)
  return address === undefined ? text : `${address}/${address.includes(':') ? 128 : 32}`
}

/** Most are written alike; only of others the canonical text is worth its time. */
const samePrefixes = (a: readonly string[], b: readonly string[]): boolean =>
  sameSet(a, b) || sameSet(a.map(prefixText), b.map(prefixText))

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  const set = new Set(a)
  return set.size === new Set(b).size && b.every((item) => set.has(item))
}
