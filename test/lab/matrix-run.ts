// Runs the rounds of one part of the matrix: in each round every pair is tried from nothing, some at a time.

import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lab } from './lab.ts'
import { cgroupRoot } from './machine.ts'
import { openArena, type Arena } from './matrix-arena.ts'
import { coreNft, cutRules, lengthOf, payloadOf } from './matrix-core.ts'
import { expectedPath, type ExpectedPath } from './matrix-expected.ts'
import { nextPair, pairsOf, shuffled, type Pair, type Part, type Round } from './matrix-plan.ts'
import { cgroupOf } from './names.ts'
import { firstArrivalMs, longestGapMs, lossesOf, pathOf, type Trial } from './matrix-trial.ts'

export type PartResult = {
  readonly part: Part
  readonly trials: readonly Trial[]
  readonly rounds: number
  readonly tookMs: number
  /** Share of the machine's processors that was in use, 0 to 1: by anything, and by the lab. */
  readonly busy: number
  readonly busyByLab: number
}

export type RunOptions = {
  readonly rounds: readonly Round[]
  readonly atOnce: number
  /** Unix milliseconds after which no further round begins. */
  readonly deadline: number
  readonly progress: (line: string) => void
  readonly signal: AbortSignal
}

const PER_SECOND = 100
const POLL_MS = 20
/** A pair that has not what it should have by then has not got it. */
const SETTLE_WITHIN_MS = 8_000
const SETTLE_WITHIN_LOSS_MS = 15_000
/** What was under way over the relay when the routes moved still arrives. */
const LATE_MS = 200
/** What is counted in the core, to say which way packets go, and what is watched for losses after a switch. */
const WATCH_MS = 500
const BREAK_WITHIN_MS = 6_000

export async function runPart(lab: Lab, part: Part, options: RunOptions): Promise<PartResult> {
  const { rounds, deadline, progress, signal } = options
  const startedAt = Date.now()
  const arena = await openArena(lab, part.sites)
  const trials: Trial[] = []
  let done = 0
  const before = processorTimes(lab.id)
  for (const round of rounds) {
    const roundAt = Date.now()
    if (done > 0 && roundAt > deadline) {
      progress(`no time is left for rounds ${round.number} to ${rounds.length}`)
      break
    }
    await arena.begin(round, signal)
    const begunMs = Date.now() - roundAt
    const tried = await runRound(arena, lab, part, round, options)
    trials.push(...tried)
    done++
    progress(describeRound(part, round, rounds.length, tried, begunMs, Date.now() - roundAt))
  }
  const after = processorTimes(lab.id)
  const share = (of: 'busyMs' | 'labMs') => (after[of] - before[of]) / Math.max(1, after.allMs - before.allMs)
  return {
    part,
    trials,
    rounds: done,
    tookMs: Date.now() - startedAt,
    busy: share('busyMs'),
    busyByLab: share('labMs'),
  }
}

async function runRound(
  arena: Arena,
  lab: Lab,
  part: Part,
  round: Round,
  { atOnce, signal }: RunOptions,
): Promise<readonly Trial[]> {
  const waiting = [...shuffled(pairsOf(part.sites), Math.random)]
  const underWay = new Map<string, number>()
  const trials: Trial[] = []
  const worker = async (slot: number): Promise<void> => {
    for (let pair = nextPair(waiting, underWay); pair !== undefined; pair = nextPair(waiting, underWay)) {
      signal.throwIfAborted()
      waiting.splice(waiting.indexOf(pair), 1)
      for (const pool of [pair.a, pair.b]) underWay.set(pool, (underWay.get(pool) ?? 0) + 1)
      trials.push(await tryPair(arena, lab, part, pair, round, slot))
      for (const pool of [pair.a, pair.b]) underWay.set(pool, underWay.get(pool)! - 1)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, (_, slot) => worker(slot)))
  return trials
}

let trialNumber = 0

