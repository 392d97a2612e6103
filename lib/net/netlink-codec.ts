// rtnetlink messages: bytes ↔ values. Bodies are written by `netlink`'s encoders. They are read here, attribute by attribute
// and only those needed, because its decoders refuse a whole link or rule over one attribute that a later kernel widened.
//
//   | ifinfomsg 16, ifaddrmsg 8, rtmsg 12, fib_rule_hdr 12 or nhmsg 8 bytes | attributes: u16 length, u16 type, value, pad |
//   Integers are in the byte order of the host.

import { AttrStream, ifla, rt, type StreamData } from 'netlink'
import type { Family } from '../cidr.ts'
import type { Nexthop, Route, Rule } from '../routes.ts'
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  numberOf,
  stringOf,
  u16,
  u16Bytes,
  u32,
  u32Bytes,
} from './netlink-fields.ts'
import { AF } from './sockaddr.ts'

export type Link = {
  readonly index: number
  readonly name: string
  /** Such as `wireguard`, `tun`, `veth`; empty for hardware. */
  readonly kind: string
  readonly up: boolean
  readonly mtu: number
  /** It asks on its own network where an address is (ARP, neighbour discovery), as Ethernet does and a tunnel does not. */
  readonly resolves: boolean
}
export type LinkAddress = {
  readonly device: number
  readonly family: Family
  readonly address: string
  readonly length: number
  /** For use on its link only: never chosen as the source of what goes further. */
  readonly linkOnly?: boolean
}
/** Where the kernel would send a packet now. */
export type Hop = {
  readonly device: number
  readonly table: number
  /** The address of the router; undefined where the destination is on the link. */
  readonly via: string | undefined
}
export type NetlinkEvent =
  | { readonly kind: 'link'; readonly link: Link; readonly removed: boolean }
  | { readonly kind: 'address'; readonly address: LinkAddress; readonly removed: boolean }
  /** `destination` reads on, which is not worth it for each of a full table. */
  | { readonly kind: 'route'; readonly table: number; readonly removed: boolean; readonly destination: () => string }
  | { readonly kind: 'nexthop'; readonly id: number; readonly removed: boolean }
  | { readonly kind: 'rule'; readonly table: number; readonly priority: number; readonly removed: boolean }
  /** Notices were lost (the socket's buffer was full): anything may have changed. */
  | { readonly kind: 'lost' }

/** Where a route message has its protocol, which tells ours from a full BGP table without reading further. */
export const ROUTE_PROTOCOL_OFFSET = 5
export const TABLE_MAIN = 254
/** Tables over 255 do not fit the header and go in an attribute. */
const TABLE_COMPAT = 252

const ARPHRD_ETHER = 1
const IFF = { up: 1, noArp: 0x80 }
const RTN = { unicast: 1, unreachable: 7 }
const SCOPE = { link: 253, nowhere: 255 }
const RULE_INVERT = 2
const IFLA = { ifname: 3, mtu: 4, linkinfo: 18, infoKind: 1 }
const IFA = { address: 1, local: 2 }
const RTA = {
  dst: 1,
  oif: 4,
  gateway: 5,
  priority: 6,
  prefsrc: 7,
  metrics: 8,
  table: 15,
  mark: 16,
  via: 18,
  nhId: 30,
}
/** The answer to a question about a route says which table it is from. */
const LOOKUP_TABLE = 0x1000
const RTAX_MTU = 2
const FRA = { iifname: 3, priority: 6, fwmark: 10, table: 15, fwmask: 16 }
const NHA = { id: 1, oif: 5 }

// === reading ===

export function linkOf(bytes: Buffer): Link {
  const attributes = attributesOf(bytes, 16)
  const info = attributes.get(IFLA.linkinfo)
  const kind = info && attributesOf(info, 0).get(IFLA.infoKind)
  return {
    index: u32(bytes, 4),
    name: stringOf(attributes.get(IFLA.ifname)),
    kind: stringOf(kind),
    up: (u32(bytes, 8) & IFF.up) !== 0,
    resolves: u16(bytes, 2) === ARPHRD_ETHER && (u32(bytes, 8) & IFF.noArp) === 0,
    mtu: numberOf(attributes.get(IFLA.mtu)),
  }
}

/** @returns undefined for other families than IPv4 and IPv6. */
export function addressOf(bytes: Buffer): LinkAddress | undefined {
  const attributes = attributesOf(bytes, 8)
  const family = familyOf(bytes)
  const address = attributes.get(IFA.local) ?? attributes.get(IFA.address)
  if (family === undefined || address === undefined) return undefined
  return { device: u32(bytes, 4), family, address: addressText(address), length: bytes[1]! }
}

