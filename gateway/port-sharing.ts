// Two sockets share a port of WireGuard's: the kernel's (or wireguard-go's) on `wireguardPort`, and ours on `probePort`, of
// which nothing outside ever hears. What we send leaves from WireGuard's port; what arrives there and looks like STUN is
// handed to us. Rewriting before conntrack on the way out and after it on the way in lets conntrack see one flow for
// probes and WireGuard, so one hole in a stateful firewall serves both. WireGuard packets never see userspace.
//
// A STUN packet has 0 or 1 in its first byte and the magic cookie in bytes 4-7; WireGuard's types 1-4 are little-endian,
// so `01 00` is a handshake initiation and never ours.

import { CARRIERS, NFT_TABLE_GATEWAY } from '../lib/owned.ts'
import type { Ports } from './state-loop.ts'

export type SharedPort = { readonly wireguardPort: number; readonly probePort: number }
export type GatewayPorts = SharedPort & {
  /** Of other devices, shared in the same way. */
  readonly further?: readonly SharedPort[]
  /** The listen port of fm-tcp, which the gateway's own loopback sockets alone may speak to. */
  readonly loopbackPort: number
}

/** @param ports of this gateway. @param direct the port that fm-direct listens on now. */
export const gatewayPorts = (ports: Ports, direct: number): GatewayPorts => ({
  wireguardPort: direct,
  probePort: ports.probe,
  further: [{ wireguardPort: ports.relayUdp, probePort: ports.udpProbe }],
  loopbackPort: ports.relayTcp,
})

/**
 * Every packet of the host meets these rules: what most of them fail is asked first.
 * @returns an nft script that replaces the gateway's table in one transaction.
 */
export function gatewayTable({ loopbackPort, further = [], ...first }: GatewayPorts): string {
  const each = (rule: (port: SharedPort) => string): string => [first, ...further].map(rule).join('\n    ')
  return `add table inet ${NFT_TABLE_GATEWAY}
delete table inet ${NFT_TABLE_GATEWAY}
table inet ${NFT_TABLE_GATEWAY} {
  chain probes-out {
    type filter hook output priority -310; policy accept;
    ${each(({ wireguardPort, probePort }) => `udp sport ${probePort} udp sport set ${wireguardPort}`)}
  }
  chain probes-in {
    type filter hook input priority 10; policy accept;
    udp dport ${loopbackPort} iifname != "lo" drop
    ${each(({ wireguardPort, probePort }) => `udp dport ${wireguardPort} ${STUN} udp dport set ${probePort}`)}
  }
  chain clamp {
    type filter hook forward priority -150; policy accept;
    tcp flags syn / syn,rst oifname { ${Object.values(CARRIERS)
      .map((device) => `"${device}"`)
      .join(', ')} } tcp option maxseg size set rt mtu
  }
}
`
}

const STUN = '@th,64,8 < 2 @th,64,16 != 0x0100 @th,96,32 0x2112a442'

/** Whether a listing of the table has all of its rules still. */
export const isComplete = (listing: string): boolean =>
  ['sport set', 'dport set', 'maxseg size set', 'drop'].every((rule) => listing.includes(rule))
