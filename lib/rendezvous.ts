// Rendezvous hashing (highest random weight): whoever knows the same members puts them in the same order for a key, with
// nobody asked. A member that goes moves only the keys that it had, one that comes only those that it takes.

import { createHash } from 'node:crypto'

/** @returns the members, those first that the key belongs to. */
export function rendezvousOrder(key: string, members: readonly string[]): readonly string[] {
  return members
    .map((member) => ({ member, weight: weightOf(member, key) }))
    .toSorted((a, b) => b.weight - a.weight || (a.member < b.member ? -1 : 1))
    .map(({ member }) => member)
}

const WEIGHT_BYTES = 6
const weightOf = (member: string, key: string): number =>
  createHash('sha256').update(`${member}\n${key}`).digest().readUIntBE(0, WEIGHT_BYTES)
