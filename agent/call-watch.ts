// Which endpoints leave TCP calls of this node unanswered, without a look at the calls that are well: two nft sets of when
// an endpoint was last sent a SYN, and when it last sent a SYN-ACK. Either is one look-up in the kernel for each connection,
// and nothing for each packet of it but a test of its flags. Pure.

import { NFT_TABLE_WATCH } from '../lib/owned.ts'
import type { Pool } from '../lib/k8s/pools.ts'
import { normalise, type Family } from '../lib/cidr.ts'
import type { Ages } from '../lib/net/nft-set.ts'

/** Elements live so long after their last packet. */
export const WATCH_MS = 10_000
/** Endpoints that are called at a time; there is no room for more, and they are not watched. */
const CALLED_MAX = 8192
/** An answer that takes longer is looked into; most clients wait for longer. */
const UNANSWERED_MS = 400
/** The kernel's clock ticks so coarsely, and two sets are read one after the other. */
const TICK_MS = 30

export const WATCH_FAMILIES = [
  { family: 4, word: 'ip', type: 'ipv4_addr' },
  { family: 6, word: 'ip6', type: 'ipv6_addr' },
] as const
export const setOf = (kind: 'called' | 'answered', family: Family): string => `${kind}${family}`

/** Where endpoints may be: pods of all nodes, and the nodes. */
export const watchedPrefixes = (pools: readonly Pool[]): readonly string[] =>
  pools.flatMap(({ nodes }) => nodes.flatMap(({ podCidrs, addresses }) => [...podCidrs, ...addresses]))

/** An nft script after which the table is gone, whether or not it was there. */
export const NO_WATCH_TABLE = `add table inet ${NFT_TABLE_WATCH}\ndelete table inet ${NFT_TABLE_WATCH}\n`

/** @returns an nft script that replaces the table in one transaction. */
export function watchTable(prefixes: readonly string[]): string {
  const canonical = [...new Set(prefixes.flatMap((prefix) => normalise(prefix) ?? []))]
  const sets = WATCH_FAMILIES.flatMap(({ family, type }) => {
    const own = canonical.filter((prefix) => prefix.includes(':') === (family === 6))
    const recent = `type ${type} . inet_service; flags dynamic,timeout; timeout ${WATCH_MS / 1000}s; size ${CALLED_MAX}`
    const elements = own.length === 0 ? '' : `elements = { ${own.join(', ')} }; `
    return [
      `set endpoints${family} { type ${type}; flags interval; auto-merge; ${elements}}`,
      `set ${setOf('called', family)} { ${recent}; }`,
      `set ${setOf('answered', family)} { ${recent}; }`,
    ]
  })
  // The flags stand before the addresses: all but a few packets of a connection go no further.
  const calls = WATCH_FAMILIES.map(
    ({ family, word }) => `${word} daddr @endpoints${family} update @called${family} { ${word} daddr . tcp dport }`,
  )
  const answers = WATCH_FAMILIES.map(
    ({ family, word }) => `${word} saddr @endpoints${family} update @answered${family} { ${word} saddr . tcp sport }`,
  )
  const hook = (name: string, at: string, flags: string, chain: string) =>
    `chain ${name} { type filter hook ${at}; policy accept; tcp flags & (fin | syn | rst | ack) == ${flags} jump ${chain}; }`
  const lines = [
    ...sets,
    ...['chain calls {', ...calls, '}'],
    ...['chain answers {', ...answers, '}'],
    hook('leaving', 'postrouting priority 90', 'syn', 'calls'),
    hook('arriving', 'input priority 90', 'syn', 'calls'),
    hook('back', 'prerouting priority -290', '(syn | ack)', 'answers'),
    hook('back-from-here', 'output priority 90', '(syn | ack)', 'answers'),
  ]
  return `${NO_WATCH_TABLE}table inet ${NFT_TABLE_WATCH} {\n${lines.map((line) => `  ${line}\n`).join('')}}\n`
}

type Waiting = { readonly sinceMs: number; readonly answeredMs: number }

/** What was seen unanswered, over several looks. */
export class Unanswered {
  #waiting: ReadonlyMap<string, Waiting> = new Map()

  /** @returns `address port` of those whose last calls have had no answer in time. */
  look(called: Ages, answered: Ages, nowMs: number): readonly string[] {
    const waiting = new Map<string, Waiting>()
    const late: string[] = []
    for (const [key, age] of called) {
      const calledMs = nowMs - age
      const answeredMs = nowMs - (answered.get(key) ?? Infinity)
      if (calledMs <= answeredMs + TICK_MS) continue
      const before = this.#waiting.get(key)
      // No answer came since the last look, to calls before it; a new answer begins the wait anew.
      const same = before !== undefined && !(answeredMs > before.answeredMs + 2 * TICK_MS)
      const sinceMs = same ? before.sinceMs : calledMs
      waiting.set(key, { sinceMs, answeredMs })
      if (nowMs - sinceMs >= UNANSWERED_MS) late.push(key)
    }
    this.#waiting = waiting
    return late
  }
}
