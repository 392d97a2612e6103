// What nft lists of the agent's table, for tests that compare what two ways have made.

import { execFileSync } from 'node:child_process'
import { listTable, readTable } from '../../agent/nft-observed.ts'
import type { Elements, Ruleset } from '../../agent/nft.ts'

const BYTES_MAX = 64 << 20
const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1)

/** Elements of all objects, in order, without classes that nobody uses any more. */
export function usedElements(wanted: Ruleset) {
  const json = execFileSync('nft', listTable(wanted.family), { encoding: 'utf8', maxBuffer: BYTES_MAX })
  const objects = readTable(json, wanted)?.loaded.listed ?? new Map<string, Elements>()
  return [...objects]
    .filter(([, elements]) => elements.size > 0)
    .map(([name, elements]) => [name, [...elements].sort(byKey)] as const)
    .sort(byKey)
}

/** Sets, maps, chains and rules, in order. */
export const objectsOf = ({ family }: Ruleset): readonly string[] =>
  execFileSync('nft', ['-t', 'list', 'table', family === 4 ? 'ip' : 'ip6', 'fulmar'], { encoding: 'utf8' })
    .split('\n\n')
    .sort()