async function tryPair(
  arena: Arena,
  lab: Lab,
  { sites, underlay, firewall6 }: Part,
  pair: Pair,
  round: Round,
  slot: number,
): Promise<Trial> {
  const { a, b } = pair
  const trial = ++trialNumber
  const expected = expectedPath(sites.get(a)!, sites.get(b)!, underlay, firewall6)
  const [first, second] = round.initiator === 'a' ? [a, b] : [b, a]
  const start = (from: string, to: string): void => {
    const peer = arena.ends.get(to)!.address
    const bytes = payloadOf(slot, peer.includes(':') ? 6 : 4)
    arena.ends.get(from)!.order({ kind: 'start', trial, peer, bytes, perSecond: PER_SECOND })
  }
  const [outsideA, outsideB] = [arena.outsideOf(a), arena.outsideOf(b)]

  const startedAt = Date.now()
  start(first, second)
  if (round.staggerMs > 0) await sleep(round.staggerMs)
  start(second, first)
  const withinMs = round.lossPercent > 0 ? SETTLE_WITHIN_LOSS_MS : SETTLE_WITHIN_MS
  await waitUntil(() => isSettled(arena, pair, expected), startedAt + withinMs)
  await sleep(LATE_MS)
  const before = await arena.sample()
  await sleep(WATCH_MS)
  const after = await arena.sample()
  const said = saidOf(arena, pair)

  let cutAt: number | undefined
  if (round.withBreak && said.every((rung) => rung === 'direct')) {
    await coreNft(lab.topology, cutRules('add', outsideA, outsideB))
    cutAt = Date.now()
    await waitUntil(() => saidOf(arena, pair).every((rung) => rung !== 'direct'), cutAt + BREAK_WITHIN_MS)
    await sleep(LATE_MS)
  }
  const [endA, endB] = [arena.ends.get(a)!, arena.ends.get(b)!]
  const hushedAt = Date.now()
  for (const end of [endA, endB]) end.order({ kind: 'hush', trial })
  await sleep(LATE_MS)
  const [streamA, streamB] = await Promise.all([endA.report(trial), endB.report(trial)])
  if (cutAt !== undefined) await coreNft(lab.topology, cutRules('delete', outsideA, outsideB))

  const ways = [
    { from: streamA, to: streamB },
    { from: streamB, to: streamA },
  ]
  // The cut falls somewhere while it is being made; what leaves then may be lost to it.
  const losses = ways.map(({ from, to }) => lossesOf(from, to, (cutAt ?? hushedAt) - CUT_TAKES_MS))
  const sum = (of: 'sent' | 'lost' | 'lostBefore') => losses.reduce((total, each) => total + each[of], 0)
  const arrivals = ways.map(({ to }) => firstArrivalMs(to)).filter((at) => at !== undefined)
  const settledAt = [
    [a, b],
    [b, a],
  ].map(([from, to]) => arena.movesOf(from!, to!).find(({ rung }) => rung === expected)?.at)
  return {
    pair,
    round,
    path: pathOf(before, after, lengthOf(slot), outsideA, outsideB, arrivals.length > 0),
    said,
    relayedMs: arrivals.length === 0 ? undefined : Math.max(0, Math.min(...arrivals) - startedAt),
    settledMs: settledAt.includes(undefined) ? undefined : Math.max(0, ...settledAt.map((at) => (at ?? 0) - startedAt)),
    sent: sum('sent'),
    lost: sum('lost'),
    lostBefore: sum('lostBefore'),
    outageMs:
      cutAt === undefined
        ? undefined
        : Math.max(...ways.map(({ to }) => longestGapMs(to, cutAt - CUT_TAKES_MS, hushedAt))),
  }
}

/** From before nft starts until the core's rules are changed. */
const CUT_TAKES_MS = 200

function saidOf(arena: Arena, { a, b }: Pair): readonly [string, string] {
  const last = (from: string, to: string) => arena.movesOf(from, to).at(-1)?.rung ?? 'none'
  return [last(a, b), last(b, a)]
}

/** A pair that should be relayed is so when it has the rung that it should keep. */
function isSettled(arena: Arena, pair: Pair, expected: ExpectedPath): boolean {
  const said = saidOf(arena, pair)
  return said.every((rung) => rung === 'direct') || said.every((rung) => rung === expected)
}

async function waitUntil(isSo: () => boolean, endsAt: number): Promise<void> {
  while (!isSo() && Date.now() < endsAt) await sleep(POLL_MS)
}

type ProcessorTimes = { readonly allMs: number; readonly busyMs: number; readonly labMs: number }

function processorTimes(id: string): ProcessorTimes {
  const times = cpus().map((cpu) => cpu.times)
  const allMs = times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0)
  const stat = readFileSync(join(cgroupRoot(), cgroupOf(id), 'cpu.stat'), 'utf8')
  const labMs = Number(/^usage_usec (\d+)$/m.exec(stat)?.[1]) / 1000
  return { allMs, busyMs: allMs - times.reduce((sum, { idle }) => sum + idle, 0), labMs }
}

function describeRound(
  { sites, underlay, firewall6 }: Part,
  { number, lossPercent, initiator, staggerMs }: Round,
  rounds: number,
  trials: readonly Trial[],
  begunMs: number,
  tookMs: number,
): string {
  const wrong = trials.filter(
    ({ pair, path }) => path !== expectedPath(sites.get(pair.a)!, sites.get(pair.b)!, underlay, firewall6),
  )
  const names = wrong.map(({ pair: { a, b }, path }) => `${a} ↔ ${b} ${path}`)
  return [
    `round ${number} of ${rounds} (${initiator} first, the other ${staggerMs} ms later, ${lossPercent} % loss):`,
    `${trials.length - wrong.length} of ${trials.length} pairs as expected,`,
    `${trials.reduce((sum, { lost }) => sum + lost, 0)} packets lost;`,
    `${seconds(tookMs)}, ${seconds(begunMs)} of it to begin anew`,
    names.length === 0 ? '' : `; not as expected: ${names.join(', ')}`,
  ]
    .join(' ')
    .replace(' ;', ';')
    .trimEnd()
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
