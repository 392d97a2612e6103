// How the maps of the socket load balancer change from one set of services to the next: which numbers and slots they have,
// and what is written in which order, so that a call sees the old set of a frontend's targets or the new.

import { changesBetween, EMPTY, type SortedList } from '../lib/sorted-list.ts'
import { byService, type ServiceFrontends, type Target } from './balance.ts'
import { slotsOf, type Entry } from './socket-lb.ts'
import {
  FRONTEND,
  MEMBER,
  NUMBER_BYTES,
  PLACE_BYTES,
  PLACE_KEY_BYTES,
  QUARANTINE_MS,
  writeFrontend,
  writeMember,
  writePlace,
  type Capacity,
  type Place,
} from './socket-lb-records.ts'

/** Keys to delete, or elements to set, one after the other; a plan's are to be done in their order. */
export type Write = {
  readonly map: 'slots' | 'members' | 'frontends' | 'services'
  readonly count: number
  readonly keys: Buffer
  readonly values: Buffer | undefined
}

export type EntriesOf = (service: ServiceFrontends) => readonly Entry[]
type Held = {
  readonly number: number
  readonly first: number
  /** Of the range of slots. */
  readonly size: number
  readonly entry: Entry
  /** Others that claim the same address and port; the first by name of service has it. */
  readonly others: readonly Entry[]
}
type Resting = {
  readonly untilMs: number
  readonly number: number | undefined
  readonly first: number
  readonly size: number
}

const NONE: readonly Entry[] = []
/** Growth within a generation, before the next must be made. */
const HEADROOM = 1.5
const LEAST: Capacity = { frontends: 256, slots: 1024, members: 256 }

class NoRoom extends Error {}

/** With room to grow. */
export function capacityFor(
  fixed: readonly Entry[],
  services: SortedList<ServiceFrontends>,
  entriesOf: EntriesOf,
): Capacity {
  const need = { frontends: 0, slots: 0, members: 0 }
  const count = (entries: readonly Entry[]): void => {
    for (const { targets, affinity } of entries) {
      need.frontends++
      need.slots += sizeFor(slotsOf(targets).length)
      need.members += affinity === undefined ? 0 : targets.length
    }
  }
  count(fixed)
  for (const service of services) count(entriesOf(service))
  const roomy = (what: keyof Capacity) => powerOfTwo(Math.max(LEAST[what], need[what] * HEADROOM))
  return { frontends: roomy('frontends'), slots: roomy('slots'), members: roomy('members') }
}

