// Service addresses of this node, which no other node has: they stand on the loopback device, since every kernel has one.

import { networkInterfaces } from 'node:os'
import { familyOf } from '../cidr.ts'
import { Netlink } from './netlink.ts'

/** Puts an address on `lo` unless this node has it already. @throws NetlinkError. */
export async function ensureOwnAddress(address: string): Promise<void> {
  const present = Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some((own) => own.address === address),
  )
  if (present) return
  const family = familyOf(address)
  if (family === undefined) throw new TypeError(`${address}: is no IP address`)
  const netlink = new Netlink()
  try {
    const loopback = (await netlink.links()).find(({ name }) => name === 'lo')
    if (loopback === undefined) throw new Error('there is no loopback device lo')
    if (!loopback.up) await netlink.setLink(loopback, { up: true })
    await netlink.addAddress({ device: loopback.index, family, address, length: family === 4 ? 32 : 128 })
  } finally {
    netlink.close()
  }
}
