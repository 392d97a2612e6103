// The WireGuard devices of a gateway, one per rung of the ladder: made or adopted, kept as wanted, made anew when lost.

import type { Rung } from '../lib/status.ts'
import type { Log } from '../lib/log.ts'
import type { ObservedPeer, WireGuardPeer } from './wireguard.ts'

export type { ObservedPeer, WireGuardPeer } from './wireguard.ts'

export type WireGuard = {
  readonly implementation: 'kernel' | 'wireguard-go'
  /** Makes the peers of a rung's device those given; a peer's present endpoint stays where none is given. */
  setPeers(rung: Rung, peers: readonly WireGuardPeer[]): Promise<void>
  /** @throws Error for a peer that setPeers did not name. */
  setEndpoint(rung: Rung, publicKey: string, endpoint: string, keepaliveSeconds: number): Promise<void>
  observe(rung: Rung): Promise<readonly ObservedPeer[]>
}

export type WireGuardOptions = {
  /** A file of mode 0600 with 32 bytes in base64, as `wg genkey` prints them. */
  readonly privateKeyFile: string
  readonly devices: readonly { readonly rung: Rung; readonly port: number }[]
  /** The node's own; ipv4 and ipv6 are of its podCIDRs, where it has any. */
  readonly addresses: {
    readonly linkLocal: string
    readonly ula: string
    readonly ipv4?: string | undefined
    readonly ipv6?: string | undefined
  }
  readonly log: Log
}

export async function openWireGuard(_options: WireGuardOptions, _signal: AbortSignal): Promise<WireGuard> {
  throw new Error('not written yet')
}
