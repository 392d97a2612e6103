// What `fulmar paths` and `fulmar status` tell of the paths of one gateway: a line for each pair of pools, and of one pair
// the whole story: both NATs, every candidate with what came of it, the last moves, and what a better path would take.

import { natText } from './nat-text.ts'
import type { CandidateStatus, GatewayStatus, PathStatus } from './status.ts'
import { durationText, LINE_WIDTH, millisecondsText, paragraph, renderTable } from './text-table.ts'

/** Every pair of a gateway, a row each. @param nowMs Unix time, against which all ages are shown. */
export function renderPaths({ node, pool, paths }: GatewayStatus, nowMs: number, width = LINE_WIDTH): string {
  const title = `Paths of pool ${pool}, from its gateway on ${node}\n`
  if (paths.length === 0) return `${title}  none: no other pool is known, or this gateway stands by\n`
  const rows = paths
    .toSorted((a, b) => (a.pool < b.pool ? -1 : a.pool > b.pool ? 1 : Number(!!a.standby) - Number(!!b.standby)))
    .map((path) => [
      path.standby ? `${path.pool} (${path.node}, standby)` : path.pool,
      path.rung,
      ...qualityCells(path, path.since, nowMs),
      path.reason || '-',
    ])
  const columns = [
    { title: 'TO POOL' },
    { title: 'PATH' },
    ...QUALITY_COLUMNS,
    { title: 'WHY NOT BETTER', overflow: 'cut' },
  ] as const
  return title + renderTable(columns, rows, '  ', width)
}

/** How long a path has been as it is, and how good it is; for tables with rows of `qualityCells`. */
export const QUALITY_COLUMNS = [
  { title: 'SINCE' },
  { title: 'RTT', align: 'right' },
  { title: 'LOSS', align: 'right' },
  { title: 'PEER AT' },
] as const

/** @param since Unix milliseconds. */
export const qualityCells = (path: PathStatus, since: number, nowMs: number): readonly string[] => [
  durationText(nowMs - since),
  path.rttMs === undefined ? '-' : millisecondsText(path.rttMs),
  lossText(path),
  path.endpoint ?? '-',
]

/** The whole story of one pair. */
export function renderPath(gateway: GatewayStatus, path: PathStatus, nowMs: number, width = LINE_WIDTH): string {
  const { node, pool } = gateway
  const facts = [
    path.rttMs === undefined ? undefined : `RTT ${millisecondsText(path.rttMs)}`,
    path.loss === undefined ? undefined : `loss ${lossText(path)}`,
    path.mtu === undefined ? undefined : `packets of up to ${path.mtu} bytes`,
    path.endpoint === undefined ? undefined : `peer at ${path.endpoint}`,
  ].filter((fact) => fact !== undefined)
  return [
    `${pool} → ${path.pool}: ${path.rung} for ${durationText(nowMs - path.since)} (${node} → ${path.node}${path.standby ? ', which stands by' : ''})\n`,
    facts.length === 0 ? '' : `  ${facts.join(', ')}\n`,
    ownLines(gateway, '  ', width),
    pathStory(pool, path, nowMs, '  ', width),
  ].join('')
}

const titled = (indent: string, title: string, text: string, width: number): string =>
  paragraph(`${indent}${title.padEnd(TITLE_WIDTH)}`, indent + ' '.repeat(TITLE_WIDTH), text, width)

/** What is the same for all pairs of a gateway. */
function ownLines({ nat, candidates = [] }: GatewayStatus, indent: string, width: number): string {
  const told = candidates.map(({ kind, address }) => `${address} (${kind})`).join(', ')
  return (
    titled(indent, 'NAT here', natText(nat), width) + (told === '' ? '' : titled(indent, 'told peers', told, width))
  )
}

/** What stands behind a path, in lines of their own. @param from our pool. */
export function pathStory(from: string, path: PathStatus, nowMs: number, indent: string, width = LINE_WIDTH): string {
  const line = (title: string, text: string): string => titled(indent, title, text, width)
  const below = (lines: readonly string[]): string => lines.map((text) => `${indent}  ${text}`).join('')
  const { reason, peerNat, remedies, history = [] } = path
  return [
    peerNat === undefined ? '' : line('NAT there', natText(peerNat)),
    reason === '' ? '' : line('why', reason),
    path.candidates.length === 0
      ? ''
      : `${indent}tried at ${path.pool}\n${below(candidateLines(path.candidates, `${indent}  `, width))}`,
    history.length === 0 ? '' : `${indent}last moves of ${from} → ${path.pool}\n`,
    ...history.map(({ at, rung, why }) =>
      paragraph(
        `${indent}  ${`${durationText(nowMs - at)} ago`.padEnd(AGO_WIDTH)}${rung.padEnd(RUNG_WIDTH)}`,
        `${indent}  ${' '.repeat(AGO_WIDTH + RUNG_WIDTH)}`,
        why,
        width,
      ),
    ),
    remedies === undefined || remedies.steps.length === 0
      ? ''
      : `${indent}for a better path${remedies.steps.length === 1 ? '' : remedies.need === 'one' ? ', one of' : ', all of'}\n`,
    ...(remedies?.steps ?? []).map((step) => paragraph(`${indent}  - `, `${indent}    `, step, width)),
  ].join('')
}

const TITLE_WIDTH = 12
const AGO_WIDTH = 11
const RUNG_WIDTH = 11

const candidateLines = (candidates: readonly CandidateStatus[], indent: string, width: number): readonly string[] =>
  renderTable(
    [{ title: '' }, { title: '' }, { title: '', overflow: 'wrap' }],
    candidates.map(({ address, kind, result }) => [address, kind, result]),
    '',
    width - indent.length,
  )
    .split(/(?<=\n)/)
    .slice(1)

const lossText = ({ loss }: PathStatus): string =>
  loss === undefined ? '-' : loss > 0 && loss < 0.01 ? '<1 %' : `${Math.round(loss * 100)} %`