/** What the maps of one generation hold, and which of their numbers and slots are free. */
export class Ledger {
  readonly #capacity: Capacity
  readonly #held = new Map<string, Held>()
  #services: SortedList<ServiceFrontends> = EMPTY
  #entriesOf: EntriesOf | undefined
  #fixed: readonly Entry[]
  readonly #freeNumbers: number[] = []
  #nextNumber = 0
  /** Where ranges begin, by their size. */
  readonly #freeRanges = new Map<number, number[]>()
  #nextSlot = 0
  #members = 0
  readonly #resting: Resting[] = []

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
   * The writes from what is held to what is wanted, which counts as held from now on. Costs little more than what changed.
   * @param services the same value of a service is the same service.
   * @param entriesOf another function than before means that all are read anew.
   * @param nowMs of a clock that never goes back.
   * @returns undefined if there is no room: this ledger is of no use then, and a greater one is wanted.
   */
  plan(services: SortedList<ServiceFrontends>, entriesOf: EntriesOf, nowMs: number): readonly Write[] | undefined {
    this.#release(nowMs)
    const plan = new Plan()
    try {
      for (const [key, claims] of this.#changedClaims(services, entriesOf)) this.#settle(key, claims, plan, nowMs)
    } catch (error) {
      if (error instanceof NoRoom) return undefined
      throw error
    }
    // They are deleted last, and have their room until then.
    this.#members -= plan.oldMembers.count
    return plan.writes()
  }

  /** Who claims each address and port whose claims may have changed. */
  #changedClaims(services: SortedList<ServiceFrontends>, entriesOf: EntriesOf): Map<string, readonly Entry[]> {
    const claims = new Map<string, readonly Entry[]>()
    const claimsOf = (key: string): readonly Entry[] => {
      const held = this.#held.get(key)
      return claims.get(key) ?? (held === undefined ? NONE : [held.entry, ...held.others])
    }
    const claim = (entries: readonly Entry[]): void => {
      for (const entry of entries) {
        const key = keyOf(entry.place)
        const known = claimsOf(key)
        claims.set(key, known.length === 0 ? [entry] : [...known, entry])
      }
    }
    const disclaim = (entries: readonly Entry[]): void => {
      for (const { place, service } of entries) {
        const key = keyOf(place)
        const known = claimsOf(key)
        claims.set(key, known.length === 1 ? NONE : known.filter((other) => other.service !== service))
      }
    }
    claim(this.#fixed)
    this.#fixed = NONE

    const [before, read] = [this.#services, this.#entriesOf ?? entriesOf]
    // What is read by another function is all read anew.
    const rest = read === entriesOf ? before : EMPTY
    if (rest !== before) for (const service of before) disclaim(read(service))
    for (const [had, now] of changesBetween(rest, services, byService)) {
      if (had !== undefined) disclaim(read(had))
      if (now !== undefined) claim(entriesOf(now))
    }
    this.#services = services
    this.#entriesOf = entriesOf
    return claims
  }

  #settle(key: string, claims: readonly Entry[], plan: Plan, nowMs: number): void {
    const held = this.#held.get(key)
    const sorted = claims.length < 2 ? claims : claims.toSorted((a, b) => (a.service < b.service ? -1 : 1))
    const entry = sorted[0]
    const others = sorted.length < 2 ? NONE : sorted.slice(1)
    if (entry === undefined) {
      if (held === undefined) return
      this.#held.delete(key)
      plan.removeService(held.entry.place)
      for (const target of membersOf(held.entry)) plan.removeMember(target, held)
      this.#rest({ ...held, untilMs: nowMs + QUARANTINE_MS })
      return
    }
    if (held !== undefined && same(held.entry, entry)) {
      this.#held.set(key, { ...held, entry, others })
      return
    }
    const { place } = entry
    const slots = slotsOf(entry.targets)
    const size = sizeFor(slots.length)
    const first = this.#takeRange(size)
    const number = held?.number ?? this.#takeNumber()
    const next = { number, first, size, entry, others }
    this.#held.set(key, next)
    slots.forEach((target, i) => plan.setSlot(first + i, placeOf(place, target)))
    const members = new Set(membersOf(entry).map(keyOf))
    const oldMembers = new Set(held === undefined ? [] : membersOf(held.entry).map(keyOf))
    for (const target of membersOf(entry)) {
      if (oldMembers.has(keyOf(target))) continue
      if (++this.#members > this.#capacity.members) throw new NoRoom()
      plan.setMember(target, next)
    }
    if (held !== undefined)
      for (const target of membersOf(held.entry)) if (!members.has(keyOf(target))) plan.removeMember(target, held)
    plan.setFrontend(next, slots.length)
    if (held === undefined) plan.setService(next)
    else this.#rest({ ...held, number: undefined, untilMs: nowMs + QUARANTINE_MS })
  }

  #takeNumber(): number {
    const free = this.#freeNumbers.pop()
    if (free !== undefined) return free
    if (this.#nextNumber >= this.#capacity.frontends) throw new NoRoom()
    return this.#nextNumber++
  }

  #takeRange(size: number): number {
    if (size === 0) return 0
    const free = this.#freeRanges.get(size)?.pop()
    if (free !== undefined) return free
    if (this.#nextSlot + size > this.#capacity.slots) throw new NoRoom()
    this.#nextSlot += size
    return this.#nextSlot - size
  }

  #rest({ untilMs, number, first, size }: Resting): void {
    this.#resting.push({ untilMs, number, first, size })
  }

  #release(nowMs: number): void {
    const rested = this.#resting.findIndex(({ untilMs }) => untilMs > nowMs)
    for (const { number, first, size } of this.#resting.splice(0, rested === -1 ? this.#resting.length : rested)) {
      if (number !== undefined) this.#freeNumbers.push(number)
      const free = this.#freeRanges.get(size) ?? []
      if (size > 0) this.#freeRanges.set(size, free)
      free.push(first)
    }
  }
}

