// Keeps the socket load balancer's maps equal to what the chooser says, its programs attached, and its lease renewed, and
// says whether it or nft serves. nft holds all services below it, so whatever goes wrong here ends in one thing: the
// programs step aside.

import { join, relative } from 'node:path'
import { cgroupMount, groupId, machineGroup } from '../lib/bpf/hook-point.ts'
import type { BpfMap } from '../lib/bpf/map.ts'
import { makePinFolder, removePin, removePins } from '../lib/bpf/pins.ts'
import type { Log } from '../lib/log.ts'
import { tick } from '../lib/net/lifetime.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import type { SortedList } from '../lib/sorted-list.ts'
import type { ServiceFrontends } from './balance.ts'
import { entriesOf, type EntriesOptions } from './socket-lb.ts'
import { openCanary, type Canary } from './socket-lb-canary-loop.ts'
import { canRefuse, Generation, keptMaps, Links, pinKept, strangePins } from './socket-lb-generation-loop.ts'
import { capacityFor, Ledger, type EntriesOf } from './socket-lb-ledger.ts'
import { EXCLUDED_GROUPS_MAX, EXCLUDED_LEVELS } from './socket-lb-records.ts'

export type ServicePath = 'auto' | 'bpf' | 'nft' | 'none'
export type SocketLbOptions = {
  /** `nft` and `none` take away what an earlier agent attached; `bpf` makes a problem of what `auto` only gives as reason. */
  readonly mode: ServicePath
  /** Why services are left to another proxy, if they are: then nothing is attached. */
  readonly leftTo?: () => string | undefined
  /** Folder of the cgroup2 group whose processes are served; undefined for the whole machine. */
  readonly group: string | undefined
  /** For pins, in a BPF file system. */
  readonly folder: string
  /** undefined before the cluster is known: then what a predecessor attached stays as it is, while its lease holds. */
  readonly services: () => SortedList<ServiceFrontends> | undefined
  /** The node's own addresses that serve NodePorts. */
  readonly nodeAddresses: () => readonly string[]
  /** Addresses that only nft serves, since it leads them elsewhere while something lives. */
  readonly except: () => readonly string[]
  /**
   * Folders of groups whose processes are left to nft, such as pods that a sidecar intercepts: its rules match the
   * ClusterIP, so it must not be gone before they see it. Up to EXCLUDED_GROUPS_MAX, asked for every second.
   */
  readonly excludedGroups: () => readonly string[]
  readonly log: Log
}
export type SocketLb = {
  /** The services, or what the other functions say, changed. */
  readonly trigger: () => void
  /** Resolves once everything triggered so far is in the kernel and proven, or found wanting by the canary. */
  readonly idle: () => Promise<void>
  /** What serves TCP calls of this node's processes now, `none` where nothing of ours does, and why not BPF, if it does not. */
  readonly path: () => { readonly kind: 'bpf' | 'nft' | 'none'; readonly reason: string }
  readonly problems: () => readonly string[]
  /** Resolves after the signal aborted; what is pinned goes on, for as long as the lease holds. */
  readonly done: Promise<void>
}

/**
 * The programs serve for so long after the agent's last sign of life. What they hold is as old as what nft holds, so that
 * haste would gain nothing: a restart or an upgrade, with the first back-offs of a kubelet, passes unnoticed. After that
 * nobody seems to come back, and what else serves this node's services must not be hidden.
 */
const LEASE_MS = 30_000
const BEAT_MS = 1_000
/** The canary costs a connection over loopback. */
const CANARY_INTERVAL_MS = 10_000
/** One that did not arrive may be the fault of a busy machine. */
const CANARY_TRIES = 2
/** Programs that took the place of proven ones serve for so long before they are proven themselves. */
const PROBATION_MS = 2_000
const BACKOFF = { baseMs: 1_000, capMs: 60_000 }
const NS_PER_MS = 1_000_000n

