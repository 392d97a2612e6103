// Asks the routers before us, one per address family, to map a port of theirs to WireGuard's (gateway/port-mapping.ts):
// finds them by the default routes of the main table, asks from the address that packets leave from, and starts anew
// when either changes. Answers count only from the router itself, whose address the socket is connected to.

import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { SocketAddress } from '../lib/address.ts'
import { formatSocketAddress } from '../lib/address.ts'
import { contains, parseCidr, type Family } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { pause } from '../lib/net/lifetime.ts'
import { Netlink } from '../lib/net/netlink.ts'
import { TABLE_MAIN } from '../lib/net/netlink-codec.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { PCP_PORT } from '../lib/wire/pcp.ts'
import { PortMapping } from './port-mapping.ts'
import { sourceAddress } from './stun-client.ts'

export type PortMappings = {
  /** Addresses of routers at which the outside reaches WireGuard's port. */
  readonly mapped: () => readonly SocketAddress[]
  /** Looks again at what is wanted and at the routers, and asks them whether they still know. */
  readonly look: () => void
}

type Router = {
  readonly family: Family
  /** With `%device` where it is link-local. */
  readonly address: string
  /** Our address towards it. */
  readonly client: string
  readonly port: number
}
type Asking = {
  readonly router: Router
  readonly mapping: PortMapping
  readonly check: () => void
  readonly close: () => void
}

/** Routes may change without a word of ours hearing it; the search for a new router is cheap. */
const LOOK_MS = 10 * 60_000
/** A network that comes up does so in many steps. */
const COALESCE_MS = 500
/** Where routers tell that they have restarted: all hosts of the LAN (RFC 6887 §14.1, RFC 6886 §3.2.1). */
const NOTICE_GROUP = '224.0.0.1'
const NOTICE_PORT = 5350
/** An address on the other side of the default route; nothing is sent there. */
const FAR: Readonly<Record<Family, SocketAddress>> = {
  4: { address: '192.88.99.1', port: PCP_PORT, family: 4 },
  6: { address: '2000::1', port: PCP_PORT, family: 6 },
}
/** Addresses that the IPv6 Internet reaches, unless a firewall stands before them. */
const GLOBAL6 = parseCidr('2000::/3')!

/** @param options.onChange called when `mapped` is another. */
export function runPortMapping(
  options: {
    /** WireGuard's. */
    readonly port: () => number
    /** 12 bytes, the same in every life of this gateway. */
    readonly nonce: Uint8Array
    readonly wants: (family: Family) => boolean
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): PortMappings {
  const { log } = options
  const netlink = new Netlink()
  const asking = new Map<Family, Asking>()
  const dropped = (family: Family): void => {
    const known = asking.get(family)
    if (known === undefined) return
    asking.delete(family)
    known.close()
    if (known.mapping.external !== undefined) options.onChange()
  }
  const upkeep = createUpkeep(
    {
      pass: async () => {
        const routers = await findRouters(netlink, options.port())
        for (const family of [4, 6] as const) {
          const router = options.wants(family) ? routers.find((found) => found.family === family) : undefined
          const known = asking.get(family)
          if (JSON.stringify(known?.router) === JSON.stringify(router)) continue
          dropped(family)
          if (router === undefined || signal.aborted) continue
          asking.set(family, await ask(router, options))
        }
      },
      onError: (err) => log.warn({ err }, 'the router could not be asked for a port'),
      onEnd: () => {
        for (const { close } of asking.values()) close()
        netlink.close()
      },
      coalesceMs: COALESCE_MS,
    },
    signal,
  )
  netlink.watch((event) => {
    if (event.kind === 'address' || event.kind === 'lost' || (event.kind === 'route' && event.table === TABLE_MAIN))
      upkeep.trigger()
  })
  const look = async (): Promise<void> => {
    for (; !signal.aborted; await pause(LOOK_MS, signal)) upkeep.trigger()
  }
  void look()
  return {
    mapped: () => [...asking.values()].flatMap(({ mapping }) => mapping.external ?? []),
    look: () => {
      for (const { check } of asking.values()) check()
      upkeep.trigger()
    },
  }
}

/** The router of each family that packets to the Internet go to first, where there is one. */
async function findRouters(netlink: Netlink, port: number): Promise<readonly Router[]> {
  const [routes, links] = await Promise.all([netlink.defaultRoutes(), netlink.links()])
  const found = ([4, 6] as const).map(async (family): Promise<Router | undefined> => {
    const [route] = routes.filter((route) => route.family === family).toSorted((a, b) => a.metric - b.metric)
    const client = route?.via === undefined ? undefined : await sourceAddress(FAR[family])
    if (route?.via === undefined || client === undefined) return undefined
    if (family === 6 && !contains(GLOBAL6, client)) return undefined
    const device = links.find(({ index }) => index === route.device)?.name
    return { family, address: route.via.startsWith('fe80:') ? `${route.via}%${device}` : route.via, client, port }
  })
  return (await Promise.all(found)).filter((router) => router !== undefined)
}

async function ask(router: Router, options: Parameters<typeof runPortMapping>[0]): Promise<Asking> {
  const { log } = options
  const { family, address, client } = router
  const mapping = new PortMapping(client, router.port, options.nonce, performance.now())
  const socket = createSocket(`udp${family}`)
  const notices = family === 4 ? openNotices(client) : undefined
  let timer: NodeJS.Timeout | undefined
  let told = ''
  const close = (): void => {
    clearTimeout(timer)
    notices?.close()
    socket.close()
  }

  const step = (): void => {
    clearTimeout(timer)
    for (const request of mapping.step(performance.now())) socket.send(request, () => {})
    tell()
    timer = setTimeout(step, Math.max(1, Math.min(LOOK_MS, mapping.nextMs - performance.now())))
  }
  const tell = (): void => {
    const { external, problem, protocol } = mapping
    const text = external === undefined ? problem : formatSocketAddress(external)
    if (text === told) return
    const before = told
    told = text
    if (external !== undefined) log.info({ router: address, protocol, addr: text }, 'the router forwards a port to us')
    else if (problem !== '') log.info({ router: address, why: problem }, 'the router forwards no port to us')
    if (external !== undefined || before !== '') options.onChange()
  }
  const receive = (datagram: Buffer): void => {
    mapping.received(datagram, performance.now(), Math.random())
    step()
  }
  try {
    socket.bind(0, client)
    await once(socket, 'listening')
    await connect(socket, PCP_PORT, address)
  } catch (error) {
    close()
    throw error
  }
  socket.on('message', receive)
  // An ICMP error: there is no such server, or no such host.
  socket.on('error', () => {
    mapping.unreachable(performance.now())
    step()
  })
  notices?.on('message', (datagram: Buffer, from: RemoteInfo) => {
    if (from.address === address && from.port === PCP_PORT) receive(datagram)
  })
  step()
  const check = (): void => {
    mapping.check(performance.now())
    step()
  }
  return { router, mapping, check, close }
}

/** Without it, a restart of the router is noticed later. */
function openNotices(client: string): Socket {
  const socket = createSocket({ type: 'udp4', reuseAddr: true })
  socket.on('error', () => {})
  socket.bind(NOTICE_PORT, () => {
    try {
      socket.addMembership(NOTICE_GROUP, client)
    } catch {
      // The device has gone meanwhile; the route will tell.
    }
  })
  return socket
}

function connect(socket: Socket, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // A failure goes to the callback, which the types of Node do not tell.
    const done = (error?: Error): void => (error === undefined || error === null ? resolve() : reject(error))
    socket.connect(port, address, done)
  })
}
