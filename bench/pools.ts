// How soon is a mesh of 50 pools up, what does it weigh, and what does a change in one pool touch? A lab of the cloud and 49
// sites with a node each. Each site has interest in the cloud and in two others, as pings show; then one site's node gets
// another podCIDR, and its gateway begins anew with nothing: every other pair stays as it is.

import type { ChildProcess } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { ulaOf } from '../gateway/addresses.ts'
import { fetchStatus } from '../lib/net/status-client.ts'
import { ROUTE_TABLE } from '../lib/owned.ts'
import type { GatewayStatus, PathStatus } from '../lib/status.ts'
import { openLab, type Lab } from '../test/lab/lab.ts'
import { REMOVE_GATEWAY } from '../test/lab/matrix-arena.ts'
import { CLOUD, pathsOf } from '../test/lab/names.ts'
import { smallMachines } from '../test/lab/small-machines.ts'
import { withShortPath } from '../test/lab/supervisor.ts'
import { onlyNodeOf as nodeOf, siteNames, writeSites } from './harness/daemons-only.ts'
import type { Finding } from './harness/findings.ts'
import { wireguardGoOf } from './harness/memory.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { percentile } from './harness/statistics.ts'

const POOLS = 50
const ID = 'benchpools'
/** Beside the cloud: of those that come next, in a ring. */
const NEIGHBOURS = 2
const UP_WITHIN_MS = 300_000
const POLL_MS = 1_000
/** Interest is kept up by much less; every packet wakes two wireguard-go and two gateways. */
const PING_S = 5
/** Asking every gateway for all its paths takes them from their work: a look may take so much of the time, at the most. */
const LOOKING_SHARE = 0.1
const MOST_REST_MS = 10_000
/** Where a change is followed, whose time is told no more exactly. */
const CHANGE_REST_MS = 2_000
/** At rest is a mesh none of whose paths moves for so long. */
const REST_MS = 10_000
const REST_WITHIN_MS = 180_000
/** The site that changes. */
const CHANGED = 's7'
const CHANGE_WITHIN_MS = 60_000
const OLD_CIDR = '10.244.7.0/24'
const NEW_CIDR = '10.251.7.0/24'

export const question: Study = {
  kind: 'study',
  text: `How soon is a mesh of ${POOLS} pools up, and what does a change in one pool touch?`,
  rounds: 1,
  run,
}

const sites = siteNames(POOLS)
type Pair = readonly [from: string, to: string]
const PAIRS: readonly Pair[] = sites.flatMap((site, index): readonly Pair[] => [
  [site, CLOUD],
  ...Array.from({ length: NEIGHBOURS }, (_, n): Pair => [site, sites[(index + n + 1) % sites.length]!]),
])

