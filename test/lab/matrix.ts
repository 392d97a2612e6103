// `lab matrix`: a site behind each type of NAT, every pair of them tried again and again from nothing, and for each pair
// the path it should have beside the one it had, how soon, and what was lost.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Values } from '../../lib/config.ts'
import { runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import { openLab } from './lab.ts'
import { LIMIT_FULL_MINUTES, LIMIT_MINUTES, type MATRIX } from './matrix-options.ts'
import {
  ALL_SITES,
  describePart,
  IPV6_SITES,
  matrixManifests,
  pairsOf,
  roundsOf,
  type MatrixSites,
  type Part,
} from './matrix-plan.ts'
import { smallMachines } from './small-machines.ts'
import { contentionOf, faultsOf, renderPart, rowsOf } from './matrix-report.ts'
import { runPart, type PartResult } from './matrix-run.ts'
import { CLOUD, parsePoolName } from './names.ts'

export type MatrixValues = Values<typeof MATRIX>
export type MatrixResult = { readonly parts: readonly PartResult[]; readonly faults: readonly string[] }

/** @returns 0 if every pair was as it should be. */
export async function matrix(values: MatrixValues): Promise<number> {
  let code = 1
  await runUntilSignal(async (signal) => {
    const { parts, faults } = await runMatrix(values, say, signal)
    if (values.json)
      process.stdout.write(
        `${JSON.stringify({
          options: { ...values, sites: Object.fromEntries(values.sites) },
          parts: parts.map((result) => ({
            name: describePart(result.part),
            sites: Object.fromEntries(result.part.sites),
            rounds: result.rounds,
            tookMs: result.tookMs,
            busy: result.busy,
            busyByLab: result.busyByLab,
            pairs: rowsOf(result),
            trials: result.trials,
          })),
          faults,
        })}\n`,
      )
    else process.stdout.write(`${parts.map(renderPart).join('\n')}\n`)
    for (const note of parts.map(contentionOf)) if (note !== undefined) process.stderr.write(`${note}\n`)
    for (const fault of faults) process.stderr.write(`short of what it should be: ${fault}\n`)
    code = faults.length === 0 ? 0 : 1
  })
  return code
}

export async function runMatrix(
  values: MatrixValues,
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<MatrixResult> {
  const minutes = values.minutes || (values.full ? LIMIT_FULL_MINUTES : LIMIT_MINUTES)
  const deadline = Date.now() + minutes * 60_000
  const results: PartResult[] = []
  const faults: string[] = []
  const rounds = roundsOf(values.rounds, values.lossyRounds, values.loss)
  const planned = partsOf(values)
  for (const [index, part] of planned.entries()) {
    // What is left is shared by the parts that are left, by their pairs, so that none goes without.
    const pairs = planned.slice(index).map(({ sites }) => pairsOf(sites).length)
    const share = pairs[0]! / pairs.reduce((sum, count) => sum + count, 0)
    const until = Date.now() + (deadline - Date.now()) * share - CLOSING_MS
    const result = await runInLab(values, part, rounds, until, progress, signal)
    results.push(result)
    if (result.rounds < rounds.length)
      faults.push(
        `${describePart(part)}: time for ${result.rounds} of ${rounds.length} rounds only; give it --minutes, or fewer sites`,
      )
    faults.push(...rowsOf(result).flatMap((row) => faultsOf(row).map((fault) => `${describePart(part)}: ${fault}`)))
  }
  return { parts: results, faults }
}

/** For the round that is under way when time is up, and the end of the lab. */
const CLOSING_MS = 60_000

/**
 * A pair that has been tried must not take time from those that are tried next. But the sooner pairs are to go cold, the
 * more often gateways ask WireGuard for its counters.
 */
const COLD_AFTER_S = 4

async function runInLab(
  { id, atOnce }: MatrixValues,
  part: Part,
  rounds: ReturnType<typeof roundsOf>,
  deadline: number,
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<PartResult> {
  const { sites, underlay, firewall6 } = part
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-matrix-'))
  try {
    for (const [name, text] of matrixManifests(sites)) writeFileSync(join(folder, name), text)
    progress(
      `${describePart(part)}: ${[...sites].map(([name, nat]) => (name === nat ? name : `${name} (${nat})`)).join(', ')}`,
    )
    const gatewayFlags = ['--cold-after', String(COLD_AFTER_S)]
    const options = {
      id,
      underlay,
      firewall6,
      nat: sites,
      manifests: folder,
      gatewayFlags,
      prepare: smallMachines,
      until: 'nodes',
    } as const
    await using lab = await openLab(options, { signal, progress })
    // No pod here asks for a Service or a name, and each is on its pool's gateway: agents would only take time from it.
    await Promise.all(lab.topology.nodes.map(({ name }) => lab.stop(name, 'agent')))
    await lab.startGateways(progress)
    return await runPart(lab, part, { rounds, atOnce, deadline, progress, signal })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** @throws UsageError */
function partsOf({ full, sites, pools, underlay, firewall6 }: MatrixValues): readonly Part[] {
  const chosen = (fallback: MatrixSites): MatrixSites => {
    const all = sites.size > 0 ? sites : fallback
    const unknown = pools.filter((name) => !all.has(name))
    if (unknown.length > 0)
      throw new UsageError(`--pools ${unknown.join(',')}: no such site; the sites are ${[...all.keys()].join(', ')}`)
    const names = [...all.keys()].filter((name) => pools.length === 0 || pools.includes(name))
    for (const name of names) parseSiteName(name)
    if (names.length < 2) throw new UsageError('--pools: a pair takes two sites')
    return new Map(names.map((name) => [name, all.get(name)!]))
  }
  if (!full) return [{ underlay, firewall6, sites: chosen(underlay === 'v6' ? IPV6_SITES : ALL_SITES) }]
  return [
    { underlay: 'v4', firewall6: true, sites: chosen(ALL_SITES) },
    { underlay: 'v6', firewall6: true, sites: chosen(IPV6_SITES) },
    { underlay: 'v6', firewall6: false, sites: chosen(IPV6_SITES) },
  ]
}

function parseSiteName(name: string): void {
  try {
    if (name !== CLOUD) return void parsePoolName(name)
  } catch (cause) {
    throw new UsageError(`--nat: ${(cause as Error).message}`, { cause })
  }
  throw new UsageError(`--nat ${CLOUD}: that is where the relay is; choose another name`)
}

function say(line: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`)
}