/** @returns undefined for other families than IPv4 and IPv6. */
export function routeOf(bytes: Buffer): Route | undefined {
  const family = familyOf(bytes)
  if (family === undefined) return undefined
  const attributes = attributesOf(bytes, 12)
  const via = viaOf(attributes)
  const source = attributes.get(RTA.prefsrc)
  const metrics = attributes.get(RTA.metrics)
  const mtu = metrics && attributesOf(metrics, 0).get(RTAX_MTU)
  const unreachable = bytes[7] === RTN.unreachable
  return {
    family,
    table: tableOf(bytes),
    protocol: bytes[ROUTE_PROTOCOL_OFFSET]!,
    destination: destinationOf(family, bytes, attributes),
    metric: numberOf(attributes.get(RTA.priority)),
    kind: unreachable ? 'unreachable' : 'unicast',
    ...(attributes.has(RTA.nhId) && { nexthop: numberOf(attributes.get(RTA.nhId)) }),
    ...(via && { via }),
    ...(attributes.has(RTA.oif) && !unreachable && { device: numberOf(attributes.get(RTA.oif)) }),
    ...(source && { source: addressText(source) }),
    ...(mtu && { mtu: u32(mtu, 0) }),
  }
}

function destinationOf(family: Family, bytes: Buffer, attributes: ReadonlyMap<number, Buffer>): string {
  const destination = attributes.get(RTA.dst)
  return `${destination ? addressText(destination) : family === 4 ? '0.0.0.0' : '::'}/${bytes[1]}`
}

/** Of IPv4 routes too the next router may have an IPv6 address (RFC 5549), which stands in an attribute of its own. */
function viaOf(attributes: ReadonlyMap<number, Buffer>): string | undefined {
  const bytes = attributes.get(RTA.gateway) ?? attributes.get(RTA.via)?.subarray(2)
  return bytes && addressText(bytes)
}

/** The answer to `hopBody`; undefined where packets end here or are refused. */
export function hopOf(bytes: Buffer): Hop | undefined {
  const attributes = attributesOf(bytes, 12)
  if (bytes[7] !== RTN.unicast || !attributes.has(RTA.oif)) return undefined
  return { device: numberOf(attributes.get(RTA.oif)), table: tableOf(bytes), via: viaOf(attributes) }
}

/** Whether a route message is a unicast route of the main table to less than everywhere; read from the header alone. */
export const isMainSpecific = (bytes: Buffer): boolean =>
  bytes[1] !== 0 && bytes[4] === TABLE_MAIN && bytes[7] === RTN.unicast

/** Whether a route message is a default route of the main table that leads somewhere; read from the header alone. */
export const isMainDefault = (bytes: Buffer): boolean =>
  bytes[1] === 0 && bytes[4] === TABLE_MAIN && bytes[7] === RTN.unicast

/** A table of up to 255 stands in the header: no need to read on for what a routing daemon does in main. */
function tableOf(bytes: Buffer): number {
  const table = bytes[4]!
  return table !== 0 && table !== TABLE_COMPAT ? table : numberOf(attributesOf(bytes, 12).get(RTA.table), table)
}

/** @returns undefined for groups and blackholes, which have no device and are never ours. */
export function nexthopOf(bytes: Buffer): Nexthop | undefined {
  const attributes = attributesOf(bytes, 8)
  const family = familyOf(bytes)
  if (family === undefined || !attributes.has(NHA.id) || !attributes.has(NHA.oif)) return undefined
  const device = numberOf(attributes.get(NHA.oif))
  return { id: numberOf(attributes.get(NHA.id)), family, device, protocol: bytes[2]! }
}

/** @returns undefined for other families than IPv4 and IPv6. */
export function ruleOf(bytes: Buffer): Rule | undefined {
  const family = familyOf(bytes)
  if (family === undefined) return undefined
  const attributes = attributesOf(bytes, 12)
  return {
    family,
    priority: numberOf(attributes.get(FRA.priority)),
    table: numberOf(attributes.get(FRA.table), bytes[4]),
    invert: (u32(bytes, 8) & RULE_INVERT) !== 0,
    mark: numberOf(attributes.get(FRA.fwmark)),
    mask: numberOf(attributes.get(FRA.fwmask)),
    ...(attributes.has(FRA.iifname) && { arrivedOn: stringOf(attributes.get(FRA.iifname)) }),
  }
}

/** What a notice says; undefined for what nobody asked about. */
export function eventOf(type: number, bytes: Buffer): NetlinkEvent | undefined {
  switch (type) {
    case rt.MessageType.NEWLINK:
    case rt.MessageType.DELLINK:
      return { kind: 'link', link: linkOf(bytes), removed: type === rt.MessageType.DELLINK }
    case rt.MessageType.NEWADDR:
    case rt.MessageType.DELADDR: {
      const address = addressOf(bytes)
      return address && { kind: 'address', address, removed: type === rt.MessageType.DELADDR }
    }
    case rt.MessageType.NEWROUTE:
    case rt.MessageType.DELROUTE: {
      const family = familyOf(bytes)
      return (
        family && {
          kind: 'route',
          table: tableOf(bytes),
          removed: type === rt.MessageType.DELROUTE,
          destination: () => destinationOf(family, bytes, attributesOf(bytes, 12)),
        }
      )
    }
    case rt.MessageType.NEWNEXTHOP:
    case rt.MessageType.DELNEXTHOP: {
      const id = numberOf(attributesOf(bytes, 8).get(NHA.id))
      return { kind: 'nexthop', id, removed: type === rt.MessageType.DELNEXTHOP }
    }
    case rt.MessageType.NEWRULE:
    case rt.MessageType.DELRULE: {
      const { table = 0, priority = 0 } = ruleOf(bytes) ?? {}
      return { kind: 'rule', table, priority, removed: type === rt.MessageType.DELRULE }
    }
    default:
      return undefined
  }
}