async function run({ progress, signal }: StudyOptions): Promise<StudyReport> {
  const manifests = writeSites(sites, ['Pod', 'Service', 'EndpointSlice'])
  const pings: ChildProcess[] = []
  const inotifyInstances = raiseInotifyInstances()
  try {
    await using lab = await openLab({ id: ID, manifests, prepare: smallMachines, until: 'nodes' }, { signal, progress })
    await Promise.all(lab.topology.nodes.map(({ name }) => lab.stop(name, 'agent')))
    ownMachine(lab.pidOf(CLOUD, 'relay')!)
    const startMs = performance.now()
    pings.push(...[CLOUD, ...sites].map((site) => ping(lab, site)))
    const [up] = await Promise.all([
      untilUp(lab, progress, signal),
      lab.startGateways(progress),
      gatewayOf(lab, CLOUD, signal).then(ownMachine),
    ])
    progress(`${up.count} of ${PAIRS.length} pairs have a path after ${Math.round((up.atMs - startMs) / 1000)} s`)

    const gateways = [CLOUD, ...sites].map((pool) => lab.pidOf(nodeOf(pool), 'gateway')!)
    const memory = gateways.map(pssOf)
    const wireguard = wireguardGoOf(gateways).reduce((sum, pid) => sum + pssOf(pid), 0)
    const relay = pssOf(lab.pidOf(CLOUD, 'relay')!)

    await atRest(lab, progress, signal)
    const renumbered = await changeOf(lab, signal, async () => {
      const file = join(manifests, `pool-${CHANGED}.yaml`)
      writeFileSync(file, readFileSync(file, 'utf8').replaceAll(OLD_CIDR, NEW_CIDR))
      return await untilAll(async (pool) => (await routesOf(lab, pool)).includes(NEW_CIDR), signal)
    })
    progress(
      `${CHANGED} has another podCIDR: ${renumbered.told} gateways know after ${Math.round(renumbered.tookMs)} ms${named(renumbered.missing)}`,
    )
    for (const move of renumbered.others.slice(0, NAMED)) progress(move)
    await atRest(lab, progress, signal)
    const anew = await changeOf(lab, signal, async () => {
      const before = await statusOf(lab, CHANGED)
      await lab.stop(nodeOf(CHANGED), 'gateway')
      await lab.exec(nodeOf(CHANGED), ['sh', '-c', REMOVE_GATEWAY])
      await lab.startAgain(nodeOf(CHANGED), 'gateway')
      return await untilAll(async (pool) => hasPathTo(await statusOf(lab, pool), CHANGED, before), signal)
    })
    progress(`${CHANGED} began anew: its pairs have a path again after ${Math.round(anew.tookMs)} ms`)

    for (const move of anew.others.slice(0, NAMED)) progress(move)

    const value = (name: string, title: string, unit: Finding['unit'], figure: number, limit?: number): Finding => ({
      name,
      title,
      unit,
      value: figure,
      ...(limit !== undefined && { bound: { of: 'value', is: 'at most', limit } }),
    })
    return {
      findings: [
        value(
          'up',
          `pools: all ${PAIRS.length} pairs of interest have a path`,
          'ms',
          up.count === PAIRS.length ? up.atMs - startMs : Infinity,
          UP_WITHIN_MS,
        ),
        value('direct', 'pools: of them direct', 'pairs', up.direct),
        value('gatewayMemory', 'pools: memory of a gateway, median', 'MB', percentile(memory, 0.5)),
        value('gatewayMemoryMost', 'pools: memory of a gateway, the most', 'MB', Math.max(...memory)),
        value('wireguardMemory', 'pools: beside it, its wireguard-go processes, mean', 'MB', wireguard / POOLS),
        value('relayMemory', 'pools: memory of the relay', 'MB', relay),
        value('renumbered', 'pools: a podCIDR changed, known to all', 'ms', renumbered.tookMs, CHANGE_WITHIN_MS),
        value(
          'renumberedOthers',
          'pools: by that, paths touched between other pools',
          'pairs',
          renumbered.others.length,
          0,
        ),
        value('anew', 'pools: a gateway begins anew, its pairs have a path', 'ms', anew.tookMs, CHANGE_WITHIN_MS),
        value('anewOthers', 'pools: by that, paths touched between other pools', 'pairs', anew.others.length, 0),
      ],
      notes: [
        `pools: ${POOLS} pools, a gateway each, behind NATs that punch; the cloud has none; each wireguard-go runs Go code on one thread; memory is the proportional set size (PSS)`,
      ],
    }
  } finally {
    for (const child of pings) child.kill('SIGKILL')
    rmSync(manifests, { recursive: true })
    writeFileSync(INOTIFY_INSTANCES, inotifyInstances)
  }
}

const INOTIFY_INSTANCES = '/proc/sys/fs/inotify/max_user_instances'

/** Each wireguard-go needs one; a machine has room for those of some 40 gateways. @returns what it was before. */
function raiseInotifyInstances(): string {
  const inotifyInstances = readFileSync(INOTIFY_INSTANCES, 'utf8').trim()
  writeFileSync(INOTIFY_INSTANCES, String(Math.max(Number(inotifyInstances), 20 * POOLS)))
  return inotifyInstances
}

