// The WireGuard devices of a gateway, one per rung of the ladder: made or adopted, kept as wanted, and made anew, with the
// last peers at their last endpoints, within a second when someone removes one or its wireguard-go dies.
// Nothing is removed at the end: the devices and their sessions outlive the gateway.

import { familyOf, normalise } from '../lib/cidr.ts'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { Netlink, type NetlinkEvent } from '../lib/net/netlink.ts'
import { createUpkeep, type Upkeep } from '../lib/net/upkeep.ts'
import { changePeers, showDevice } from '../lib/net/wireguard.ts'
import { ensureDevice, type DeviceSpec } from '../lib/net/wireguard-device.ts'
import { CARRIERS, DEVICE_MTU, WIREGUARD_MARK, type Carrier } from '../lib/owned.ts'
import type { Rung } from '../lib/status.ts'
import { planPeers, samePeers, type ObservedPeer, type WireGuardPeer } from './wireguard.ts'

/** @typeParam C the rungs that it has a device for, or fm-leave. */
export type WireGuard<C extends Carrier = Rung> = {
  readonly implementation: 'kernel' | 'wireguard-go'
  /**
   * Makes the peers of a rung's device those given; a peer's present endpoint stays where none is given. Costs what
   * changed since the last call, however many there are; a caller waits for one call before the next.
   */
  setPeers(rung: C, peers: readonly WireGuardPeer[]): Promise<void>
  /** @throws Error for a peer that setPeers did not name. */
  setEndpoint(rung: C, publicKey: string, endpoint: string, keepaliveSeconds: number): Promise<void>
  observe(rung: C): Promise<readonly ObservedPeer[]>
  /** Listens elsewhere. @throws Error where it cannot; it listens where it did then. */
  setPort(rung: C, port: number): Promise<void>
}

export type WireGuardOptions<C extends Carrier = Rung> = {
  /** A file of mode 0600 with 32 bytes in base64, as `wg genkey` prints them. */
  readonly privateKeyFile: string
  readonly devices: readonly { readonly rung: C; readonly port: number }[]
  /** The node's own; ipv4 and ipv6 are of its podCIDRs, where it has any. */
  readonly addresses: {
    readonly linkLocal: string
    readonly ula: string
    readonly ipv4?: string | undefined
    readonly ipv6?: string | undefined
  }
  /** Of its own packets. */
  readonly mark?: number | undefined
  readonly log: Log
}

/** How often peers are looked at, whose removal by others nothing tells of. */
const CHECK_MS = 30_000

/** A rung that has no device, or a peer that a device does not have. */
export class WireGuardError extends Error {
  readonly code = 'FULMAR_WIREGUARD'
  override readonly name = 'WireGuardError'
}

type Device = {
  readonly name: string
  spec: DeviceSpec
  index: number
  /** undefined until the first setPeers: the peers of an adopted device stay until then. */
  wanted: readonly WireGuardPeer[] | undefined
  /** Whether the endpoints of `wanted` are still to be set; later they are WireGuard's own affair. */
  endpointsDue: boolean
  /** Where each peer was seen last, by public key. */
  endpoints: ReadonlyMap<string, string>
  /** The whole device is being looked at and mended. */
  passing: boolean
  readonly upkeep: Upkeep
}

