// VXLAN devices in the kernel: what there is, and what each knows of the others.

import { rt } from 'netlink'
import type { Netlink } from './netlink.ts'
import {
  forwardingBody,
  forwardingHeader,
  forwardingOf,
  neighbourBody,
  neighbourHeader,
  neighbourOf,
  vxlanBody,
  vxlanOf,
  type ForwardingEntry,
  type Neighbour,
  type VxlanLink,
  type VxlanSpec,
} from './vxlan-codec.ts'

export type { ForwardingEntry, Neighbour, VxlanLink, VxlanSpec } from './vxlan-codec.ts'

const TYPE = rt.MessageType

export async function listVxlans(netlink: Netlink): Promise<readonly VxlanLink[]> {
  return (await netlink.list('list devices', TYPE.GETLINK, Buffer.alloc(16))).flatMap((bytes) => vxlanOf(bytes) ?? [])
}

/** @throws NetlinkError EEXIST where name, or port and identifier, are taken; ENOTSUP where the kernel has no VXLAN. */
export const addVxlan = (netlink: Netlink, name: string, spec: VxlanSpec): Promise<void> =>
  netlink.change(`add vxlan device ${name}`, TYPE.NEWLINK, vxlanBody(name, spec), 'create')

export async function listForwarding(netlink: Netlink, device: number): Promise<readonly ForwardingEntry[]> {
  const messages = await netlink.list('list forwarding entries', TYPE.GETNEIGH, forwardingHeader)
  return messages.flatMap((bytes) => forwardingOf(bytes) ?? []).filter((entry) => entry.device === device)
}

export const replaceForwarding = (netlink: Netlink, entry: ForwardingEntry): Promise<void> =>
  netlink.change(`set forwarding entry ${entry.mac}`, TYPE.NEWNEIGH, forwardingBody(entry), 'replace')

/** One that is gone already is no error. */
export const removeForwarding = (netlink: Netlink, entry: ForwardingEntry): Promise<void> =>
  netlink.remove(`remove forwarding entry ${entry.mac}`, TYPE.DELNEIGH, forwardingBody(entry))

/** Permanent ones. */
export async function listNeighbours(netlink: Netlink, device: number): Promise<readonly Neighbour[]> {
  const messages = await netlink.list('list neighbours', TYPE.GETNEIGH, neighbourHeader)
  return messages.flatMap((bytes) => neighbourOf(bytes) ?? []).filter((neighbour) => neighbour.device === device)
}

export const replaceNeighbour = (netlink: Netlink, neighbour: Neighbour): Promise<void> =>
  netlink.change(`set neighbour ${neighbour.address}`, TYPE.NEWNEIGH, neighbourBody(neighbour), 'replace')

/** One that is gone already is no error. */
export const removeNeighbour = (netlink: Netlink, neighbour: Neighbour): Promise<void> =>
  netlink.remove(`remove neighbour ${neighbour.address}`, TYPE.DELNEIGH, neighbourBody(neighbour))