/** What all sites ask has more of the processors than one of them (autogroup of its session), as it has a machine of its own. */
function ownMachine(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/autogroup`, String(CLOUD_NICE))
  } catch {
    // A kernel without autogroup knows processes only.
    setPriority(pid, CLOUD_NICE)
  }
}
const CLOUD_NICE = -10

/** @returns the process, as soon as it is there. */
async function gatewayOf(lab: Lab, pool: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    const pid = lab.pidOf(nodeOf(pool), 'gateway')
    if (pid !== undefined) return pid
    await pause(POLL_MS / 10, undefined, { signal })
  }
}

/** Interest of a site: a packet to each peer now and then, for as long as the lab is. */
function ping(lab: Lab, pool: string): ChildProcess {
  const peers = PAIRS.filter(([from]) => from === pool).map(([, to]) => ulaOf(nodeOf(to)))
  const all = peers.map((address) => `ping -q -i ${PING_S} ${address} > /dev/null &`).join(' ')
  return lab.spawn(nodeOf(pool), ['sh', '-c', `${all} wait`], { stdio: 'ignore' })
}

async function untilUp(lab: Lab, progress: (line: string) => void, signal: AbortSignal) {
  const endMs = performance.now() + UP_WITHIN_MS
  let missing: readonly Pair[] = PAIRS
  for (let told = 0; ;) {
    const lookMs = performance.now()
    // Only those that had none are asked again, until nobody is left; then all are, for what is true at one moment.
    const paths = await pathsFrom(lab, new Set(missing.map(([from]) => from)))
    const rungOf = ([from, to]: Pair) => paths.get(from)?.get(to)?.rung
    const isUp = (pair: Pair) => !['none', 'cold', undefined].includes(rungOf(pair))
    const isWhole = missing === PAIRS
    missing = missing.filter((pair) => !isUp(pair))
    const count = PAIRS.length - missing.length
    if (count > told)
      progress(`${count} of ${PAIRS.length} pairs have a path${named(missing.map(([from, to]) => `${from} to ${to}`))}`)
    told = count
    const nowMs = performance.now()
    if (isWhole && (missing.length === 0 || nowMs > endMs))
      return { count, direct: PAIRS.filter((pair) => rungOf(pair) === 'direct').length, atMs: nowMs }
    if (missing.length === 0 || nowMs > endMs) {
      missing = PAIRS
      continue
    }
    const restMs = Math.max(POLL_MS, (nowMs - lookMs) / LOOKING_SHARE)
    await pause(Math.min(restMs, MOST_REST_MS), undefined, { signal })
  }
}

/** So many pairs or moves are named, at the most. */
const NAMED = 5
/** Those that are missing, where they are few. */
const named = (missing: readonly string[]): string =>
  missing.length === 0 || missing.length > NAMED ? '' : `; not ${missing.join(', ')}`

type PathsByPool = ReadonlyMap<string, ReadonlyMap<string, PathStatus>>

const allPaths = (lab: Lab): Promise<PathsByPool> => pathsFrom(lab, [CLOUD, ...sites])

async function pathsFrom(lab: Lab, pools: Iterable<string>): Promise<PathsByPool> {
  const found = new Map<string, ReadonlyMap<string, PathStatus>>()
  for (const pool of pools) {
    const status = await statusOf(lab, pool)
    if (status !== undefined) found.set(pool, new Map(status.paths.map((path) => [path.pool, path])))
  }
  return found
}

const statusOf = (lab: Lab, pool: string): Promise<GatewayStatus | undefined> =>
  withShortPath(pathsOf(lab.id).runDir(nodeOf(pool)), (directory) => fetchStatus(`${directory}/gateway.sock`)).then(
    (status) => status as GatewayStatus,
    () => undefined,
  )

const routesOf = async (lab: Lab, pool: string): Promise<string> =>
  (await lab.exec(nodeOf(pool), ['ip', 'route', 'show', 'table', String(ROUTE_TABLE)])).stdout

/** A pool without interest in the one that changed has nothing to wait for. */
function hasPathTo(status: GatewayStatus | undefined, changed: string, before: GatewayStatus | undefined): boolean {
  const wanted = before?.paths.some(({ pool, rung }) => pool === status?.pool && rung !== 'cold' && rung !== 'none')
  const path = status?.paths.find(({ pool }) => pool === changed)
  return wanted !== true || (path !== undefined && path.rung !== 'none' && path.rung !== 'cold')
}

/** What moves after this is moved by the change: relayed pairs that still become direct do so before. */
async function atRest(lab: Lab, progress: (line: string) => void, signal: AbortSignal): Promise<void> {
  const endMs = performance.now() + REST_WITHIN_MS
  for (let before = await allPaths(lab); ;) {
    await pause(REST_MS, undefined, { signal })
    const now = await allPaths(lab)
    const moved = movedBetween(before, now)
    if (moved.length === 0) return
    progress(`${moved.length} paths moved within ${REST_MS / 1000} s by themselves`)
    if (performance.now() > endMs) return
    before = now
  }
}

type Change = {
  readonly told: number
  readonly tookMs: number
  /** Paths between other pools that moved. */
  readonly others: readonly string[]
  /** Pools whose gateways did not know in time. */
  readonly missing: readonly string[]
}

/** @param change @returns to how many gateways it got, and when the last knew. */
async function changeOf(lab: Lab, signal: AbortSignal, change: () => Promise<Omit<Change, 'others'>>): Promise<Change> {
  const before = await allPaths(lab)
  const done = await change()
  await pause(POLL_MS, undefined, { signal })
  return { ...done, others: movedBetween(before, await allPaths(lab)) }
}

/** Which paths of two looks differ, in words; those of the site that changes do not count. */
function movedBetween(before: PathsByPool, after: PathsByPool): readonly string[] {
  const looks = [...before].flatMap(([pool, paths]) =>
    [...paths].flatMap(([to, path]) =>
      pool === CHANGED || to === CHANGED ? [] : [{ pool, path, now: after.get(pool)?.get(to) }],
    ),
  )
  // Times are told by the machine's clock, which may have been set between the looks: for all of them at once.
  const shifts = looks.flatMap(({ path, now }) => (now === undefined ? [] : [now.since - path.since]))
  const setMs = shifts.length === 0 ? 0 : percentile(shifts, 0.5)
  return looks.flatMap(({ pool, path, now }) => (isSame(path, now, setMs) ? [] : [moveText(pool, path, now)]))
}

function moveText(
  pool: string,
  { pool: to, rung, endpoint = 'nowhere' }: PathStatus,
  now: PathStatus | undefined,
): string {
  const before = `${pool} to ${to}: ${rung} at ${endpoint}`
  if (now === undefined) return `${before}, then nothing is told`
  return `${before}, then ${now.rung} at ${now.endpoint ?? 'nowhere'} (${now.history?.[0]?.why ?? 'no move'})`
}

/** Of two looks at one moment. */
const SAME_MS = 100

/** Not moved, and where it was. @param setMs by how much the clock was set meanwhile. */
const isSame = (before: PathStatus, after: PathStatus | undefined, setMs: number): boolean =>
  after !== undefined &&
  before.rung === after.rung &&
  before.endpoint === after.endpoint &&
  Math.abs(after.since - before.since - setMs) < SAME_MS

async function untilAll(isSo: (pool: string) => Promise<boolean>, signal: AbortSignal) {
  const startMs = performance.now()
  const others = [CLOUD, ...sites].filter((pool) => pool !== CHANGED)
  let missing = others
  while (missing.length > 0 && performance.now() < startMs + CHANGE_WITHIN_MS) {
    const lookMs = performance.now()
    const still: string[] = []
    // One after the other, and then a rest: the processors are the gateways'.
    for (const pool of missing) if (!(await isSo(pool))) still.push(pool)
    missing = still
    const tookMs = performance.now() - lookMs
    if (missing.length > 0) await pause(Math.min(tookMs / LOOKING_SHARE, CHANGE_REST_MS), undefined, { signal })
  }
  const tookMs = missing.length === 0 ? performance.now() - startMs : Infinity
  return { told: others.length - missing.length, tookMs, missing }
}

/** Proportional set size of a process, MB. */
function pssOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  return Number(/^Pss: +(\d+) kB$/m.exec(text)?.[1]) / 1024
}
