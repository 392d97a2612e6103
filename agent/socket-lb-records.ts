// What the socket load balancer's maps hold, byte for byte: the agent writes it, socket-lb-programs.ts reads it. IPv4
// addresses are IPv4-mapped, so that one map serves both families and a call to ::ffff:10.96.0.1 is one to 10.96.0.1.
//
//   services   address . port → number of a frontend                         (a hash)
//   frontends  number → { address . port, flags, slots, affinity }           (an array)
//   slots      number → target, as often as its weight says                  (an array)
//   leases     number → until when the programs serve, and groups left alone (an array)
//   peers      socket cookie → { address . port that was called, target }    (by the programs)
//   affinity   network namespace . service port → { target, last use }       (by the programs)
//   members    target . frontend → nothing: that the target is one of its    (a hash)
//   excluded   id of a cgroup whose processes are left alone → nothing       (a hash)
//
// Consistency: a frontend's slots are one aligned word { first, count }, which the kernel copies in one piece. A new set
// is written to slots that nobody reads, then the word changes: a call sees the old set or the new, never parts of both.
// Arrays never move, and numbers and slots come into use again only after QUARANTINE_MS, when no program can be at work
// with them any more. An element of a hash may be given to another key while it is read, so the number that it gave is
// checked against the address in the frontend.

import { writeAddress } from '../lib/address.ts'
import type { MapShape } from '../lib/bpf/map.ts'
import type { Family } from '../lib/cidr.ts'

/** `address . port`: 16 bytes and, in network order, 2; the rest is zero. As a key, without the last four. */
export const PLACE_BYTES = 24
export const PLACE_KEY_BYTES = 20
export const PLACE_PORT = 16
/** Of a frontend or a slot. */
export const NUMBER_BYTES = 4

export const FRONTEND = {
  bytes: 56,
  place: 0,
  /** 32 bits. */
  flags: 24,
  /** 64 bits: the first slot in the lower half, how many in the upper; with none, calls are refused. */
  slots: 32,
  /** 64 bits, the service port for affinity, 0 for none; and how long it holds, nanoseconds. */
  affinity: 40,
  affinityNs: 48,
} as const
/** For the canary: the lease of its own. */
export const FLAG_CANARY = 1
/** For the node's own network namespace only, as 127.0.0.1 is. */
export const FLAG_NODE_ONLY = 2

export const LEASE = {
  bytes: 16,
  /** 64 bits, CLOCK_MONOTONIC in nanoseconds. */
  until: 0,
  /** 64 bits: bit N is set if a group N levels below the root is excluded. */
  levels: 8,
} as const
export const LEASE_SERVICES = 0
export const LEASE_CANARY = 1
/** Groups of pods lie 2 to 4 below the root, within a lab's or a container's group some more. */
export const EXCLUDED_LEVELS = 10
export const EXCLUDED_GROUPS_MAX = 1024

export const PEER = { bytes: 2 * PLACE_BYTES, called: 0, target: PLACE_BYTES } as const
export const AFFINITY_KEY = { bytes: 16, namespace: 0, service: 8 } as const
export const AFFINITY = { bytes: PLACE_BYTES + 8, target: 0, lastUseNs: PLACE_BYTES } as const
/** A place whose last four bytes are the frontend's number. */
export const MEMBER = { bytes: PLACE_BYTES, frontend: PLACE_KEY_BYTES } as const

/** A program runs for a microsecond and holds its processor meanwhile. */
export const QUARANTINE_MS = 5_000

export type Capacity = {
  readonly frontends: number
  readonly slots: number
  readonly members: number
}

/** The maps of one generation. */
export const shapesOf = ({ frontends, slots, members }: Capacity) =>
  ({
    services: { type: 'hash', keyBytes: PLACE_KEY_BYTES, valueBytes: NUMBER_BYTES, entries: frontends },
    frontends: { type: 'array', keyBytes: NUMBER_BYTES, valueBytes: FRONTEND.bytes, entries: frontends },
    slots: { type: 'array', keyBytes: NUMBER_BYTES, valueBytes: PLACE_BYTES, entries: slots },
    leases: { type: 'array', keyBytes: NUMBER_BYTES, valueBytes: LEASE.bytes, entries: 2 },
    members: { type: 'hash', keyBytes: MEMBER.bytes, valueBytes: 1, entries: members },
    excluded: { type: 'hash', keyBytes: 8, valueBytes: 1, entries: EXCLUDED_GROUPS_MAX },
  }) satisfies Readonly<Record<string, MapShape>>

/** Those that the programs write: they go on from generation to generation. */
export const KEPT_SHAPES = {
  peers: { type: 'lru-hash', keyBytes: 8, valueBytes: PEER.bytes, entries: 32_768 },
  affinity: { type: 'lru-hash', keyBytes: AFFINITY_KEY.bytes, valueBytes: AFFINITY.bytes, entries: 16_384 },
} as const satisfies Readonly<Record<string, MapShape>>

export type Place = { readonly family: Family; readonly address: string; readonly port: number }

export function writePlace({ family, address, port }: Place, into: Uint8Array, offset = 0): void {
  if (family === 4) {
    into[offset + 10] = 0xff
    into[offset + 11] = 0xff
    writeAddress(address, 4, into, offset + 12)
  } else writeAddress(address, 6, into, offset)
  into[offset + PLACE_PORT] = port >> 8
  into[offset + PLACE_PORT + 1] = port & 0xff
}

export function numberKey(number: number): Buffer {
  const key = Buffer.alloc(NUMBER_BYTES)
  key.writeUInt32LE(number)
  return key
}

/** A member's key. */
export function writeMember(target: Place, frontend: number, into: Buffer, offset: number): void {
  writePlace(target, into, offset)
  into.writeUInt32LE(frontend, offset + MEMBER.frontend)
}

export type FrontendRecord = {
  readonly place: Place
  readonly flags: number
  readonly first: number
  readonly count: number
  readonly affinity: { readonly service: bigint; readonly seconds: number } | undefined
}

export function writeFrontend(
  { place, flags, first, count, affinity }: FrontendRecord,
  into: Buffer,
  offset: number,
): void {
  writePlace(place, into, offset + FRONTEND.place)
  into.writeUInt32LE(flags, offset + FRONTEND.flags)
  into.writeUInt32LE(first, offset + FRONTEND.slots)
  into.writeUInt32LE(count, offset + FRONTEND.slots + 4)
  if (affinity === undefined) return
  into.writeBigUInt64LE(affinity.service, offset + FRONTEND.affinity)
  into.writeBigUInt64LE(BigInt(affinity.seconds) * 1_000_000_000n, offset + FRONTEND.affinityNs)
}

export function leaseValue(untilNs: bigint, levels: bigint): Buffer {
  const value = Buffer.alloc(LEASE.bytes)
  value.writeBigUInt64LE(untilNs, LEASE.until)
  value.writeBigUInt64LE(levels, LEASE.levels)
  return value
}