/** The writes of one plan, by what they are, in the bytes of the maps. */
class Plan {
  readonly #slots = new Rows(NUMBER_BYTES, PLACE_BYTES)
  readonly #members = new Rows(MEMBER.bytes, 1)
  readonly #frontends = new Rows(NUMBER_BYTES, FRONTEND.bytes)
  readonly #services = new Rows(PLACE_KEY_BYTES, NUMBER_BYTES)
  readonly #oldServices = new Rows(PLACE_KEY_BYTES, 0)
  readonly oldMembers = new Rows(MEMBER.bytes, 0)

  setSlot(number: number, target: Place): void {
    const row = this.#slots.add()
    this.#slots.keys.writeUInt32LE(number, row * NUMBER_BYTES)
    writePlace(target, this.#slots.values, row * PLACE_BYTES)
  }
  setMember(target: Place, { number }: Held): void {
    const row = this.#members.add()
    writeMember(target, number, this.#members.keys, row * MEMBER.bytes)
  }
  removeMember(target: Place, { number }: Held): void {
    const row = this.oldMembers.add()
    writeMember(target, number, this.oldMembers.keys, row * MEMBER.bytes)
  }
  setFrontend({ number, first, entry: { place, flags, affinity } }: Held, count: number): void {
    const row = this.#frontends.add()
    this.#frontends.keys.writeUInt32LE(number, row * NUMBER_BYTES)
    writeFrontend({ place, flags, first, count, affinity }, this.#frontends.values, row * FRONTEND.bytes)
  }
  setService({ number, entry: { place } }: Held): void {
    const row = this.#services.add()
    writePlace(place, this.#services.keys, row * PLACE_KEY_BYTES)
    this.#services.values.writeUInt32LE(number, row * NUMBER_BYTES)
  }
  removeService(place: Place): void {
    const row = this.#oldServices.add()
    writePlace(place, this.#oldServices.keys, row * PLACE_KEY_BYTES)
  }

  /** What is looked up last is written first, and deleted last. */
  writes(): readonly Write[] {
    return [
      this.#slots.write('slots'),
      this.#members.write('members'),
      this.#frontends.write('frontends'),
      this.#services.write('services'),
      this.#oldServices.write('services'),
      this.oldMembers.write('members'),
    ].filter(({ count }) => count > 0)
  }
}

/** Elements of one size, one after the other. */
class Rows {
  readonly #keyBytes: number
  readonly #valueBytes: number
  #room = 0
  count = 0
  keys = Buffer.alloc(0)
  values = Buffer.alloc(0)

  constructor(keyBytes: number, valueBytes: number) {
    this.#keyBytes = keyBytes
    this.#valueBytes = valueBytes
  }
  /** @returns the number of a new row, all zero. */
  add(): number {
    if (this.count === this.#room) {
      const [keys, values] = [this.keys, this.values]
      this.#room = Math.max(8, 2 * this.#room)
      this.keys = Buffer.alloc(this.#room * this.#keyBytes)
      this.values = Buffer.alloc(this.#room * this.#valueBytes)
      keys.copy(this.keys)
      values.copy(this.values)
    }
    return this.count++
  }
  write(map: Write['map']): Write {
    const values = this.#valueBytes === 0 ? undefined : this.values.subarray(0, this.count * this.#valueBytes)
    return { map, count: this.count, keys: this.keys.subarray(0, this.count * this.#keyBytes), values }
  }
}

/** Only where there is affinity does it matter who is among the targets. */
const membersOf = ({ affinity, place, targets }: Entry): readonly Place[] =>
  affinity === undefined ? NO_PLACES : targets.map((target) => placeOf(place, target))
const NO_PLACES: readonly Place[] = []

/** Targets are of their frontend's family. */
const placeOf = ({ family }: Place, { address, port }: Target): Place => ({ family, address, port })

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
