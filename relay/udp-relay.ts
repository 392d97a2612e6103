// The nft table by which the relay's kernel forwards WireGuard packets between two gateways, and its changes.
//
// Each side of a session has a port of the relay, which stands for "to and from this side"; the ports of a session differ
// in their last bit only. A packet from the bound address of one side to its port leaves from the other side's port, to
// where that side is bound:
//
//   A 192.0.2.2:5001 -> R:40002   becomes   R:40003 -> 198.51.100.2:5002 B
//
// The rewriting is stateless, before conntrack (notrack), because conntrack decides by flow and the same flow carries
// STUN too. The source's address must wait until after routing: a packet that comes in from our own address is a Martian.
// Only what looks like WireGuard (type 1-4, three zero bytes) is taken; from where nobody is bound it is dropped. All else
// to these ports is left alone, since they lie among those that the kernel gives to other programs of this host.
//
// STUN to any of the ports is handed to one socket, on the range's first port. Its answers carry the port to be sent from
// (lib/wire/udp-bind.ts). Both are rewritten on the host's side of conntrack, so that firewalls see one flow each.

import { socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { NFT_TABLE_RELAY } from '../lib/owned.ts'
import { ORIGIN_PORT_OFFSET } from '../lib/wire/udp-bind.ts'

/** Both included. The first is for STUN, the rest in pairs for sessions. */
export type PortRange = { readonly first: number; readonly last: number }
/** This host's address in each family that is served. */
export type Places = Partial<Readonly<Record<Family, string>>>
/** Where each bound side is, by its port. */
export type Bindings = ReadonlyMap<number, SocketAddress>
export type BindingsByFamily = Readonly<Record<Family, Bindings>>

export const FAMILIES: readonly Family[] = [4, 6]
/** A session's other port. */
export const otherPort = (port: number): number => port ^ 1

/**
 * One address per family: the first for STUN, else the first by which the edge reaches this relay and which it has itself.
 * @param own the addresses of this host.
 */
export function udpPlaces(
  config: { readonly stun: readonly string[]; readonly public: readonly string[] },
  own: readonly string[],
): Places {
  const places: { [F in Family]?: string } = {}
  for (const text of [...config.stun, ...config.public]) {
    const place = socketAddress(text, 0)
    if (place !== undefined && own.includes(place.address)) places[place.family] ??= place.address
  }
  return places
}

const UDP_HEADER_BYTES = 8
const STUN = `@th,64,16 0x0001 @th,96,32 0x2112a442`
const WIREGUARD = `@th,64,32 { 0x01000000, 0x02000000, 0x03000000, 0x04000000 }`
const IP: Readonly<Record<Family, { readonly match: string; readonly type: string }>> = {
  4: { match: 'ip', type: 'ipv4_addr' },
  6: { match: 'ip6', type: 'ipv6_addr' },
}

/** @returns an nft script that replaces the table in one transaction. */
export function renderTable(places: Places, ports: PortRange, bindings: BindingsByFamily): string {
  const range = `${ports.first}-${ports.last}`
  const families = FAMILIES.filter((family) => places[family] !== undefined)
  const each = (line: (match: string, address: string, family: Family) => string): string =>
    families.map((family) => `    ${line(IP[family].match, places[family]!, family)}\n`).join('')
  return `add table inet ${NFT_TABLE_RELAY}
delete table inet ${NFT_TABLE_RELAY}
table inet ${NFT_TABLE_RELAY} {
  counter taken { }
  counter forwarded { }
  counter unbound { }
${families.map((family) => renderMaps(family, bindings[family]) + renderSide(family)).join('')}  chain packets-in {
    type filter hook prerouting priority -310; policy accept;
${each((ip, address, family) => `${ip} daddr ${address} udp dport ${range} ${WIREGUARD} goto packets${family}`)}  }
  chain packets-out {
    type filter hook postrouting priority 300; policy accept;
${each(
  (ip, address, family) =>
    `${ip} saddr != ${address} udp sport ${range} ${ip} daddr . udp dport . udp sport @bound${family} ` +
    `${ip} saddr set ${address} counter name forwarded`,
)}  }
  chain stun-in {
    type filter hook input priority 10; policy accept;
${each((ip, address) => `${ip} daddr ${address} udp dport ${range} ${STUN} udp dport set ${ports.first}`)}  }
  chain stun-out {
    type filter hook output priority -310; policy accept;
${each((ip, address) => `${ip} saddr ${address} udp sport ${ports.first} udp sport set ${ORIGIN_PORT}`)}  }
}
`
}

const ORIGIN_PORT = `@th,${(UDP_HEADER_BYTES + ORIGIN_PORT_OFFSET) * 8},16`

const renderMaps = (family: Family, bindings: Bindings): string =>
  [
    `  set bound${family} { type ${IP[family].type} . inet_service . inet_service;${elements(bindings, boundElement)} }\n`,
    `  map address${family} { type inet_service : ${IP[family].type};${elements(bindings, addressElement)} }\n`,
    `  map port${family} { type inet_service : inet_service;${elements(bindings, portElement)} }\n`,
  ].join('')

/** After the first rewriting the source port is the other side's port, and the key to the other side's place. */
function renderSide(family: Family): string {
  const ip = IP[family].match
  return `  chain packets${family} {
    ${ip} saddr . udp sport . udp dport @bound${family} udp sport set udp dport ^ 1 ${ip} daddr set udp sport map @address${family} udp dport set udp sport map @port${family} notrack counter name taken accept
    counter name unbound drop
  }
`
}

type Element = (port: number, place: SocketAddress) => string
const boundElement: Element = (port, { address, port: from }) => `${address} . ${from} . ${port}`
const addressElement: Element = (port, { address }) => `${port} : ${address}`
const portElement: Element = (port, { port: to }) => `${port} : ${to}`

const elements = (bindings: Bindings, element: Element): string =>
  bindings.size === 0 ? '' : ` elements = { ${[...bindings].map(([port, place]) => element(port, place)).join(', ')} };`

/** One transaction: a side is bound elsewhere, for the first time or no longer. */
export function renderChange(
  family: Family,
  port: number,
  before: SocketAddress | undefined,
  after: SocketAddress | undefined,
): readonly string[] {
  const commands = (verb: 'add' | 'delete', place: SocketAddress | undefined): readonly string[] =>
    place === undefined
      ? []
      : [
          `${verb} element inet ${NFT_TABLE_RELAY} bound${family} { ${boundElement(port, place)} }`,
          `${verb} element inet ${NFT_TABLE_RELAY} address${family} { ${addressElement(port, place)} }`,
          `${verb} element inet ${NFT_TABLE_RELAY} port${family} { ${portElement(port, place)} }`,
        ]
  return [...commands('delete', before), ...commands('add', after)]
}

type Listed = {
  readonly set?: ListedSet
  readonly map?: ListedSet
  readonly chain?: { readonly name: string }
  readonly rule?: { readonly chain: string }
  readonly counter?: { readonly name: string; readonly packets: number; readonly bytes: number }
}
type ListedSet = { readonly name: string; readonly elem?: readonly unknown[] }

/** Packets and bytes since the table was loaded. */
export type Counts = { readonly packets: number; readonly bytes: number }
export type Observed = {
  /** Whether all rules and elements are there. */
  readonly intact: boolean
  /** Of a bound side, to a bound side. */
  readonly taken: Counts
  /** Of those, what this host's other rules and routes let pass. */
  readonly forwarded: Counts
  /** Dropped, since they came from where nobody is bound, or went to nobody. */
  readonly unbound: Counts
}

/** @param json what `nft -j list table` printed. */
export function readTable(json: string, places: Places, bindings: BindingsByFamily): Observed {
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly Listed[] }
  const counts = (name: string): Counts => {
    const found = nftables.find(({ counter }) => counter?.name === name)?.counter
    return { packets: found?.packets ?? 0, bytes: found?.bytes ?? 0 }
  }
  const families = FAMILIES.filter((family) => places[family] !== undefined)
  const rules = nftables.filter(({ rule }) => rule !== undefined).length
  const holds = (name: string, wanted: number): boolean => {
    const listed = nftables.map(({ set, map }) => set ?? map).find((set) => set?.name === name)
    return listed !== undefined && (listed.elem?.length ?? 0) === wanted
  }
  const intact =
    rules === families.length * RULES_PER_FAMILY &&
    families.every((family) =>
      [`bound${family}`, `address${family}`, `port${family}`].every((name) => holds(name, bindings[family].size)),
    )
  return { intact, taken: counts('taken'), forwarded: counts('forwarded'), unbound: counts('unbound') }
}

