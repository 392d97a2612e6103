// rtnetlink messages of VXLAN devices and of what they know: bytes ↔ values.
//
//   link      ifinfomsg 16 | address | linkinfo { kind "vxlan", data { id, local, learning, port } }
//   neighbour ndmsg 12: u8 family, 3 pad, s32 device, u16 state, u8 flags, u8 type | dst | lladdr
//   A forwarding entry (fdb) is a neighbour of family AF_BRIDGE whose `dst` is the VXLAN endpoint behind a MAC address.

import type { StreamData } from 'netlink'
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  numberOf,
  stringOf,
  u16Bytes,
  u32,
  u32Bytes,
} from './netlink-fields.ts'
import { AF } from './sockaddr.ts'

/** What cannot be changed on a device that is there. */
export type VxlanSpec = {
  /** VXLAN network identifier. */
  readonly id: number
  /** UDP port of both ends. */
  readonly port: number
  /** Outer source address; its family is that of all outer packets. */
  readonly local: string
  /** As `02:00:00:00:00:01`. */
  readonly mac: string
}
export type VxlanLink = VxlanSpec & { readonly device: number; readonly name: string; readonly learning: boolean }
/** On a VXLAN device: who has this MAC address is at this outer address. */
export type ForwardingEntry = { readonly device: number; readonly mac: string; readonly endpoint: string }
/** A permanent neighbour of IPv6. */
export type Neighbour = { readonly device: number; readonly address: string; readonly mac: string }

const IFLA = { address: 1, ifname: 3, linkinfo: 18, infoKind: 1, infoData: 2 }
const VXLAN = { id: 1, local: 4, learning: 7, port: 15, local6: 17 }
const NDA = { dst: 1, lladdr: 2 }
const AF_BRIDGE = 7
const NUD_PERMANENT = 0x80
const NTF_SELF = 0x02
const MAC_BYTES = 6

/** @returns undefined for other devices. */
export function vxlanOf(bytes: Buffer): VxlanLink | undefined {
  const attributes = attributesOf(bytes, 16)
  const info = attributes.get(IFLA.linkinfo)
  const nested = info && attributesOf(info, 0)
  const data = nested?.get(IFLA.infoData)
  if (data === undefined || stringOf(nested?.get(IFLA.infoKind)) !== 'vxlan') return undefined
  const vxlan = attributesOf(data, 0)
  const local = vxlan.get(VXLAN.local) ?? vxlan.get(VXLAN.local6)
  return {
    device: u32(bytes, 4),
    name: stringOf(attributes.get(IFLA.ifname)),
    id: numberOf(vxlan.get(VXLAN.id)),
    port: vxlan.get(VXLAN.port)?.readUInt16BE() ?? 0,
    local: local === undefined ? '' : addressText(local),
    mac: macText(attributes.get(IFLA.address)),
    learning: vxlan.get(VXLAN.learning)?.[0] !== 0,
  }
}

/** Without learning, so that nobody on the LAN moves a pod's traffic by a packet, and without multicast. */
export function vxlanBody(name: string, { id, port, local, mac }: VxlanSpec): StreamData[] {
  const address = addressBytes(local)
  const data = nest(
    [VXLAN.id, u32Bytes(id)],
    [address.length === 4 ? VXLAN.local : VXLAN.local6, address],
    [VXLAN.learning, Buffer.of(0)],
    [VXLAN.port, Buffer.of(port >> 8, port & 0xff)],
  )
  return [
    Buffer.alloc(16),
    attribute(IFLA.address, macBytes(mac)),
    attribute(IFLA.ifname, Buffer.from(`${name}\0`)),
    attribute(IFLA.linkinfo, nest([IFLA.infoKind, Buffer.from('vxlan')], [IFLA.infoData, data])),
  ]
}

/** @returns undefined for what is no VXLAN endpoint behind a MAC address. */
export function forwardingOf(bytes: Buffer): ForwardingEntry | undefined {
  const attributes = attributesOf(bytes, 12)
  const [endpoint, mac] = [attributes.get(NDA.dst), attributes.get(NDA.lladdr)]
  if (bytes[0] !== AF_BRIDGE || endpoint === undefined || mac?.length !== MAC_BYTES) return undefined
  return { device: u32(bytes, 4), mac: macText(mac), endpoint: addressText(endpoint) }
}

export const forwardingBody = ({ device, mac, endpoint }: ForwardingEntry): StreamData[] => [
  header(AF_BRIDGE, device, NTF_SELF),
  attribute(NDA.dst, addressBytes(endpoint)),
  attribute(NDA.lladdr, macBytes(mac)),
]

/** @returns undefined for those that the kernel learned by itself, and for other families. */
export function neighbourOf(bytes: Buffer): Neighbour | undefined {
  const attributes = attributesOf(bytes, 12)
  const [address, mac] = [attributes.get(NDA.dst), attributes.get(NDA.lladdr)]
  const permanent = (u32(bytes, 8) & NUD_PERMANENT) !== 0
  if (bytes[0] !== AF[6] || !permanent || address === undefined || mac?.length !== MAC_BYTES) return undefined
  return { device: u32(bytes, 4), address: addressText(address), mac: macText(mac) }
}

export const neighbourBody = ({ device, address, mac }: Neighbour): StreamData[] => [
  header(AF[6], device, 0),
  attribute(NDA.dst, addressBytes(address)),
  attribute(NDA.lladdr, macBytes(mac)),
]

/** To list forwarding entries, or neighbours of IPv6. */
export const forwardingHeader: Buffer = Buffer.alloc(12).fill(AF_BRIDGE, 0, 1)
export const neighbourHeader: Buffer = Buffer.alloc(12).fill(AF[6], 0, 1)

const header = (family: number, device: number, flags: number): Buffer =>
  Buffer.concat([Buffer.of(family, 0, 0, 0), u32Bytes(device), u16Bytes(NUD_PERMANENT), Buffer.of(flags, 0)])

/** Attributes in an attribute, each padded to four bytes. */
function nest(...attributes: readonly (readonly [type: number, value: Buffer])[]): Buffer {
  return Buffer.concat(
    attributes.flatMap(([type, value]) => [
      u16Bytes(4 + value.length),
      u16Bytes(type),
      value,
      Buffer.alloc((4 - (value.length % 4)) % 4),
    ]),
  )
}

const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex')
const macText = (bytes: Buffer | undefined): string => bytes?.toString('hex').match(/../g)?.join(':') ?? ''
