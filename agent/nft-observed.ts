// What a kernel has of the agent's tables: read whole when an agent starts, so that it goes on with what a killed one left,
// and by notices after that.

import { NFT_TABLE_AGENT as TABLE } from '../lib/owned.ts'
import type { Family } from '../lib/cidr.ts'
import { classOf, ipOf, tableOf, type Elements, type Ruleset } from './nft.ts'
import { markerOf, renderTable } from './nft-text.ts'

/** A table as it was last applied, known by its marker. */
export type Held = { readonly ruleset: Ruleset; readonly marker: string }

const SETS = new Set(['services', 'cluster-ips', 'hairpin', 'mesh', 'remote'])

/**
 * Reads `nft -j list table`. undefined unless its rules are those that `wanted` would have: by the layout in the marker's
 * name, and by their number, since whoever removes rules leaves the marker.
 */
export function readTable(json: string, wanted: Ruleset): Held | undefined {
  const items = itemsOf(json)
  const layout = markerOf(wanted, 0).replace(/0$/, '')
  const [marker] = items.flatMap(({ chain }) => (chain?.name?.startsWith(layout) ? [chain.name] : []))
  if (marker === undefined) return undefined
  const objects = new Map<string, Elements>()
  for (const { map, set } of items) {
    const { name, elem = [] } = map ?? set ?? {}
    if (name === undefined || (!SETS.has(name) && classOf(name) === undefined)) continue
    objects.set(name, new Map(elem.map((element) => (map === undefined ? [textOf(element), ''] : pairOf(element)))))
  }
  const classes = [...objects.keys()].filter((name) => classOf(name) !== undefined).length
  const rules = items.filter(({ rule }) => rule !== undefined).length
  return rules === rulesOf(wanted) + classes ? { ruleset: { ...wanted, objects }, marker } : undefined
}

type Item = {
  readonly chain?: { readonly name?: string }
  readonly map?: { readonly name?: string; readonly elem?: readonly unknown[] }
  readonly set?: { readonly name?: string; readonly elem?: readonly unknown[] }
  readonly rule?: unknown
}

function itemsOf(json: string): readonly Item[] {
  try {
    return (JSON.parse(json) as { nftables?: readonly Item[] }).nftables ?? []
  } catch {
    return []
  }
}

/** Lines inside of chains that are neither braces nor the hook of a base chain. */
function rulesOf(ruleset: Ruleset): number {
  const text = renderTable({ ...ruleset, objects: new Map() }, '', [])
  return text.split('\n').filter((line) => /^ {4}(?!type|elements)/.test(line)).length
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
 * ours only go with their table. `replaced`: a table of an older serial went, which is our own doing. `doubtful`: an element
 * went that should be there, unless the notice is late and we had taken it out and put it back: look by `command`.
 */
export type Notice =
  | { readonly kind: 'lost' | 'rules-gone' | 'replaced' }
  | { readonly kind: 'doubtful'; readonly command: string }

export function noticeOf(line: string, held: readonly Held[]): Notice | undefined {
  const [, kind, ip, name, rest] = DELETED.exec(line) ?? []
  const ours = held.find(({ ruleset }) => ipOf(ruleset.family) === ip)
  if (ours === undefined) return undefined
  if (kind === 'rule') return { kind: 'rules-gone' }
  if (kind === 'chain') {
    if (name === ours.marker) return { kind: 'lost' }
    return name!.startsWith('layout-') ? { kind: 'replaced' } : undefined
  }
  const known = ours.ruleset.objects.get(name!)
  const [element] = /^\{ (.*) \}$/.exec(rest!)?.[1]!.split(', ') ?? []
  const [key, value = ''] = element?.split(' : ') ?? []
  if (key === undefined || known?.get(key) !== value) return undefined
  return { kind: 'doubtful', command: `get element ${tableOf(ours.ruleset.family)} ${name} { ${key} }` }
}
const DELETED = new RegExp(`^delete (chain|element|rule) (ip6?) ${TABLE} (\\S+) ?(.*)$`)

/** The arguments of nft that print a table for `readTable`. */
export const listTable = (family: Family): readonly string[] => ['-j', 'list', 'table', ipOf(family), TABLE]
