// Writes deploy/REFERENCE.md: each flag of the daemons, and each bound that protects one, as the code has them.
//   node deploy/reference.ts           writes it
//   node deploy/reference.ts --check   exits with 1 where it is out of date

import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { agentOptions } from '../agent/config.ts'
import { gatewayOptions } from '../gateway/config.ts'
import type { Options } from '../lib/config.ts'
import { OPTIONS as relayOptions } from '../relay/config.ts'
import { constantsIn, quantityText } from './constants.ts'
import { LIMITS } from './limits.ts'

const REPOSITORY = resolve(import.meta.dirname, '..')
const FILE = join(REPOSITORY, 'deploy/REFERENCE.md')
const DAEMONS: readonly (readonly [name: string, options: Options])[] = [
  ['agent', agentOptions],
  ['gateway', gatewayOptions],
  ['relay', relayOptions],
]

/** The whole text. @throws Error naming a limit that the code does not have. */
export function reference(): string {
  return [
    '# Configuration reference\n',
    'Made from the code by `node deploy/reference.ts`; a test compares the two.\n',
    'Each flag may also be given in the environment: `--state-dir` as `FULMAR_STATE_DIR`. The flag wins.\n',
    ...DAEMONS.map(([name, options]) => `## fulmar ${name}\n\n${flagTable(options)}`),
    '## Limits\n',
    'What comes from a network, from other daemons and from the objects of a cluster is bounded. These are not flags: beyond them something is refused, dropped or left out, and counted or said so, and the rest goes on.\n',
    ...LIMITS.map(({ title, rows }) => `### ${title}\n\n${limitTable(rows)}`),
  ].join('\n')
}

const flagTable = (options: Options): string =>
  table(
    ['Flag', 'Default', 'What it is'],
    Object.values(options).map(({ name, value, fallback, doc }) => [
      `\`--${name}${value === undefined ? '' : ` ${value}`}\``,
      fallback === undefined ? 'required' : fallback === '' ? '' : `\`${fallback}\``,
      doc,
    ]),
  )

function limitTable(rows: (typeof LIMITS)[number]['rows']): string {
  return table(
    ['Limit', 'Value', 'In'],
    rows.map(([what, path, name]) => {
      const value = constantsIn(readFileSync(join(REPOSITORY, path), 'utf8')).get(name)
      if (value === undefined) throw new Error(`${path} has no number ${name}: mend deploy/limits.ts`)
      return [what, quantityText(name, value), `[${path}](../${path})`]
    }),
  )
}

/** Markdown as oxfmt has it. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const cells = [head, ...rows].map((row) => row.map((cell) => cell.replaceAll('|', '\\|')))
  const widths = head.map((_, column) => Math.max(3, ...cells.map((row) => row[column]!.length)))
  const line = (row: readonly string[]): string => `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |\n`
  const [first, ...rest] = cells
  return [line(first!), line(widths.map((width) => '-'.repeat(width))), ...rest.map(line)].join('')
}

if (import.meta.main) {
  const text = reference()
  if (!process.argv.includes('--check')) writeFileSync(FILE, text)
  else if (readFileSync(FILE, 'utf8') !== text) {
    process.stderr.write('deploy/REFERENCE.md is out of date: node deploy/reference.ts\n')
    process.exitCode = 1
  }
}