export function runSocketLb(options: SocketLbOptions, signal: AbortSignal): SocketLb {
  if (options.mode === 'nft' || options.mode === 'none') return switchedOff(options, options.mode)
  const { mode, folder, log, leftTo = () => undefined } = options

  let reason = 'it has not begun yet'
  let serving = false
  let pinProblem: string | undefined
  let canary: Canary | undefined
  let hold: Hold | undefined
  let current: Current | undefined
  let left = false
  /** What the maps hold is not known, or their programs are not attached. */
  let broken = false
  let provenAt = 0
  let proving: Promise<void> | undefined
  let ended = (): void => undefined
  const done = new Promise<void>((resolve) => (ended = resolve))

  const pass = async (): Promise<void> => {
    const other = leftTo()
    left = other !== undefined
    if (other !== undefined) return letGo(other)
    const services = options.services()
    if (services === undefined) return
    hold ??= await takeHold()
    const context = contextOf(options)
    if (current === undefined || broken) renew(services, context, hold)
    else {
      if (current.context.key !== context.key) current = { ...current, ...reading(hold, context) }
      const writes = current.ledger.plan(services, current.entriesOf, performance.now())
      if (writes === undefined) renew(services, context, hold)
      else current.generation.apply(writes)
      if (!hold.links.complete) hold.links.attach(current.generation.programs)
      pinKept(hold.kept, hold.pins)
    }
    if (!serving) await prove()
  }

  /** What stays from generation to generation. */
  const takeHold = async (): Promise<Hold> => {
    // First what costs nothing, since it is asked again and again where BPF cannot be had.
    const group = options.group ?? machineGroup()
    const refuse = canRefuse()
    pinProblem = await makePinFolder(folder).then(
      () => undefined,
      (error: Error) => `BPF links cannot be pinned and end with the agent: ${error.message}`,
    )
    const pins = pinProblem === undefined ? folder : undefined
    canary ??= await openCanary(signal)
    const kept = keptMaps(pins)
    try {
      return { kept, links: new Links(group, pins), canary, pins, refuse }
    } catch (error) {
      kept.forEach((map) => map.close())
      throw error
    }
  }

  /** Nothing stays attached, of a predecessor neither. */
  const letGo = (other: string): void => {
    if (reason !== other) log.warn({ reason: other }, 'BPF does not serve: services are left to another proxy')
    serving = false
    reason = other
    hold?.links.detach()
    close()
    removePins(folder)
  }
  const close = (): void => {
    current?.generation.close()
    hold?.links.close()
    hold?.kept.forEach((map) => map.close())
    current = undefined
    hold = undefined
  }

  /** All anew: maps, programs, what they hold; then they take the place of what is attached. */
  const renew = (services: SortedList<ServiceFrontends>, context: Context, from: Hold): void => {
    const startedAt = performance.now()
    const { canary, kept, links, pins, refuse } = from
    const { entriesOf } = reading(from, context)
    const capacity = capacityFor(canary.entries, services, entriesOf)
    const generation = new Generation(capacity, kept, { refuse })
    try {
      const ledger = new Ledger(capacity, canary.entries)
      generation.apply(ledger.plan(services, entriesOf, startedAt)!)
      exclude(generation)
      // Those of a predecessor were proven by it.
      const trusted = serving || links.complete
      generation.lease(trusted ? inMs(PROBATION_MS) : 0n, inMs(LEASE_MS))
      links.attach(generation.programs)
      for (const name of pins === undefined ? [] : strangePins(pins)) removePin(join(pins!, name))
      current?.generation.close()
      current = { generation, ledger, context, entriesOf }
      broken = false
      serving = false
      const durationMs = Math.round(performance.now() - startedAt)
      log.info({ places: ledger.size, durationMs, group: links.group }, 'the socket load balancer is attached')
    } catch (error) {
      generation.close()
      throw error
    }
  }

  /** One flight at a time. */
  const prove = (): Promise<void> =>
    (proving ??= fly().finally(() => {
      proving = undefined
    }))
  const fly = async (): Promise<void> => {
    let problem: string | undefined
    for (let i = 0; i < CANARY_TRIES; i++) {
      problem = await canary!.fly()
      if (problem === undefined) break
    }
    provenAt = performance.now()
    if (signal.aborted || current === undefined) return
    if (problem === undefined) {
      if (!serving) log.info('BPF serves')
      serving = true
      reason = ''
      current.generation.lease(inMs(LEASE_MS), inMs(LEASE_MS))
    } else stepAside(problem)
  }

  const stepAside = (problem: string): void => {
    if (serving || reason !== problem) log.warn({ reason: problem }, 'BPF does not serve; nft does')
    serving = false
    reason = problem
    try {
      current?.generation.lease(0n, inMs(LEASE_MS))
    } catch (err) {
      log.warn({ err }, 'the lease of the socket load balancer cannot be ended; it lapses')
    }
  }

  const upkeep = createUpkeep(
    {
      pass,
      onError: (error) => {
        broken = true
        stepAside((error as Error).message)
      },
      onEnd: () => {
        close()
        ended()
      },
      coalesceMs: 0,
      backoff: BACKOFF,
    },
    signal,
  )

  const beat = (): void => {
    if (current === undefined || hold === undefined || broken || signal.aborted) return
    try {
      exclude(current.generation)
      current.generation.lease(serving ? inMs(LEASE_MS) : 0n, inMs(LEASE_MS))
      if (!hold.links.check() || contextOf(options).key !== current.context.key) upkeep.trigger()
      else if (performance.now() - provenAt > CANARY_INTERVAL_MS) void prove()
    } catch (error) {
      broken = true
      stepAside((error as Error).message)
      upkeep.trigger()
    }
  }
  const exclude = (generation: Generation): void =>
    generation.exclude(
      options
        .excludedGroups()
        .flatMap((group) => excludedGroup(group) ?? [])
        .slice(0, EXCLUDED_GROUPS_MAX),
    )

  const keepBeating = async (): Promise<void> => {
    while (!signal.aborted) {
      await tick(BEAT_MS, signal)
      beat()
    }
  }
  void keepBeating()
  upkeep.trigger()

  return {
    trigger: upkeep.trigger,
    idle: upkeep.idle,
    path: () => ({ kind: left ? 'none' : serving ? 'bpf' : 'nft', reason }),
    problems: () => [
      ...(mode === 'bpf' && !serving ? [`nft serves the services and not BPF, as is wanted: ${reason}`] : []),
      ...(serving && pinProblem !== undefined ? [pinProblem] : []),
    ],
    done,
  }
}

