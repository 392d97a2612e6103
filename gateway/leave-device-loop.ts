// fm-leave, the WireGuard device inside the rung in use: made when a hand-over begins, here or at a peer, and removed when
// it is over, with whatever a predecessor left of it.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { Log } from '../lib/log.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { bindUdp } from '../lib/net/udp-socket.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { CARRIERS } from '../lib/owned.ts'
import type { WireGuard } from './wireguard-loop.ts'
import type { WireGuardPeer } from './wireguard.ts'

export type LeaveDevice = {
  /** Resolves when the device has the peers that were wanted as this was called, or is gone if there were none. */
  readonly apply: () => Promise<void>
  readonly trigger: () => void
  /** Where it listens; 0 while there is none. */
  readonly port: () => number
}

export function createLeaveDevice(
  options: {
    readonly open: (port: number, signal: AbortSignal) => Promise<WireGuard<'leave'>>
    readonly peers: () => readonly WireGuardPeer[]
    readonly log: Log
  },
  signal: AbortSignal,
): LeaveDevice {
  let opened: { readonly device: WireGuard<'leave'>; readonly port: number; readonly end: AbortController } | undefined

  const open = async () => {
    const port = await freePort()
    const end = new AbortController()
    try {
      return { device: await options.open(port, AbortSignal.any([signal, end.signal])), port, end }
    } catch (error) {
      end.abort()
      throw error
    }
  }
  const upkeep = createUpkeep(
    {
      pass: async () => {
        const peers = options.peers()
        if (peers.length > 0) {
          opened ??= await open()
          return opened.device.setPeers('leave', peers)
        }
        opened?.end.abort()
        opened = undefined
        await removeDevice()
      },
      onError: (err) => options.log.warn({ err, device: CARRIERS.leave }, 'WireGuard device is not as wanted'),
    },
    signal,
  )
  return { apply: upkeep.now, trigger: upkeep.trigger, port: () => opened?.port ?? 0 }
}

/** Peers are told which: nothing is lost by another one each time. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp6')
  await bindUdp(socket, 0)
  const { port } = socket.address()
  socket.close()
  await once(socket, 'close')
  return port
}

async function removeDevice(): Promise<void> {
  const netlink = new Netlink()
  try {
    const isOurs = ({ name, kind }: { readonly name: string; readonly kind: string }) =>
      name === CARRIERS.leave && (kind === 'wireguard' || kind === 'tun')
    const link = (await netlink.links()).find(isOurs)
    if (link !== undefined) await netlink.removeLink(link)
  } finally {
    netlink.close()
  }
}
