// What has to change in the kernel from one ruleset to the next, so that no packet meets a gap between them. Services that
// are the same value in both are not looked into.

import { changesBetween } from '../lib/sorted-list.ts'
import { byService } from './balance.ts'
import { addRules, ServiceRules } from './nft-service.ts'
import { classOf, type Elements, type Ruleset } from './nft.ts'

/** What the kernel has, as it was last applied. */
export type Loaded = {
  readonly ruleset: Ruleset
  /** What was listed of a predecessor's table, in place of the ruleset's services and shared objects. */
  readonly listed?: ReadonlyMap<string, Elements>
  /** Maps of classes, chains and sets of affinity that are there, used or not. */
  readonly made: ReadonlySet<string>
  /** Chains and sets of affinity that nothing leads to any more. */
  readonly unused: ReadonlySet<string>
}

export type ElementChange = { readonly object: string; readonly removed: readonly string[]; readonly added: Elements }
export type Changes = {
  /** Maps of classes that are needed for the first time. */
  readonly created: readonly string[]
  readonly sets: ServiceRules['sets']
  readonly chains: ServiceRules['chains']
  /** Sets of affinity of endpoints that are back: who was sent there before has gone elsewhere since. */
  readonly emptied: readonly string[]
  /** In one transaction after the creation. */
  readonly changed: readonly ElementChange[]
  /** In a later transaction: a packet that was sent to a class before the change still finds its endpoint there. */
  readonly left: readonly ElementChange[]
  /** Of affinity, in that transaction: unused since an earlier change, which kernels need (before 6.2) to let go of them. */
  readonly dropped: readonly string[]
  readonly loaded: Loaded
}

/** From what is loaded to the other ruleset; undefined where the rules themselves differ and the table must be written anew. */
export function planChanges(before: Loaded, after: Ruleset): Changes | undefined {
  const { ruleset } = before
  const rulesOnly = ({ source, masqueradeOutsiders, serviceCidrs }: Ruleset) =>
    [source, masqueradeOutsiders, ...serviceCidrs].join()
  if (rulesOnly(ruleset) !== rulesOnly(after)) return undefined
  const gone = new ServiceRules()
  const wanted = new ServiceRules()
  if (before.listed !== undefined) {
    for (const [object, elements] of before.listed) addElements(gone, object, elements)
    for (const service of after.services) addRules(wanted, service, after.family)
    for (const [object, elements] of after.shared) addElements(wanted, object, elements)
  } else {
    for (const [had, now] of changesBetween(ruleset.services, after.services, byService)) {
      if (had !== undefined) addRules(gone, had, after.family)
      if (now !== undefined) addRules(wanted, now, after.family)
    }
    for (const [object, elements] of after.shared) {
      const had = ruleset.shared.get(object)
      if (had === elements) continue
      if (had !== undefined) addElements(gone, object, had)
      addElements(wanted, object, elements)
    }
  }

  const changed: ElementChange[] = []
  const left: ElementChange[] = []
  for (const object of new Set([...gone.elements.keys(), ...wanted.elements.keys()])) {
    const had = gone.elements.get(object)
    const now = wanted.elements.get(object)
    const added = had === undefined ? now! : new Map([...(now ?? [])].filter(([key, value]) => had.get(key) !== value))
    const keys = [...(had ?? [])].filter(([key, value]) => now?.get(key) !== value).map(([key]) => key)
    const isClass = classOf(object) !== undefined
    const later = isClass ? keys.filter((key) => !added.has(key)) : []
    const removed = isClass ? keys.filter((key) => added.has(key)) : keys
    if (removed.length + added.size > 0) changed.push({ object, removed, added })
    if (later.length > 0) left.push({ object, removed: later, added: new Map() })
  }
  return {
    created: [...wanted.elements.keys()].filter((name) => classOf(name) !== undefined && !before.made.has(name)),
    sets: new Map([...wanted.sets].filter(([name]) => !before.made.has(name))),
    chains: new Map([...wanted.chains].filter(([name]) => !before.made.has(name))),
    emptied: [...wanted.sets.keys()].filter((name) => before.unused.has(name)),
    changed,
    left,
    ...afterwards(before, after, gone, wanted),
  }
}

/** Classes that nobody uses any more stay until the table is written anew. */
function afterwards(
  before: Loaded,
  ruleset: Ruleset,
  gone: ServiceRules,
  wanted: ServiceRules,
): Pick<Changes, 'dropped' | 'loaded'> {
  const needed = new Set([...wanted.sets.keys(), ...wanted.chains.keys()])
  const free =
    before.listed === undefined
      ? [...gone.sets.keys(), ...gone.chains.keys()]
      : [...before.made].filter((name) => classOf(name) === undefined)
  const dropped = [...before.unused].filter((name) => !needed.has(name))
  const unused = new Set(free.filter((name) => !needed.has(name)))
  for (const name of dropped) unused.delete(name)
  const made = new Set(before.made)
  for (const name of dropped) made.delete(name)
  for (const name of [...wanted.elements.keys(), ...needed]) if (!OTHER_OBJECTS(name)) made.add(name)
  return { dropped, loaded: { ruleset, made, unused } }
}
const OTHER_OBJECTS = (name: string) => classOf(name) === undefined && !/^(sticky|to|affinity)-/.test(name)

function addElements(rules: ServiceRules, object: string, elements: Elements): void {
  for (const [key, value] of elements) rules.set(object, key, value)
}
