// An internet in memory: hosts with one address each, behind NATs of every type (RFC 4787), and a STUN server with two
// addresses that sees them as they do. Datagrams take time and are lost where a NAT or a firewall drops them.

import { formatSocketAddress, socketAddress, type SocketAddress } from '../../lib/address.ts'
import type { NatBehaviour } from '../../lib/status.ts'
import { furtherServers, natBehaviour, type FilteringTest } from '../../gateway/nat.ts'
import type { Clock } from './clock.ts'

export const NAT_TYPES = ['open', 'full-cone', 'restricted', 'port-restricted', 'symmetric', 'udp-blocked'] as const
export type NatType = (typeof NAT_TYPES)[number]

type Receive = (datagram: Buffer, from: SocketAddress) => void
type Mapping = { readonly inside: SocketAddress; readonly port: number; usedMs: number; readonly sentTo: Set<string> }

const LIFETIME_MS = 120_000
const FIRST_PORT = 32_768
const [A, B] = ['203.0.113.1', '203.0.113.2']
const [P1, P2] = [3478, 3479]

/** What stands between a host and the others; `address` is its public one. */
export class Nat {
  readonly type: NatType
  address: string
  /** By what the mapping depends on, and by its port outside. */
  #mappings = new Map<string, Mapping>()
  #byPort = new Map<number, Mapping>()
  #nextPort = FIRST_PORT

  constructor(type: NatType, address: string) {
    this.type = type
    this.address = address
  }

  /** The provider gives another address: nothing that was mapped is any more. */
  renumber(address: string): void {
    this.address = address
    this.#mappings = new Map()
    this.#byPort = new Map()
  }

  /** @returns where a datagram seems to come from; undefined where it does not get out. */
  leave(inside: SocketAddress, to: SocketAddress, nowMs: number): SocketAddress | undefined {
    if (this.type === 'udp-blocked') return undefined
    if (this.type === 'open') return inside
    const key = `${inside.port}${this.type === 'symmetric' ? ` ${formatSocketAddress(to)}` : ''}`
    const known = this.#mappings.get(key)
    const mapping =
      known !== undefined && nowMs - known.usedMs <= LIFETIME_MS
        ? known
        : { inside, port: this.#nextPort++, usedMs: nowMs, sentTo: new Set<string>() }
    if (mapping !== known) {
      if (known !== undefined) this.#byPort.delete(known.port)
      this.#mappings.set(key, mapping)
      this.#byPort.set(mapping.port, mapping)
    }
    mapping.usedMs = nowMs
    mapping.sentTo.add(to.address).add(formatSocketAddress(to))
    return socketAddress(this.address, mapping.port)!
  }

  /** @returns whom it reaches inside; undefined where it does not get in. */
  enter(to: SocketAddress, from: SocketAddress, nowMs: number): SocketAddress | undefined {
    if (this.type === 'udp-blocked') return undefined
    if (this.type === 'open') return to
    const mapping = this.#byPort.get(to.port)
    if (mapping === undefined || nowMs - mapping.usedMs > LIFETIME_MS) return undefined
    switch (this.type) {
      case 'full-cone':
        return mapping.inside
      case 'restricted':
        return mapping.sentTo.has(from.address) ? mapping.inside : undefined
      case 'port-restricted':
      case 'symmetric':
        return mapping.sentTo.has(formatSocketAddress(from)) ? mapping.inside : undefined
    }
  }
}

export class Internet {
  datagrams = 0
  readonly #clock: Clock
  readonly #nats = new Map<string, Nat>()
  /** By the address inside. */
  readonly #hosts = new Map<string, { readonly nat: Nat; readonly owner: string; readonly receive: Receive }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  attach(address: string, nat: Nat, owner: string, receive: Receive): void {
    this.#hosts.set(address, { nat, owner, receive })
    this.#nats.set(nat.address, nat)
  }

  detach(address: string): void {
    const nat = this.#hosts.get(address)?.nat
    this.#hosts.delete(address)
    if (nat !== undefined) this.#nats.delete(nat.address)
  }

  renumber(nat: Nat, address: string): void {
    this.#nats.delete(nat.address)
    nat.renumber(address)
    this.#nats.set(address, nat)
  }

  /** @param ttl hops: one with few of them gets through the sender's NAT and no further. */
  send(from: SocketAddress, to: SocketAddress, datagram: Buffer, ttl: number | undefined, latencyMs: number): void {
    this.datagrams++
    const outside = this.#hosts.get(from.address)?.nat.leave(from, to, this.#clock.nowMs)
    const nat = this.#nats.get(to.address)
    if (outside === undefined || nat === undefined || ttl !== undefined) return
    const inside = nat.enter(to, outside, this.#clock.nowMs)
    const host = inside && this.#hosts.get(inside.address)
    if (host !== undefined) this.#clock.at(host.owner, latencyMs, () => host.receive(datagram, outside))
  }

  /** What a host finds out of its NAT by STUN (RFC 5780), and where WireGuard's port is seen. */
  discover(
    inside: SocketAddress,
    nat: Nat,
  ): { readonly nat: NatBehaviour; readonly reflexive: readonly SocketAddress[] } {
    const { nowMs } = this.#clock
    const server = socketAddress(A, P1)!
    const other = socketAddress(B, P2)!
    const mappings = [server, ...furtherServers(server, other)].flatMap((asked) => {
      const mapped = nat.leave(inside, asked, nowMs)
      return mapped === undefined ? [] : [{ server: asked, local: inside, mapped }]
    })
    // Another socket, which talks to A:p1 only.
    const second = nat.leave({ ...inside, port: inside.port + 1 }, server, nowMs)
    const answers = (from: SocketAddress): FilteringTest =>
      second !== undefined && nat.enter(second, from, nowMs) !== undefined ? 'answered' : 'silent'
    const fromOtherPort = answers({ ...server, port: P2 })
    return {
      nat: natBehaviour({ mappings, other, server, fromOther: answers(other), fromOtherPort }),
      reflexive: mappings.slice(0, 1).map(({ mapped }) => mapped),
    }
  }
}
