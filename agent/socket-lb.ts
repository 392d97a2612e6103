// Which frontends the socket load balancer serves, and how its maps change from one set of them to the next. It serves
// TCP. Left to nft, whose rules hold everything, are: callers from other hosts; UDP and SCTP; loadBalancerSourceRanges,
// since at connect() the source is not known yet; frontends without a target whose packets are to be dropped.

import { createHash } from 'node:crypto'
import type { Element } from '../lib/bpf/map.ts'
import type { Family } from '../lib/cidr.ts'
import type { Frontend, ServiceFrontends, Target } from './balance.ts'
import {
  FLAG_NODE_ONLY,
  frontendValue,
  memberKey,
  numberKey,
  placeKey,
  placeValue,
  QUARANTINE_MS,
  type Capacity,
  type Place,
} from './socket-lb-records.ts'

/** What answers at one address and port. */
export type Entry = {
  readonly service: string
  readonly place: Place
  readonly flags: number
  readonly targets: readonly Target[]
  readonly affinity?: { readonly service: bigint; readonly seconds: number }
}

export type EntriesOptions = {
  /** The node's own addresses that serve NodePorts; 127.0.0.1 and ::1 do so beside them, for the node itself. */
  readonly nodeAddresses: readonly string[]
  /** Calls may be refused; else frontends without targets are left to nft. */
  readonly refuse: boolean
  /** Addresses that are left to nft. */
  readonly except: ReadonlySet<string>
}

const LOOPBACK: Readonly<Record<Family, string>> = { 4: '127.0.0.1', 6: '::1' }
/** Weights of a service are rounded so that it has no more slots than these, but one for each target. */
const SLOTS_MAX = 4096

export function entriesOf({ frontends }: ServiceFrontends, options: EntriesOptions): readonly Entry[] {
  return frontends.flatMap((frontend): readonly Entry[] => {
    const { service, family, protocol, kind, address, port, sourceRanges, whenEmpty, affinitySeconds } = frontend
    const targets = frontend.insideTargets ?? frontend.targets
    if (protocol !== 'TCP' || sourceRanges !== undefined || (address !== undefined && options.except.has(address)))
      return []
    if (targets.length === 0 && (whenEmpty === 'drop' || !options.refuse)) return []
    const entry = {
      service,
      targets,
      ...(affinitySeconds === undefined
        ? {}
        : { affinity: { service: affinityId(frontend), seconds: affinitySeconds } }),
    }
    if (kind !== 'node-port') return [{ ...entry, flags: 0, place: { family, address: address!, port } }]
    const own = options.nodeAddresses.filter((text) => text.includes(':') === (family === 6))
    return [
      ...own.map((text) => ({ ...entry, flags: 0, place: { family, address: text, port } })),
      { ...entry, flags: FLAG_NODE_ONLY, place: { family, address: LOOPBACK[family], port } },
    ]
  })
}

/** The same for all addresses of a service port, and in the next agent. */
const affinityId = ({ service, portName, protocol, family }: Frontend): bigint =>
  createHash('sha256').update(`${service} ${portName} ${protocol} ${family}`).digest().readBigUInt64LE() | 1n

/** Each target as often as its weight says, in the order given. */
export function slotsOf(targets: readonly Target[]): readonly Target[] {
  const divisor = targets.reduce((divisor, { weight }) => gcd(divisor, weight), 0)
  const total = targets.reduce((sum, { weight }) => sum + weight, 0) / divisor
  const scale = Math.min(1, SLOTS_MAX / total) / divisor
  return targets.flatMap((target) => Array<Target>(Math.max(1, Math.floor(target.weight * scale))).fill(target))
}

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

/** Elements to set or keys to delete; a plan's are to be done in their order. */
export type Write =
  | { readonly map: 'slots' | 'members' | 'frontends' | 'services'; readonly set: readonly Element[] }
  | { readonly map: 'members' | 'services'; readonly delete: readonly Uint8Array[] }

export type EntriesOf = (service: ServiceFrontends) => readonly Entry[]
type Range = { readonly first: number; readonly size: number }
type Held = {
  readonly number: number
  readonly range: Range
  readonly entry: Entry
  /** Others that claim the same address and port; the first by name of service has it. */
  readonly others: readonly Entry[]
}
type Plan = {
  readonly slots: Element[]
  readonly members: Element[]
  readonly frontends: Element[]
  readonly services: Element[]
  readonly oldServices: Uint8Array[]
  readonly oldMembers: Uint8Array[]
}

