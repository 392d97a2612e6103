// Which nodes claim which prefixes for their pods, and who has a prefix that two pools claim. What ran must go on, so the
// oldest Node keeps it: a mistake in a new object takes nothing from another site, and all who read the same objects
// decide alike without a memory. Without an oldest nobody gets it.

import { compareCidrs, overlaps, parseCidr, type Cidr } from '../cidr.ts'
import type { Node } from './objects.ts'

export type Claim = {
  readonly cidr: Cidr
  readonly node: string
  readonly pool: string
  /** Of the Node, Unix milliseconds (Kubernetes writes whole seconds). */
  readonly createdMs: number | undefined
}

/** What was left out and the remedy, with the names of the objects that would have to change. */
export type PoolProblem = {
  readonly message: string
  readonly nodes: readonly string[]
  /** Where the mistake is in a Gateway object: its name. */
  readonly gateway?: string
}

/** Unix milliseconds; undefined where the object does not say. */
export function createdMs({ metadata }: Node): number | undefined {
  const ms = Date.parse(metadata?.creationTimestamp ?? '')
  return Number.isNaN(ms) ? undefined : ms
}

/** The claims of one node, each prefix once; what is no prefix for pods becomes a problem. */
export function claimsOf(node: Node, pool: string, problems: PoolProblem[]): readonly Claim[] {
  const name = node.metadata?.name ?? ''
  const claims = new Map<string, Claim>()
  for (const text of [node.spec?.podCIDRs ?? (node.spec?.podCIDR || [])].flat()) {
    const cidr = parseCidr(String(text))
    const reason = cidr === undefined ? 'is no CIDR such as 10.244.1.0/24 or fd00:244:1::/64' : unfit(cidr)
    if (reason !== undefined)
      problems.push({
        nodes: [name],
        message: `node ${name}: podCIDR ${JSON.stringify(text)} ${reason}: it is left out; correct spec.podCIDRs`,
      })
    else claims.set(cidr!.text, { cidr: cidr!, node: name, pool, createdMs: createdMs(node) })
  }
  return [...claims.values()]
}

const RESERVED = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3', '::/127', 'fe80::/10', 'ff00::/8'].map(
  (text) => parseCidr(text)!,
)

function unfit(cidr: Cidr): string | undefined {
  const reserved = RESERVED.find((range) => overlaps(range, cidr))
  return reserved && `covers addresses of ${reserved.text}, which pods cannot have`
}

/** Claims that count: those that no other pool contests, wholly or in part, and of the others those of the oldest Node. */
export function grantedClaims(claims: readonly Claim[], problems: PoolProblem[]): readonly Claim[] {
  const groups = [...Map.groupBy(claims, ({ cidr }) => cidr.text).values()]
    .map((all): Group => {
      const eldest = eldestOf(all.map(elderOf))
      return { claims: all, eldest, rivals: eldest, granted: [] }
    })
    .toSorted((a, b) => compareCidrs(cidrOf(a), cidrOf(b)))
  const nested = nestedPairs(groups)
  for (const [inner, outer] of nested) {
    inner.rivals = eldestOf([...inner.rivals, ...outer.eldest])
    outer.rivals = eldestOf([...outer.rivals, ...inner.eldest])
  }
  for (const group of groups) group.granted = group.claims.filter((claim) => isOldest(claim, group.rivals))
  problems.push(...groups.flatMap(sharedPrefix), ...nested.flatMap(([inner, outer]) => overlap(inner, outer)))
  return groups.flatMap(({ granted }) => granted)
}

/** All claims on one prefix. */
type Group = {
  readonly claims: readonly Claim[]
  readonly eldest: readonly Elder[]
  /** The eldest of all claims on this prefix, on one around it or on one within it. */
  rivals: readonly Elder[]
  granted: readonly Claim[]
}
type Elder = { readonly pool: string; readonly createdMs: number }

const cidrOf = ({ claims }: Group): Cidr => claims[0]!.cidr
/** A Node without an age may be older than any other. */
const elderOf = ({ pool, createdMs = -Infinity }: Claim): Elder => ({ pool, createdMs })

/** The oldest and the oldest of another pool: one of them is the strongest rival of any claim. */
function eldestOf(elders: readonly Elder[]): readonly Elder[] {
  const first = oldest(elders)
  const second = oldest(elders.filter(({ pool }) => pool !== first?.pool))
  return [first, second].filter((elder) => elder !== undefined)
}

const oldest = (elders: readonly Elder[]): Elder | undefined =>
  elders.length === 0 ? undefined : elders.reduce((a, b) => (b.createdMs < a.createdMs ? b : a))

function isOldest({ pool, createdMs }: Claim, rivals: readonly Elder[]): boolean {
  const rival = rivals.find((elder) => elder.pool !== pool)
  return rival === undefined || (createdMs !== undefined && createdMs < rival.createdMs)
}

/**
 * A prefix and one around it. Sorted prefixes nest, so what contains the current one is on the stack, which is never deeper
 * than an address has bits.
 */
function nestedPairs(sorted: readonly Group[]): readonly (readonly [inner: Group, outer: Group])[] {
  const pairs: [Group, Group][] = []
  const around: Group[] = []
  for (const group of sorted) {
    while (around.length > 0 && !overlaps(cidrOf(around.at(-1)!), cidrOf(group))) around.pop()
    pairs.push(...around.map((outer): [Group, Group] => [group, outer]))
    around.push(group)
  }
  return pairs
}

function sharedPrefix(group: Group): readonly PoolProblem[] {
  if (group.claims.length === 1) return []
  const claimed = `podCIDR ${cidrOf(group).text} is claimed by ${holders(group.claims)}`
  return group.eldest.length === 1
    ? [problem([group], `${claimed}: its pods may be looked for on the wrong node`)]
    : [problem([group], `${claimed}: ${verdict(group.granted, 'it', 'it')}`)]
}

function overlap(inner: Group, outer: Group): readonly PoolProblem[] {
  if (eldestOf([...inner.eldest, ...outer.eldest]).length === 1) return []
  const wider = `${cidrOf(outer).text} of ${holders(outer.claims)}`
  const lies = `podCIDR ${cidrOf(inner).text} of ${holders(inner.claims)} lies in ${wider}`
  const granted = [...inner.granted, ...outer.granted]
  return [problem([inner, outer], `${lies}: ${verdict(granted, 'either', 'its own')}`)]
}

function verdict(granted: readonly Claim[], none: string, own: string): string {
  if (granted.length === 0) return `none of them gets ${none}`
  return `${holders(granted)}, created first, ${granted.length === 1 ? 'keeps' : 'keep'} ${own}`
}

const problem = (groups: readonly Group[], message: string): PoolProblem => ({
  nodes: groups.flatMap(({ claims }) => claims.slice(0, HOLDERS_NAMED_MAX).map(({ node }) => node)),
  message: `${message}; give each node a podCIDR of its own`,
})

const HOLDERS_NAMED_MAX = 5

function holders(claims: readonly Claim[]): string {
  const named = claims.slice(0, HOLDERS_NAMED_MAX).map(({ node, pool }) => `node ${node} of pool ${pool}`)
  const rest = claims.length - named.length
  return [...named, ...(rest > 0 ? [`${rest} more`] : [])].join(' and ')
}