// === writing ===

export function linkBody(link: {
  index?: number
  name?: string
  kind?: string
  up?: true
  mtu?: number
}): StreamData[] {
  const { index, name, kind, up, mtu } = link
  const flags = up && { flags: { up }, change: { up } }
  const linkinfo =
    kind === undefined ? undefined : Buffer.concat(encode([(out) => out.push(IFLA.infoKind, Buffer.from(kind))]))
  return [
    rt.formatLink({ ...(index !== undefined && { index }), ...flags }),
    ifla.formatLinkAttrs({
      ...(name !== undefined && { ifname: name }),
      ...(mtu !== undefined && { mtu }),
      ...(linkinfo && { linkinfo }),
    }),
  ]
}

export function addressBody({ device, family, address, length, linkOnly }: LinkAddress): StreamData[] {
  const local = addressBytes(address)
  const flags = family === 6 ? { nodad: true as const } : {}
  const scope = linkOnly === true || address.startsWith('fe80:') ? SCOPE.link : 0
  return [
    rt.formatAddress({ family: AF[family], prefixlen: length, index: device, scope, flags }),
    rt.formatAddressAttrs({ local, address: local }),
  ]
}

/** @param use a removal matches routes of any scope. */
export function routeBody(route: Route, use: 'add' | 'remove'): StreamData[] {
  const { family, table, protocol, destination, metric, kind, nexthop, via, device, source, mtu } = route
  const [address, length] = destination.split('/') as [string, string]
  const crosses = family === 4 && via?.includes(':') === true
  const header = {
    family: AF[family],
    dstLen: Number(length),
    table: tableByte(table),
    protocol,
    scope: use === 'add' ? 0 : SCOPE.nowhere,
    type: kind === 'unreachable' ? 'UNREACHABLE' : 'UNICAST',
  }
  return [
    rt.formatRoute(header as rt.Route),
    rt.formatRouteAttrs({
      dst: addressBytes(address),
      table,
      priority: metric,
      ...(nexthop !== undefined && { nhId: u32Bytes(nexthop) }),
      ...(via !== undefined && !crosses && { gateway: addressBytes(via) }),
      ...(device !== undefined && nexthop === undefined && { oif: device }),
      ...(source !== undefined && { prefsrc: addressBytes(source) }),
      ...(mtu !== undefined && { metrics: { mtu: u32Bytes(mtu) } }),
    }),
    ...(crosses ? [attribute(RTA.via, Buffer.concat([u16Bytes(AF[6]), addressBytes(via!)]))] : []),
  ]
}

/** Asks where a packet to this address with this mark goes. */
export function hopBody(family: Family, address: string, mark: number): StreamData[] {
  const header = [AF[family], family === 4 ? 32 : 128, 0, 0, 0, 0, 0, 0]
  return [
    Buffer.concat([Buffer.from(header), u32Bytes(LOOKUP_TABLE)]),
    attribute(RTA.dst, addressBytes(address)),
    attribute(RTA.mark, u32Bytes(mark)),
  ]
}

export function nexthopBody({ id, family, device, protocol }: Nexthop): StreamData[] {
  return [rt.formatNextHop({ family: AF[family], protocol }), rt.formatNextHopAttrs({ id, oif: device })]
}

/** A removal takes the id and nothing else. */
export function nexthopIdBody({ id }: Nexthop): StreamData[] {
  return [rt.formatNextHop({}), rt.formatNextHopAttrs({ id })]
}

export function ruleBody({ family, priority, table, invert, mark, mask, arrivedOn }: Rule): StreamData[] {
  const flags = invert ? { invert: true as const } : {}
  return [
    rt.formatRule({ family: AF[family], table: tableByte(table), action: 'toTbl', flags }),
    rt.formatRuleAttrs({ priority, table, ...(mask !== 0 && { fwmark: mark, fwmask: mask }) }),
    ...(arrivedOn === undefined ? [] : [attribute(FRA.iifname, Buffer.from(`${arrivedOn}\0`))]),
  ]
}

/** The parts of a body one after the other, attributes aligned. */
export function encode(parts: readonly StreamData[]): Uint8Array[] {
  const out = new AttrStream()
  for (const part of parts) out.emit(part)
  return out.bufs
}

const tableByte = (table: number) => (table > 255 ? TABLE_COMPAT : table)
const familyOf = (bytes: Buffer): Family | undefined => (bytes[0] === AF[4] ? 4 : bytes[0] === AF[6] ? 6 : undefined)