/** Of packets-in, packets4 or 6 (two), packets-out, stun-in and stun-out. */
const RULES_PER_FAMILY = 6

/** Base chains at the forward hook that drop what none of their rules accepts: these must let the sessions' packets pass. */
export function droppingForwardChains(json: string): readonly string[] {
  type Chain = {
    readonly family: string
    readonly table: string
    readonly name: string
    readonly hook?: string
    readonly policy?: string
  }
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly { readonly chain?: Chain }[] }
  return nftables.flatMap(({ chain }) =>
    chain?.hook === 'forward' && chain.policy === 'drop' ? `${chain.family} ${chain.table} ${chain.name}` : [],
  )
}

/** Who carries the packets of sessions: the kernel (udp-relay-loop.ts) or, where it may not, us (udp-forward-server.ts). */
export type Forwarder = {
  readonly kind: 'kernel' | 'userspace'
  /** Before a session's ports are used. @returns false if they cannot be. */
  readonly open: (even: number) => Promise<boolean>
  readonly close: (even: number) => void
  /** Resolves when packets from there, and from nowhere else, are forwarded for this port; from nowhere at all if undefined. */
  readonly bind: (family: Family, port: number, place: SocketAddress | undefined) => Promise<void>
  /** Sends an answer from a session's port. */
  readonly send: (datagram: Uint8Array, port: number, to: SocketAddress) => void
  readonly counts: () => { readonly forwarded: Counts; readonly unbound: number; readonly lost: number }
  readonly problems: () => readonly string[]
  /** After the signal aborted. */
  readonly closed: Promise<void>
}

export type ForwarderOptions = {
  readonly places: Places
  readonly ports: PortRange
  /** What came to a session's port and is STUN. */
  readonly onStun: (datagram: Buffer, source: SocketAddress) => void
  readonly log: Log
}

export type PortPairs = {
  /** The even port of a pair; undefined when there is none left. */
  readonly take: () => number | undefined
  readonly free: (even: number) => void
  readonly total: number
}

/** Round robin: a port that was given back rests as long as possible, since its last user's peer may still send there. */
export function createPortPairs({ first, last }: PortRange): PortPairs {
  const low = (first + 2) & ~1
  const total = Math.max(0, Math.floor((last + 1 - low) / 2))
  const taken = new Set<number>()
  let next = 0
  return {
    total,
    take() {
      if (taken.size >= total) return undefined
      while (taken.has(low + 2 * next)) next = (next + 1) % total
      const even = low + 2 * next
      next = (next + 1) % total
      taken.add(even)
      return even
    },
    free: (even) => void taken.delete(even),
  }
}
