// The WireGuard devices of a gateway in memory: what it sends through one leaves as a packet with its key, by the simulated
// internet or relay, and goes in at a gateway that knows that key.

import { formatSocketAddress, socketAddress, type SocketAddress } from '../../lib/address.ts'
import type { Rung } from '../../lib/status.ts'
import { decodeStun, isStun } from '../../lib/wire/stun.ts'
import { decodeEcho, toReply } from '../../gateway/echo.ts'
import type { Paths } from '../../gateway/path-loop.ts'
import type { Peer } from '../../gateway/peers.ts'
import type { Clock } from './clock.ts'
import type { Internet } from './internet.ts'
import type { Kernel } from './kernel.ts'
import type { SimRelay } from './relay.ts'
import { ROLE, type Site } from './site.ts'

export type TunnelSurroundings = {
  readonly clock: Clock
  readonly internet: Internet
  readonly relay: SimRelay
  /** The gateway that a WireGuard packet over the relay reaches; undefined where there is none. */
  readonly gatewayOf: (node: string) => { readonly site: Site; readonly tunnels: Tunnels } | undefined
}

const DATA = 4
const KEY_END = 33

export class Tunnels {
  readonly #site: Site
  readonly #world: TunnelSurroundings
  readonly #kernel: Kernel
  readonly #peers: () => readonly Peer[]
  readonly #paths: () => Paths | undefined

  /** @param gateway undefined paths: it does not run, but the kernel does. */
  constructor(
    site: Site,
    world: TunnelSurroundings,
    kernel: Kernel,
    gateway: { readonly peers: () => readonly Peer[]; readonly paths: () => Paths | undefined },
  ) {
    this.#site = site
    this.#world = world
    this.#kernel = kernel
    this.#peers = gateway.peers
    this.#paths = gateway.paths
  }

  sendUdp(datagram: Buffer, to: SocketAddress, ttl?: number): void {
    this.#world.internet.send(this.#site.inside, to, datagram, ttl, this.#site.latencyMs)
  }

  /** Through a WireGuard device: to the peer with that address, if the device knows where it is. */
  sendInside(rung: Rung, linkLocal: string, inner: Buffer): void {
    const peer = this.#peers().find((other) => other.linkLocal === linkLocal)
    if (peer === undefined || !this.#kernel.devices[rung].has(peer.wireguardKey)) return
    const packet = Buffer.concat([Buffer.from([DATA]), Buffer.from(this.#site.publicKey, 'base64'), inner])
    if (rung === 'direct') {
      const endpoint = this.#kernel.endpointOf('direct', peer.wireguardKey)
      if (endpoint !== undefined) this.sendUdp(packet, endpoint)
    } else if (rung === 'relay-tcp') {
      const { relay, clock, gatewayOf } = this.#world
      const other = gatewayOf(peer.node)
      if (other === undefined || !relay.isConnected(this.#site.node) || !relay.isConnected(peer.node)) return
      const ms = this.#site.latencyMs + other.site.latencyMs
      clock.at(peer.node, ms, () => other.tunnels.#decrypt('relay-tcp', packet, undefined))
    }
  }

  readonly receive = (datagram: Buffer, from: SocketAddress): void => {
    if (!isStun(datagram)) return this.#decrypt('direct', datagram, from)
    const message = decodeStun(datagram)
    if (message !== undefined) this.#paths()?.onStun(message, datagram, from)
  }

  #decrypt(rung: Rung, packet: Buffer, from: SocketAddress | undefined): void {
    const key = packet.toString('base64', 1, KEY_END)
    // The peer's device must know our key too; it encrypted for it.
    if (!this.#kernel.devices[rung].has(key)) return
    if (from !== undefined) this.#kernel.roam(rung, key, from)
    const inner = packet.subarray(KEY_END)
    const echo = decodeEcho(inner)
    const peer = this.#peers().find(({ wireguardKey }) => wireguardKey === key)
    const paths = this.#paths()
    if (echo === undefined || peer === undefined || paths === undefined) return
    const { linkLocal } = peer
    if (echo.role !== undefined) paths.onEchoRole(linkLocal, echo.role)
    if (echo.kind === 'reply') return paths.onEchoReply(rung, linkLocal, echo.sequence)
    if (echo.kind === 'role') return
    this.sendInside(rung, linkLocal, Buffer.from(toReply(inner, ROLE)))
    paths.onEchoRequest(rung, linkLocal, echo.interested)
  }
}

/** Loopback sockets of fm-tcp in memory: they tell when a packet meets a path that is not kept up. */
export function memoryPackets(onTraffic: (node: string) => void) {
  const peers = new Map<string, { readonly endpoint: string; awake: boolean }>()
  let nextPort = 40_000
  return {
    add: async (node: string) => {
      const known = peers.get(node)
      if (known !== undefined) return known.endpoint
      const endpoint = formatSocketAddress(socketAddress('127.0.0.1', nextPort++)!)
      peers.set(node, { endpoint, awake: false })
      return endpoint
    },
    setAwake: (node: string, awake: boolean) => {
      const peer = peers.get(node)
      if (peer !== undefined) peer.awake = awake
    },
    remove: (node: string) => void peers.delete(node),
    leave: (node: string) => {
      const peer = peers.get(node)
      if (peer === undefined || peer.awake) return
      peer.awake = true
      onTraffic(node)
    },
    nodes: () => [...peers.keys()],
  }
}