type Hold = {
  readonly canary: Canary
  readonly kept: readonly BpfMap[]
  readonly links: Links
  /** The folder of pins; undefined where there can be none. */
  readonly pins: string | undefined
  /** Calls can be refused; else frontends without targets are left to nft. */
  readonly refuse: boolean
}
type Context = Pick<EntriesOptions, 'nodeAddresses' | 'except'> & { readonly key: string }
type Current = {
  readonly generation: Generation
  readonly ledger: Ledger
  readonly context: Context
  /** The same function for as long as the context is the same. */
  readonly entriesOf: EntriesOf
}

function contextOf({ nodeAddresses, except }: SocketLbOptions): Context {
  const [own, others] = [nodeAddresses(), except()]
  return { key: JSON.stringify([own, others]), nodeAddresses: own, except: new Set(others) }
}

function reading({ refuse }: Hold, context: Context): Pick<Current, 'context' | 'entriesOf'> {
  return { context, entriesOf: (service) => entriesOf(service, { ...context, refuse }) }
}

/** undefined if there is no such group any more, or it lies too deep to be seen. */
function excludedGroup(folder: string): { readonly id: bigint; readonly level: number } | undefined {
  const level = relative(cgroupMount(), folder).split('/').length
  if (level > EXCLUDED_LEVELS) return undefined
  try {
    return { id: groupId(folder), level }
  } catch {
    return undefined
  }
}

/** CLOCK_MONOTONIC, as programs read it. */
const inMs = (ms: number): bigint => process.hrtime.bigint() + BigInt(ms) * NS_PER_MS

function switchedOff({ folder, log }: SocketLbOptions, kind: 'nft' | 'none'): SocketLb {
  const problems: string[] = []
  try {
    const removed = removePins(folder)
    if (removed.length > 0) log.info({ removed }, 'the socket load balancer is detached')
  } catch (err) {
    problems.push(`what an earlier agent attached in ${folder} cannot be removed: ${(err as Error).message}`)
  }
  return {
    trigger: () => undefined,
    idle: () => Promise.resolve(),
    path: () => ({ kind, reason: `it is told to be ${kind}` }),
    problems: () => problems,
    done: Promise.resolve(),
  }
}
