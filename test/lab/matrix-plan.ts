// What the matrix tries: which sites, every pair of them, and the rounds. Pure.

import { stringify } from 'yaml'
import { nodeOf } from './names.ts'
import { NAT_TYPES, type NatName } from './nat.ts'
import type { Underlay } from './plan.ts'

export type MatrixSites = ReadonlyMap<string, NatName>

/** A site of each type, one behind two NATs, and one whose mappings soon expire. */
export const ALL_SITES: MatrixSites = new Map<string, NatName>([
  ...NAT_TYPES.map((type) => [type, type] as const),
  ['double', 'port-restricted+port-restricted'],
  ['expire', 'port-restricted/expire=4s'],
])
/** Where nothing is translated, sites differ by their firewall only. */
export const IPV6_SITES: MatrixSites = new Map<string, NatName>([
  ['north', 'port-restricted'],
  ['south', 'symmetric'],
  ['double', 'port-restricted+port-restricted'],
  ['expire', 'port-restricted/expire=4s'],
  ['none', 'none'],
  ['udp-blocked', 'udp-blocked'],
])

/** One lab in which all pairs are tried. */
export type Part = { readonly underlay: Underlay; readonly firewall6: boolean; readonly sites: MatrixSites }

export const describePart = ({ underlay, firewall6 }: Part): string =>
  underlay === 'v4'
    ? 'IPv4'
    : `${underlay === 'v6' ? 'IPv6' : 'IPv4 and IPv6'}, ${firewall6 ? 'stateful firewalls' : 'no firewalls'}`

export type Pair = { readonly a: string; readonly b: string }
export type Round = {
  readonly number: number
  readonly lossPercent: number
  /** Which side sends first. */
  readonly initiator: 'a' | 'b'
  /** How much later the other side begins to send. */
  readonly staggerMs: number
  /** Whether direct paths are cut once they are there. */
  readonly withBreak: boolean
}

export function pairsOf(sites: MatrixSites): readonly Pair[] {
  const names = [...sites.keys()]
  return names.flatMap((a, index) => names.slice(index + 1).map((b) => ({ a, b })))
}

const STAGGERS_MS = [0, 400] as const
/** Odd, so that breaks fall on both initiators and staggers. */
const BREAK_EVERY = 5

/**
 * Each four without loss have both initiators with both staggers. Those that lose packets come in between, so that some
 * of each kind are done where time is short.
 */
export function roundsOf(whole: number, lossy: number, lossPercent: number): readonly Round[] {
  const all = whole + lossy
  const isLossy = (index: number) => Math.floor(((index + 1) * lossy) / all) > Math.floor((index * lossy) / all)
  const done = { whole: 0, lossy: 0 }
  return Array.from({ length: all }, (_, index) => {
    const loses = isLossy(index)
    const turn = loses ? done.lossy++ : done.whole++
    return {
      number: index + 1,
      lossPercent: loses ? lossPercent : 0,
      initiator: turn % 2 === 0 ? 'a' : 'b',
      staggerMs: STAGGERS_MS[(turn >> 1) % 2]!,
      withBreak: !loses && turn % BREAK_EVERY === 0,
    }
  })
}

/**
 * The order in which a round tries its pairs: another one each time, so that each pair has other neighbours.
 * @param random from 0 to 1.
 */
export function shuffled<T>(items: readonly T[], random: () => number): readonly T[] {
  const result = [...items]
  for (let last = result.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    ;[result[last], result[other]] = [result[other]!, result[last]!]
  }
  return result
}

/** Of the pairs that wait, the one whose sites have least to do. @param busy trials under way, by site. */
export function nextPair(waiting: readonly Pair[], busy: ReadonlyMap<string, number>): Pair | undefined {
  const load = ({ a, b }: Pair) => Math.max(busy.get(a) ?? 0, busy.get(b) ?? 0)
  return waiting.toSorted((one, other) => load(one) - load(other))[0]
}

/** The pod of a site between which and other sites' packets run. */
export const podOf = (pool: string): string => `${nodeOf(pool, 1)}-end`

/** Kubernetes objects by file name: a node with a pod per site, and no node in the cloud, where only the relay is. */
export function matrixManifests(sites: MatrixSites): ReadonlyMap<string, string> {
  return new Map(
    [...sites.keys()].map((pool, index) => {
      const node = nodeOf(pool, 1)
      const objects = [
        {
          apiVersion: 'apps.openyurt.io/v1beta2',
          kind: 'NodePool',
          metadata: { name: pool },
          spec: { type: 'Edge', interConnectivity: true },
        },
        {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name: node, labels: { 'apps.openyurt.io/nodepool': pool } },
          spec: { podCIDRs: [`10.244.${index + 1}.0/24`, `fd00:244:${index + 1}::/64`] },
        },
        {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: podOf(pool), namespace: 'default' },
          spec: { nodeName: node, containers: [{ name: 'end', image: 'end' }] },
        },
      ]
      return [`${pool}.yaml`, objects.map((object) => stringify(object)).join('---\n')]
    }),
  )
}
