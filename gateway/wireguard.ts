// What must change on a WireGuard device so that its peers become those wanted: a plan from what the kernel has.
// Sessions are precious (a handshake costs a round trip, and 5 s where one is lost), so a peer that is right is never
// touched, and a peer's endpoint, which WireGuard itself follows when the other side roams, is set only where asked for.

import { normalise } from '../lib/cidr.ts'

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

export type ObservedPeer = {
  readonly publicKey: string
  readonly endpoint: string | undefined
  readonly allowedIps: readonly string[]
  /** Unix milliseconds with a resolution of one second; undefined before the first handshake. */
  readonly latestHandshake: number | undefined
  readonly rx: number
  readonly tx: number
  readonly keepaliveSeconds: number
}

/** One peer's part of a change; what is absent stays as it is. */
export type PeerChange =
  | { readonly kind: 'remove'; readonly publicKey: string }
  | {
      readonly kind: 'set'
      readonly publicKey: string
      readonly allowedIps?: readonly string[]
      readonly endpoint?: string
      readonly keepaliveSeconds?: number
    }

/** @returns the changes, removals last: a prefix that moves from one peer to another is never on neither. */
export function planPeers(observed: readonly ObservedPeer[], wanted: readonly WireGuardPeer[]): readonly PeerChange[] {
  const present = new Map(observed.map((peer) => [peer.publicKey, peer]))
  const changes = wanted.flatMap((peer) => changeOf(present.get(peer.publicKey), peer) ?? [])
  const keys = new Set(wanted.map(({ publicKey }) => publicKey))
  const removals = observed.flatMap(({ publicKey }) => (keys.has(publicKey) ? [] : [{ kind: 'remove' as const, publicKey }]))
  return [...changes, ...removals]
}

function changeOf(present: ObservedPeer | undefined, wanted: WireGuardPeer): PeerChange | undefined {
  const { publicKey, endpoint, keepaliveSeconds } = wanted
  const allowedIps = wanted.allowedIps.map(prefixText)
  if (present === undefined) return { kind: 'set', publicKey, allowedIps, keepaliveSeconds, ...(endpoint && { endpoint }) }
  const change = {
    ...(!sameSet(present.allowedIps, allowedIps) && { allowedIps }),
    ...(endpoint !== undefined && endpoint !== present.endpoint && { endpoint }),
    ...(keepaliveSeconds !== present.keepaliveSeconds && { keepaliveSeconds }),
  }
  return Object.keys(change).length === 0 ? undefined : { kind: 'set', publicKey, ...change }
}

/** The peers to give to a device that was made anew: those wanted, at the endpoints where they were last seen. */
export function peersAt(
  wanted: readonly WireGuardPeer[],
  endpoints: ReadonlyMap<string, string>,
): readonly WireGuardPeer[] {
  return wanted.map((peer) => {
    const endpoint = endpoints.get(peer.publicKey) ?? peer.endpoint
    return endpoint === undefined ? peer : { ...peer, endpoint }
  })
}

/** Canonical text of a prefix as the kernel reports it; text that is none stays, for `wg` to refuse by name. */
function prefixText(text: string): string {
  if (text.includes('/')) return normalise(text) ?? text
  const address = normalise(text)
  return address === undefined ? text : `${address}/${address.includes(':') ? 128 : 32}`
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  const set = new Set(a)
  return set.size === new Set(b).size && b.every((item) => set.has(item))
}
