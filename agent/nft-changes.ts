// What has to change in the kernel from one ruleset to the next, so that no packet meets a gap between them.

import { classOf, type Elements, type Ruleset } from './nft.ts'

export type ElementChange = { readonly object: string; readonly removed: readonly string[]; readonly added: Elements }
export type Changes = {
  /** Classes that are needed for the first time, by number of endpoints. */
  readonly created: readonly number[]
  /** In one transaction after the creation. */
  readonly changed: readonly ElementChange[]
  /** In a later transaction: a packet that was sent to a class before the change still finds its endpoint there. */
  readonly left: readonly ElementChange[]
}

/** From one ruleset to the other; undefined where the rules themselves differ and the table must be written anew. */
export function planChanges(before: Ruleset, after: Ruleset): Changes | undefined {
  if (before.source !== after.source || before.masqueradeOutsiders !== after.masqueradeOutsiders) return undefined
  const created: number[] = []
  const changed: ElementChange[] = []
  const left: ElementChange[] = []
  for (const object of new Set([...before.objects.keys(), ...after.objects.keys()])) {
    const had = before.objects.get(object)
    const wanted = after.objects.get(object)
    const count = classOf(object)
    if (had === undefined && count !== undefined) created.push(count)
    const gone = [...(had ?? [])].filter(([key, value]) => wanted?.get(key) !== value).map(([key]) => key)
    const added = new Map([...(wanted ?? [])].filter(([key, value]) => had?.get(key) !== value))
    const later = count === undefined ? [] : gone.filter((key) => !added.has(key))
    const removed = count === undefined ? gone : gone.filter((key) => added.has(key))
    if (removed.length + added.size > 0) changed.push({ object, removed, added })
    if (later.length > 0) left.push({ object, removed: later, added: new Map() })
  }
  return { created, changed, left }
}

/** What the kernel holds after the changes: classes that nobody uses any more stay until the table is written anew. */
export function applied(before: Ruleset, after: Ruleset): Ruleset {
  const unused = [...before.objects.keys()].filter((name) => !after.objects.has(name))
  return {
    ...after,
    objects: new Map([...after.objects, ...unused.map((name) => [name, new Map<string, string>()] as const)]),
  }
}
