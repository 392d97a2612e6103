// The nft table by which the relay's kernel forwards WireGuard packets between two gateways, and its changes.
//
// Each side of a session has a port of the relay, which stands for "to and from this side"; the ports of a session differ
// in their last bit only. A packet from the bound address of one side to its port leaves from the other side's port, to
// where that side is bound:
//
//   A 192.0.2.2:5001 -> R:40002   becomes   R:40003 -> 198.51.100.2:5002 B
//
// Conntrack does it, as DNAT and SNAT decided once per flow: measured 0.90 to 0.95 of the packets per second of plain
// routing on the same host, where rewriting each packet (notrack) made 0.75 to 0.88. What conntrack remembers must follow
// the bindings, though: flows of a side that moves or goes are deleted (udp-relay-loop.ts), by a mark that names their
// session. A new flow from where nobody is bound is dropped before it is remembered, so that no earlier packet can keep a
// later one from its session. Replies to other programs of this host, to which the kernel gives ports of the range too,
// belong to flows of theirs.
//
// STUN comes in the same 5-tuple and must not be forwarded with its flow: it has a conntrack zone of its own, so that
// firewalls see a flow too, and is handed to one socket, on the range's first port. The answers carry the port to be sent
// from (lib/wire/udp-bind.ts).

import { socketAddress, type SocketAddress } from '../lib/address.ts'
import { FAMILIES, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { NFT_TABLE_RELAY, RELAY_FLOW_MARK, RELAY_FLOW_MARK_MASK, RELAY_STUN_ZONE } from '../lib/owned.ts'
import { ORIGIN_PORT_OFFSET } from '../lib/wire/udp-bind.ts'

/** Both included. The first is for STUN, the rest in pairs for sessions. */
export type PortRange = { readonly first: number; readonly last: number }
/** This host's address in each family that is served. */
export type Places = Partial<Readonly<Record<Family, string>>>
/** Where each bound side is, by its port. */
export type Bindings = ReadonlyMap<number, SocketAddress>
export type BindingsByFamily = Readonly<Record<Family, Bindings>>

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
const STUN = '@th,64,16 0x0001 @th,96,32 0x2112a442'
/** A type of one byte, and three zero bytes. */
const WIREGUARD = '@th,72,24 0'
const ORIGIN_PORT = `@th,${(UDP_HEADER_BYTES + ORIGIN_PORT_OFFSET) * 8},16`
const IP: Readonly<Record<Family, { readonly match: string; readonly type: string }>> = {
  4: { match: 'ip', type: 'ipv4_addr' },
  6: { match: 'ip6', type: 'ipv6_addr' },
}

/** On conntrack entries, in both directions: the even port of the session. */
export const flowMark = (port: number): number => RELAY_FLOW_MARK + (port & ~1)

/** @returns an nft script that replaces the table in one transaction. */
export function renderTable(places: Places, ports: PortRange, bindings: BindingsByFamily): string {
  const range = `${ports.first}-${ports.last}`
  const families = FAMILIES.filter((family) => places[family] !== undefined)
  const each = (line: (ip: string, address: string, family: Family) => string): string =>
    families.map((family) => `    ${line(IP[family].match, places[family]!, family)}\n`).join('')
  return `add table inet ${NFT_TABLE_RELAY}
delete table inet ${NFT_TABLE_RELAY}
table inet ${NFT_TABLE_RELAY} {
  counter unbound { }
  counter begun { }
  counter passed { }
${families.map((family) => renderMaps(family, bindings[family])).join('')}  chain session-port {
    ${STUN} ct zone set ${RELAY_STUN_ZONE} accept
    ${WIREGUARD} counter
  }
  chain first {
    type filter hook prerouting priority -310; policy accept;
${each((ip, address) => `${ip} daddr ${address} udp dport ${range} goto session-port`)}  }
  chain to-peer {
    type nat hook prerouting priority -110; policy accept;
    ct zone ${RELAY_STUN_ZONE} accept
${each(
  (ip, address, family) =>
    `${ip} daddr ${address} ${ip} saddr . udp sport . udp dport @bound${family} ct mark set udp dport map @mark${family} ` +
    `counter name begun dnat ${ip} to udp dport map @peer${family}`,
)}${each((ip, address) => `${ip} daddr ${address} udp dport ${range} counter name unbound drop`)}  }
  chain from-us {
    type nat hook postrouting priority 90; policy accept;
${each(
  (ip, address, family) =>
    `meta nfproto ipv${family} meta l4proto udp ct mark & ${hex(RELAY_FLOW_MARK_MASK)} == ${hex(RELAY_FLOW_MARK)} ` +
    `counter name passed snat ${ip} to ${family === 4 ? address : `[${address}]`} : ct original proto-dst map @other${family}`,
)}  }
  chain stun-in {
    type filter hook input priority 10; policy accept;
${each((ip, address) => `${ip} daddr ${address} udp dport ${range} ${STUN} udp dport set ${ports.first}`)}  }
  chain stun-out {
    type filter hook output priority -310; policy accept;
${each((ip, address) => `${ip} saddr ${address} udp sport ${ports.first} udp sport set ${ORIGIN_PORT} ct zone set ${RELAY_STUN_ZONE}`)}  }
}
`
}

const hex = (value: number): string => `0x${value.toString(16)}`

type Element = (port: number, place: SocketAddress) => string
/** By name: the key and value types of a map, and the element by which a side is bound at a place. */
const MAPS: Readonly<Record<string, { readonly type: (address: string) => string; readonly element: Element }>> = {
  bound: {
    type: (address) => `${address} . inet_service . inet_service`,
    element: (port, { address, port: from }) => `${address} . ${from} . ${port}`,
  },
  // Where what comes to the other side's port goes.
  peer: {
    type: (address) => `inet_service : ${address} . inet_service`,
    element: (port, { address, port: to }) => `${otherPort(port)} : ${address} . ${to}`,
  },
  other: { type: () => 'inet_service : inet_service', element: (port) => `${port} : ${otherPort(port)}` },
  mark: { type: () => 'inet_service : mark', element: (port) => `${port} : ${hex(flowMark(port))}` },
}

const renderMaps = (family: Family, bindings: Bindings): string =>
  Object.entries(MAPS)
    .map(([name, { type, element }]) => {
      const kind = name === 'bound' ? 'set' : 'map'
      return `  ${kind} ${name}${family} { type ${type(IP[family].type)};${elements(bindings, element)} }\n`
    })
    .join('')

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
      : Object.entries(MAPS).map(
          ([name, { element }]) =>
            `${verb} element inet ${NFT_TABLE_RELAY} ${name}${family} { ${element(port, place)} }`,
        )
  return [...commands('delete', before), ...commands('add', after)]
}