const NOWHERE: Range = { first: 0, size: 0 }
const NOTHING = new Uint8Array(1)
const NONE: readonly Entry[] = []
/** Growth within a generation, before the next must be made. */
const HEADROOM = 1.5
const LEAST: Capacity = { frontends: 256, slots: 1024, members: 256 }

class NoRoom extends Error {}

/** With room to grow. */
export function capacityFor(entries: Iterable<readonly Entry[]>): Capacity {
  const need = { frontends: 0, slots: 0, members: 0 }
  for (const some of entries)
    for (const entry of some) {
      need.frontends++
      need.slots += sizeFor(slotsOf(entry.targets).length)
      need.members += membersOf(entry, 0).size
    }
  const roomy = (what: keyof Capacity) => powerOfTwo(Math.max(LEAST[what], need[what] * HEADROOM))
  return { frontends: roomy('frontends'), slots: roomy('slots'), members: roomy('members') }
}

/** What the maps of one generation hold, and which of their numbers and slots are free. */
export class Ledger {
  readonly #capacity: Capacity
  readonly #fixed: readonly Entry[]
  readonly #held = new Map<string, Held>()
  #known = new Map<ServiceFrontends | undefined, readonly Entry[]>()
  #entriesOf: EntriesOf | undefined
  readonly #freeNumbers: number[] = []
  #nextNumber = 0
  /** By size. */
  readonly #freeRanges = new Map<number, Range[]>()
  #nextSlot = 0
  #members = 0
  readonly #quarantine: { readonly untilMs: number; readonly number?: number; readonly range: Range }[] = []

  /** @param fixed entries that are there from the first plan on and stay. */
  constructor(capacity: Capacity, fixed: readonly Entry[]) {
    this.#capacity = capacity
    this.#fixed = fixed
  }

  /** Addresses and ports that are held. */
  get size(): number {
    return this.#held.size
  }