/** @throws what made the first set-up fail: no privileges, a port in use, wireguard-go missing. */
export async function openWireGuard<C extends Carrier = Rung>(
  options: WireGuardOptions<C>,
  signal: AbortSignal,
): Promise<WireGuard<C>> {
  const { log } = options
  const failed = new AbortController()
  const ended = AbortSignal.any([signal, failed.signal])
  const netlink = new Netlink()
  const devices = new Map<C, Device>()
  let implementation: WireGuard['implementation'] = 'kernel'
  let open = options.devices.length

  for (const { rung, port } of options.devices) {
    const name = CARRIERS[rung]
    let known = false
    const pass = async (): Promise<void> => {
      device.passing = true
      try {
        await look()
      } finally {
        device.passing = false
      }
    }
    const look = async (): Promise<void> => {
      const before = device.endpoints
      const result = await ensureDevice(netlink, device.spec, ended)
      implementation = result.implementation
      device.index = result.link.index
      if (!known) log.info({ device: name, implementation, port, adopted: !result.made }, 'WireGuard device ready')
      else if (result.made) log.warn({ device: name, implementation }, 'WireGuard device was lost and is made anew')
      known = true
      noteEndpoints(device, result.dump.peers, before)
      await ensurePeers(device, result.dump.peers)
    }
    const onError = (err: unknown) => log.error({ err, device: name }, 'WireGuard device is not as wanted')
    const onEnd = () => --open === 0 && netlink.close()
    const device: Device = {
      name,
      spec: specOf(options, name, port),
      index: 0,
      wanted: undefined,
      endpointsDue: false,
      endpoints: new Map(),
      passing: false,
      upkeep: createUpkeep({ pass, onError, onEnd }, ended),
    }
    devices.set(rung, device)
  }

  netlink.watch((event) => {
    for (const device of devices.values()) if (concerns(event, device)) device.upkeep.trigger()
  })
  const checks = setInterval(() => {
    for (const { upkeep } of devices.values()) upkeep.trigger()
  }, CHECK_MS).unref()
  onAbort(ended, () => clearInterval(checks))
  try {
    await Promise.all([...devices.values()].map(({ upkeep }) => upkeep.now()))
  } catch (error) {
    failed.abort(error)
    throw error
  }

  const deviceOf = (rung: C): Device => {
    const device = devices.get(rung)
    if (device === undefined) throw new WireGuardError(`no WireGuard device was asked for on rung ${rung}`)
    return device
  }
  return {
    get implementation() {
      return implementation
    },
    async setPeers(rung, peers) {
      const device = deviceOf(rung)
      // What others take from the device is mended from what is wanted: at once or, where nothing tells of it, soon.
      if (device.wanted !== undefined && !device.endpointsDue && samePeers(device.wanted, peers)) return
      const keys = new Set(peers.map(({ publicKey }) => publicKey))
      const before = device.passing || device.endpointsDue ? undefined : device.wanted
      device.wanted = peers
      device.endpoints = new Map([...device.endpoints].filter(([publicKey]) => keys.has(publicKey)))
      if (before !== undefined && (await changeOnly(device, before, peers))) return
      device.endpointsDue = true
      await device.upkeep.now()
    },
    async setEndpoint(rung, publicKey, endpoint, keepaliveSeconds) {
      const device = deviceOf(rung)
      if (!device.wanted?.some((peer) => peer.publicKey === publicKey))
        throw new WireGuardError(`${device.name} has no peer ${publicKey}: give it to setPeers first`)
      device.wanted = device.wanted.map((peer) => (peer.publicKey === publicKey ? { ...peer, keepaliveSeconds } : peer))
      device.endpoints = new Map(device.endpoints).set(publicKey, endpoint)
      try {
        await changePeers(device.name, [{ kind: 'set', publicKey, endpoint, keepaliveSeconds }])
      } catch (error) {
        device.upkeep.trigger()
        throw error
      }
    },
    async observe(rung) {
      const device = deviceOf(rung)
      const before = device.endpoints
      const { peers } = await showDevice(device.name)
      noteEndpoints(device, peers, before)
      return peers
    },
    async setPort(rung, port) {
      const device = deviceOf(rung)
      const before = device.spec
      device.spec = { ...before, port }
      try {
        await device.upkeep.now()
      } catch (error) {
        device.spec = before
        device.upkeep.trigger()
        throw error
      }
    },
  }
}

async function ensurePeers(device: Device, observed: readonly ObservedPeer[]): Promise<void> {
  if (device.wanted === undefined) return
  const due = device.endpointsDue
  device.endpointsDue = false
  try {
    await changePeers(device.name, planPeers(observed, device.wanted, { last: device.endpoints, due }))
  } catch (error) {
    device.endpointsDue ||= due
    throw error
  }
}

/** From the peers that the device has to those wanted, without a look at it. @returns false where it must be looked at. */
async function changeOnly(
  device: Device,
  before: readonly WireGuardPeer[],
  wanted: readonly WireGuardPeer[],
): Promise<boolean> {
  try {
    await changePeers(device.name, planPeers(before, wanted, { last: device.endpoints, due: true }))
    return true
  } catch {
    return false
  }
}

/** @param before what was known when the look began: what was set meanwhile is newer than what it saw. */
function noteEndpoints(device: Device, seen: readonly ObservedPeer[], before: Device['endpoints']): void {
  const news = seen.flatMap(({ publicKey, endpoint }) =>
    endpoint === undefined || device.endpoints.get(publicKey) !== before.get(publicKey)
      ? []
      : [[publicKey, endpoint] as const],
  )
  device.endpoints = new Map([...device.endpoints, ...news])
}

/** Whether a notice may mean that the device is no longer as wanted; our own steps towards that are left out. */
function concerns(event: NetlinkEvent, device: Device): boolean {
  switch (event.kind) {
    case 'link':
      return event.link.name === device.name && (event.removed || !event.link.up || event.link.mtu !== device.spec.mtu)
    case 'address':
      return event.address.device === device.index && event.removed
    case 'lost':
      return true
    default:
      return false
  }
}

function specOf(
  { privateKeyFile, addresses, mark = WIREGUARD_MARK }: Omit<WireGuardOptions, 'devices'>,
  name: string,
  port: number,
): DeviceSpec {
  const { linkLocal, ula, ipv4, ipv6 } = addresses
  const canonical = (address: string) => normalise(address) ?? address
  const single = [ula, ipv4, ipv6].filter((address) => address !== undefined).map(canonical)
  return {
    name,
    privateKeyFile,
    port,
    mark,
    mtu: DEVICE_MTU,
    addresses: [
      { family: 6, address: canonical(linkLocal), length: 64 },
      ...single.map((address) => ({
        family: familyOf(address) ?? 6,
        address,
        length: familyOf(address) === 4 ? 32 : 128,
      })),
    ],
  }
}