type Listed = {
  readonly set?: ListedSet
  readonly map?: ListedSet
  readonly chain?: { readonly name: string }
  readonly rule?: { readonly chain: string; readonly expr?: readonly { readonly counter?: Counts | string }[] }
  readonly counter?: { readonly name: string; readonly packets: number; readonly bytes: number }
}
type ListedSet = { readonly name: string; readonly elem?: readonly unknown[] }

/** Packets and bytes since the table was loaded. */
export type Counts = { readonly packets: number; readonly bytes: number }
export type Observed = {
  /** Whether all rules and elements are there. */
  readonly intact: boolean
  /** Of WireGuard's shape, to the ports of sessions. */
  readonly arrived: Counts
  /** Of these, dropped: from where nobody is bound, or to nobody. */
  readonly unbound: Counts
  /** First packets of flows, before and after this host's other rules and its routing. */
  readonly begun: Counts
  readonly passed: Counts
}

/** @param json what `nft -j list table` printed. */
export function readTable(json: string, places: Places, bindings: BindingsByFamily): Observed {
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly Listed[] }
  const counts = (name: string): Counts => {
    const found = nftables.find(({ counter }) => counter?.name === name)?.counter
    return found === undefined ? NONE : { packets: found.packets, bytes: found.bytes }
  }
  const families = FAMILIES.filter((family) => places[family] !== undefined)
  const rules = nftables.filter(({ rule }) => rule !== undefined).length
  const holds = (name: string, wanted: number): boolean => {
    const listed = nftables.map(({ set, map }) => set ?? map).find((set) => set?.name === name)
    return listed !== undefined && (listed.elem?.length ?? 0) === wanted
  }
  const intact =
    rules === RULES + families.length * RULES_PER_FAMILY &&
    families.every((family) => Object.keys(MAPS).every((name) => holds(`${name}${family}`, bindings[family].size)))
  return {
    intact,
    arrived: nftables.flatMap(({ rule }) => (rule?.chain === 'session-port' ? anonymousCounters(rule) : []))[0] ?? NONE,
    unbound: counts('unbound'),
    begun: counts('begun'),
    passed: counts('passed'),
  }
}

const NONE: Counts = { packets: 0, bytes: 0 }
/** That of every packet has no name: a name costs one more call for each. */
const anonymousCounters = ({ expr = [] }: NonNullable<Listed['rule']>): readonly Counts[] =>
  expr.flatMap(({ counter }) => (typeof counter === 'object' ? { packets: counter.packets, bytes: counter.bytes } : []))

/** Of session-port (two) and the zone's in to-peer. */
const RULES = 3
/** Of first, to-peer (two), from-us, stun-in and stun-out. */
const RULES_PER_FAMILY = 6

/** An entry of conntrack that is not a session's: from the outside to one of the ports, as if it were this host's. */
export type StrayFlow = { readonly source: SocketAddress; readonly port: number }

/** @param listing what `conntrack -L` printed. @returns flows that came to the ports while the rules were not there. */
export function strayFlows(listing: string, places: Places, { first, last }: PortRange): readonly StrayFlow[] {
  return listing.split('\n').flatMap((line) => {
    const [, from, to, sport, dport] = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/.exec(line) ?? []
    const source = socketAddress(from ?? '', Number(sport))
    const place = socketAddress(to ?? '', Number(dport))
    if (source === undefined || place === undefined || places[place.family] !== place.address) return []
    const mark = Number(/ mark=(\d+)/.exec(line)?.[1] ?? 0)
    const isOurs = (mark & RELAY_FLOW_MARK_MASK) >>> 0 === RELAY_FLOW_MARK || / zone=[1-9]/.test(line)
    return isOurs || place.port < first || place.port > last ? [] : { source, port: place.port }
  })
}

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
  /** Where sides are bound already, by a relay that ran before. */
  readonly bindings: BindingsByFamily
  readonly log: Log
}

export type PortPairs = {
  /** The even port of a pair; undefined when there is none left. */
  readonly take: () => number | undefined
  readonly free: (even: number) => void
  /** @returns false where it is none of the pairs, or is taken. */
  readonly claim: (even: number) => boolean
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
    claim(even) {
      if (even % 2 !== 0 || even < low || even > low + 2 * (total - 1) || taken.has(even)) return false
      taken.add(even)
      next = ((even - low) / 2 + 1) % total
      return true
    },
  }
}