  /**
   * The writes from what is held to what is wanted, which counts as held from now on. The same value of a service is
   * the same service.
   * @param entriesOf another function than before means that all are read anew.
   * @param nowMs of a clock that never goes back.
   * @returns undefined if there is no room: this ledger is of no use then, and a greater one is wanted.
   */
  plan(services: readonly ServiceFrontends[], entriesOf: EntriesOf, nowMs: number): readonly Write[] | undefined {
    this.#release(nowMs)
    const plan: Plan = { slots: [], members: [], frontends: [], services: [], oldServices: [], oldMembers: [] }
    try {
      for (const [key, claims] of this.#changedClaims(services, entriesOf)) this.#settle(key, claims, plan, nowMs)
    } catch (error) {
      if (error instanceof NoRoom) return undefined
      throw error
    }
    const { slots, members, frontends, oldServices, oldMembers } = plan
    // They are deleted last, and have their room until then.
    this.#members -= oldMembers.length
    const writes: readonly Write[] = [
      { map: 'slots', set: slots },
      { map: 'members', set: members },
      { map: 'frontends', set: frontends },
      { map: 'services', set: plan.services },
      { map: 'services', delete: oldServices },
      { map: 'members', delete: oldMembers },
    ]
    return writes.filter((write) => ('set' in write ? write.set : write.delete).length > 0)
  }

  /** Who claims each address and port whose claims may have changed. */
  #changedClaims(services: readonly ServiceFrontends[], entriesOf: EntriesOf): Map<string, readonly Entry[]> {
    const before = this.#known
    const anew = entriesOf !== this.#entriesOf
    this.#entriesOf = entriesOf
    this.#known = new Map([[undefined, this.#fixed]])
    const added = before.size === 0 ? [this.#fixed] : []
    for (const service of services) {
      const known = anew ? undefined : before.get(service)
      const entries = known ?? entriesOf(service)
      if (known === undefined) added.push(entries)
      this.#known.set(service, entries)
    }
    const claims = new Map<string, readonly Entry[]>()
    const claimsOf = (key: string) => {
      const held = this.#held.get(key)
      return claims.get(key) ?? (held === undefined ? NONE : [held.entry, ...held.others])
    }
    for (const [service, entries] of before)
      if (entries !== this.#known.get(service))
        for (const entry of entries) {
          const key = keyOf(entry.place)
          claims.set(
            key,
            claimsOf(key).filter((other) => other !== entry),
          )
        }
    for (const entry of added.flat()) {
      const key = keyOf(entry.place)
      claims.set(key, [...claimsOf(key), entry])
    }
    return claims
  }

  #settle(key: string, claims: readonly Entry[], plan: Plan, nowMs: number): void {
    const held = this.#held.get(key)
    const [entry, ...others] = claims.toSorted((a, b) => (a.service < b.service ? -1 : a.service > b.service ? 1 : 0))
    if (entry === undefined) {
      if (held === undefined) return
      this.#held.delete(key)
      plan.oldServices.push(placeKey(held.entry.place))
      plan.oldMembers.push(...membersOf(held.entry, held.number).values())
      this.#quarantine.push({ untilMs: nowMs + QUARANTINE_MS, number: held.number, range: held.range })
      return
    }
    if (held !== undefined && same(held.entry, entry)) {
      this.#held.set(key, { ...held, entry, others })
      return
    }
    const { place, flags, affinity } = entry
    const slots = slotsOf(entry.targets)
    const number = held?.number ?? this.#takeNumber()
    const range = this.#takeRange(slots.length)
    this.#held.set(key, { number, range, entry, others })
    const { family } = place
    for (const [i, { address, port }] of slots.entries())
      plan.slots.push({ key: numberKey(range.first + i), value: placeValue({ family, address, port }) })
    const members = membersOf(entry, number)
    const oldMembers = held === undefined ? new Map<string, Buffer>() : membersOf(held.entry, number)
    for (const [name, key] of members) if (!oldMembers.delete(name)) this.#addMember(key, plan)
    plan.oldMembers.push(...oldMembers.values())
    plan.frontends.push({
      key: numberKey(number),
      value: frontendValue({
        place,
        flags,
        first: range.first,
        count: slots.length,
        ...(affinity === undefined ? {} : { affinity }),
      }),
    })
    if (held === undefined) plan.services.push({ key: placeKey(place), value: numberKey(number) })
    else this.#quarantine.push({ untilMs: nowMs + QUARANTINE_MS, range: held.range })
  }

  #takeNumber(): number {
    const free = this.#freeNumbers.pop()
    if (free !== undefined) return free
    if (this.#nextNumber >= this.#capacity.frontends) throw new NoRoom()
    return this.#nextNumber++
  }

  #takeRange(count: number): Range {
    const size = sizeFor(count)
    if (size === 0) return NOWHERE
    const free = this.#freeRanges.get(size)?.pop()
    if (free !== undefined) return free
    if (this.#nextSlot + size > this.#capacity.slots) throw new NoRoom()
    const first = this.#nextSlot
    this.#nextSlot += size
    return { first, size }
  }

  #addMember(key: Buffer, plan: Plan): void {
    if (++this.#members > this.#capacity.members) throw new NoRoom()
    plan.members.push({ key, value: NOTHING })
  }

  #release(nowMs: number): void {
    while (this.#quarantine.length > 0 && this.#quarantine[0]!.untilMs <= nowMs) {
      const { number, range } = this.#quarantine.shift()!
      if (number !== undefined) this.#freeNumbers.push(number)
      if (range.size === 0) continue
      const free = this.#freeRanges.get(range.size)
      if (free === undefined) this.#freeRanges.set(range.size, [range])
      else free.push(range)
    }
  }
}

/** Only where there is affinity does it matter who is among the targets. By text. */
function membersOf({ affinity, place: { family }, targets }: Entry, number: number): Map<string, Buffer> {
  if (affinity === undefined) return new Map()
  return new Map(
    targets.map(({ address, port }) => [`${address} ${port}`, memberKey({ family, address, port }, number)]),
  )
}

const same = (a: Entry, b: Entry): boolean =>
  a === b ||
  (a.flags === b.flags &&
    a.affinity?.service === b.affinity?.service &&
    a.affinity?.seconds === b.affinity?.seconds &&
    a.targets.length === b.targets.length &&
    a.targets.every(
      ({ address, port, weight }, i) =>
        address === b.targets[i]!.address && port === b.targets[i]!.port && weight === b.targets[i]!.weight,
    ))

const keyOf = ({ address, port }: Place) => `${address} ${port}`
/** Ranges come in powers of two, so that those that were given back fit. */
const sizeFor = (count: number) => (count === 0 ? 0 : powerOfTwo(count))
const powerOfTwo = (least: number) => 2 ** Math.ceil(Math.log2(least))
