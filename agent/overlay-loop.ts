// The devices of the overlay, kept in the kernel as wanted. One that is right is adopted as it is, so that packets go on
// while an agent restarts; what is not ours by its name is never touched.

import { FAMILIES, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { NetlinkError, type Link, type Netlink } from '../lib/net/netlink.ts'
import { ensureDeviceSysctls } from '../lib/net/sysctl.ts'
import {
  addVxlan,
  listForwarding,
  listNeighbours,
  listVxlans,
  removeForwarding,
  removeNeighbour,
  replaceForwarding,
  replaceNeighbour,
  type VxlanSpec,
} from '../lib/net/vxlan.ts'
import { VXLAN_ADDRESS, VXLAN_DEVICES } from '../lib/owned.ts'
import { planForwarding, type Overlay, type OverlayPeer } from './overlay.ts'
import type { Surroundings } from './transport.ts'

export type OverlaySettings = {
  /** UDP port, and VXLAN network identifier: the same on all nodes of a pool. */
  readonly port: number
  readonly id: number
}
type Devices = Surroundings['overlay']

/**
 * Makes the devices what they should be; those that are not wanted go.
 * @returns those that work, and why others do not.
 */
export async function ensureOverlays(
  netlink: Netlink,
  wanted: readonly Overlay[],
  settings: OverlaySettings,
  log: Log,
): Promise<{ readonly devices: Devices; readonly problems: readonly string[] }> {
  const devices: { -readonly [F in Family]?: Devices[F] } = {}
  const problems: string[] = []
  for (const family of FAMILIES) {
    const overlay = wanted.find(({ outer }) => outer === family)
    try {
      if (overlay === undefined) await removeOverlay(netlink, family)
      else devices[family] = { device: await ensureOverlay(netlink, overlay, settings, log), mtu: overlay.mtu }
    } catch (error) {
      if (!(error instanceof Error)) throw error
      problems.push(`${error.message}${remedyOf(error, settings)}`)
    }
  }
  return { devices, problems }
}

async function removeOverlay(netlink: Netlink, family: Family): Promise<void> {
  const link = await findOwn(netlink, family)
  if (link !== undefined) await netlink.removeLink(link)
}

async function ensureOverlay(netlink: Netlink, overlay: Overlay, settings: OverlaySettings, log: Log): Promise<number> {
  const { outer, local, mac, mtu, peers } = overlay
  const name = VXLAN_DEVICES[outer]
  const spec = { ...settings, local, mac }
  const present = await findOwn(netlink, outer)
  const found = (await listVxlans(netlink)).find((vxlan) => vxlan.name === name)
  if (present !== undefined && (found === undefined || !sameSpec(found, spec) || found.learning))
    await netlink.removeLink(present)
  const adopted = found !== undefined && sameSpec(found, spec) && !found.learning
  if (!adopted) {
    await addVxlan(netlink, name, spec)
    log.info({ device: name, local, port: settings.port, vni: settings.id }, 'overlay device made')
  }
  const link = await findOwn(netlink, outer)
  if (link === undefined) throw new Error(`device ${name} went away while it was made; it is made again`)
  await ensureDeviceSysctls(name)
  if (link.mtu !== mtu) await netlink.setLink(link, { mtu })
  const addresses = (await netlink.addresses()).filter(({ device }) => device === link.index)
  if (!addresses.some(({ address }) => address === VXLAN_ADDRESS))
    await netlink.addAddress({ device: link.index, family: 4, address: VXLAN_ADDRESS, length: 32, linkOnly: true })
  if (!link.up) await netlink.setLink(link, { up: true })

  await ensureForwarding(netlink, link.index, peers)
  return link.index
}

async function ensureForwarding(netlink: Netlink, device: number, peers: readonly OverlayPeer[]): Promise<void> {
  const observed = {
    endpoints: await listForwarding(netlink, device),
    neighbours: await listNeighbours(netlink, device),
  }
  for (const step of planForwarding(observed, peers))
    switch (step.kind) {
      case 'set-endpoint':
        await replaceForwarding(netlink, { device, ...step })
        break
      case 'remove-endpoint':
        await removeForwarding(netlink, { device, ...step })
        break
      case 'set-neighbour':
        await replaceNeighbour(netlink, { device, ...step })
        break
      case 'remove-neighbour':
        await removeNeighbour(netlink, { device, ...step })
        break
    }
}

async function findOwn(netlink: Netlink, family: Family): Promise<Link | undefined> {
  const name = VXLAN_DEVICES[family]
  const link = (await netlink.links()).find((candidate) => candidate.name === name)
  if (link !== undefined && link.kind !== 'vxlan')
    throw new Error(`device ${name} is no VXLAN device but a ${link.kind || 'network card'}: remove or rename it`)
  return link
}

const sameSpec = (a: VxlanSpec, b: VxlanSpec): boolean =>
  a.id === b.id && a.port === b.port && a.local === b.local && a.mac === b.mac

function remedyOf(error: Error, { port, id }: OverlaySettings): string {
  if (!(error instanceof NetlinkError)) return ''
  if (error.errno === 'EEXIST' || error.errno === 'EADDRINUSE')
    return `; UDP port ${port} or VNI ${id} is taken by another device or program: choose others with --vxlan-port and --vxlan-id on all nodes of the pool`
  if (error.errno === 'ENOTSUP') return '; load the kernel module vxlan'
  return ''
}
