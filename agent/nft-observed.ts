// What a kernel has of the agent's tables: read whole when an agent starts, so that it goes on with what a killed one left,
// and by notices after that.

import { NFT_TABLE_AGENT as TABLE } from '../lib/owned.ts'
import type { Family } from '../lib/cidr.ts'
import type { Loaded } from './nft-changes.ts'
import { rulesOf } from './nft-service.ts'
import { classChains, markerOf, staticTable } from './nft-text.ts'
import { classOf, ipOf, OBJECTS, tableOf, type Elements, type Ruleset } from './nft.ts'

/** A table as it was last applied, known by its marker. */
export type Held = { readonly loaded: Loaded; readonly marker: string }

const SETS: ReadonlySet<string> = new Set(OBJECTS)
const isAffinity = (name: string) => /^(sticky|to|affinity)-/.test(name)

/**
 * Reads `nft -j list table`. undefined unless its rules are those that `wanted` would have: by the layout in the marker's
 * name, and by their number in each chain, since whoever removes rules leaves the marker.
 */
export function readTable(json: string, wanted: Ruleset): Held | undefined {
  const items = itemsOf(json)
  const layout = markerOf(wanted, 0).replace(/0$/, '')
  const [marker] = items.flatMap(({ chain }) => (chain?.name?.startsWith(layout) ? [chain.name] : []))
  if (marker === undefined) return undefined
  const objects = new Map<string, Elements>()
  const made = new Set<string>()
  for (const { map, set, chain } of items) {
    const { name, elem = [] } = map ?? set ?? {}
    if (chain?.name !== undefined && isAffinity(chain.name)) made.add(chain.name)
    if (name === undefined) continue
    if (isAffinity(name) || classOf(name) !== undefined) made.add(name)
    if (SETS.has(name) || classOf(name) !== undefined)
      objects.set(name, new Map(elem.map((element) => (map === undefined ? [textOf(element), ''] : pairOf(element)))))
  }
  if (OBJECTS.some((name) => !objects.has(name))) return undefined
  const rules = Map.groupBy(
    items.flatMap(({ rule }) => rule?.chain ?? []),
    (chain) => chain,
  )
  for (const [chain, count] of expectedRules(wanted, made))
    if ((rules.get(chain)?.length ?? 0) !== count) return undefined
  return { loaded: { ruleset: wanted, listed: objects, made, unused: new Set() }, marker }
}

type Item = {
  readonly chain?: { readonly name?: string }
  readonly map?: { readonly name?: string; readonly elem?: readonly unknown[] }
  readonly set?: { readonly name?: string; readonly elem?: readonly unknown[] }
  readonly rule?: { readonly chain?: string }
}

function itemsOf(json: string): readonly Item[] {
  try {
    return (JSON.parse(json) as { nftables?: readonly Item[] }).nftables ?? []
  } catch {
    return []
  }
}

/** How many rules each chain has. Those of affinity that are not wanted any more may have any number. */
function expectedRules(wanted: Ruleset, made: ReadonlySet<string>): ReadonlyMap<string, number> {
  const expected = new Map<string, number>()
  let chain = ''
  for (const line of staticTable(wanted, '').split('\n')) {
    const [, name] = /^ {2}(?:chain|map|set) (\S*) ?\{$/.exec(line) ?? []
    if (name !== undefined) chain = line.startsWith('  chain ') ? name : ''
    else if (chain !== '' && /^ {4}(?!type )/.test(line)) expected.set(chain, (expected.get(chain) ?? 0) + 1)
  }
  for (const name of made) {
    const each = classOf(name)
    for (const [chain, rules] of each === undefined ? [] : classChains(wanted.family, each))
      expected.set(chain, rules.length)
  }
  if ([...made].some(isAffinity))
    for (const service of wanted.services)
      for (const [chain, rules] of rulesOf(service, wanted.family).chains)
        if (made.has(chain)) expected.set(chain, rules.length)
  return expected
}

function pairOf(element: unknown): readonly [string, string] {
  const [key, value] = Array.isArray(element) ? element : []
  return [textOf(key), textOf(value)]
}

/** As `nft list` writes it, and as the ruleset has it. */
function textOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value)
  const {
    concat,
    prefix,
    goto: verdict,
    elem,
  } = value as {
    concat?: readonly unknown[]
    prefix?: { addr: string; len: number }
    goto?: { target: string }
    elem?: { val: unknown }
  }
  if (concat !== undefined) return concat.map(textOf).join(' . ')
  if (prefix !== undefined) return `${prefix.addr}/${prefix.len}`
  if (verdict !== undefined) return `goto ${verdict.target}`
  if (elem !== undefined) return textOf(elem.val)
  return Object.keys(value)[0] ?? ''
}

/**
 * What a line of `nft monitor destroy` means to us. `lost`: somebody removed our table. `rules-gone`: rules were removed;
 * ours go with their table, or are those of affinity. `replaced`: a table of an older serial went, which is our own doing.
 * `doubtful`: an element went that should be there unless we took it out ourselves: look by `command`.
 */
export type Notice =
  | { readonly kind: 'lost' | 'rules-gone' | 'replaced' }
  | { readonly kind: 'doubtful'; readonly command: string }

/** @param removed whether we took out that key of that object lately. */
export function noticeOf(
  line: string,
  held: readonly Held[],
  removed: (family: Family, object: string, key: string) => boolean,
): Notice | undefined {
  const [, kind, ip, name, rest] = DELETED.exec(line) ?? []
  const ours = held.find(({ loaded }) => ipOf(loaded.ruleset.family) === ip)
  if (ours === undefined) return undefined
  const { family } = ours.loaded.ruleset
  if (kind === 'rule') return isAffinity(name!) && !ours.loaded.made.has(name!) ? undefined : { kind: 'rules-gone' }
  if (kind === 'chain') {
    if (name === ours.marker) return { kind: 'lost' }
    return name!.startsWith('layout-') ? { kind: 'replaced' } : undefined
  }
  if (!SETS.has(name!) && classOf(name!) === undefined) return undefined
  const [element] = /^\{ (.*) \}$/.exec(rest!)?.[1]!.split(', ') ?? []
  const [key] = element?.split(' : ') ?? []
  if (key === undefined || removed(family, name!, key)) return undefined
  return { kind: 'doubtful', command: `get element ${tableOf(family)} ${name} { ${key} }` }
}
const DELETED = new RegExp(`^delete (chain|element|rule) (ip6?) ${TABLE} (\\S+) ?(.*)$`)

/** The arguments of nft that print a table for `readTable`. */
export const listTable = (family: Family): readonly string[] => ['-j', 'list', 'table', ipOf(family), TABLE]
