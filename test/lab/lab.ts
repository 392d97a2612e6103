// A lab in code, for tests, the demo and the benches: opened, used and closed by one process, which is its supervisor.
//
//   await using lab = await openLab({ id: 't1', pools: ['north', 'south'] }, { signal })
//   const { stdout } = await lab.exec('north1-client', ['curl', '-s', 'http://web-south.shop/'])

import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { EventEmitter } from 'node:events'
import { mkdirSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { UsageError } from '../../lib/net/lifetime.ts'
import { buildHosts, makeFolder } from './build.ts'
import { daemonsOf, labelsOf, valuesOf } from './chart.ts'
import { cut, heal, readCuts, type CutsByPool } from './cuts.ts'
import type { DaemonName } from './daemons.ts'
import { execAt, placeOf, spawnApart, type Output } from './enter.ts'
import { readFolder } from './folder.ts'
import { renderChart } from './helm.ts'
import { imageRoot } from './image.ts'
import { cgroupRoot, checkMachine } from './machine.ts'
import { followNodes, followVolumes } from './kubelets.ts'
import { Kubernetes } from './kubernetes.ts'
import { generateManifests } from './manifests.ts'
import { parseId, pathsOf } from './names.ts'
import type { Cut } from './nat.ts'
import { DEFAULT_NODES, generatedPools, type LabOptions } from './options.ts'
import { FULMAR, SHOP } from './paths.ts'
import {
  reportNodes,
  startGateways,
  startKubelets,
  startNodes,
  startPods,
  type Chart,
  type StartOptions,
} from './start.ts'
import { takeLock, writeState, type LabState } from './state.ts'
import { readStatus, type LabStatus } from './status.ts'
import { appendEvent, Supervisor, type Change, type LabEvent } from './supervisor.ts'
import { removeEmptyFolder, removeLab, takeDown } from './teardown.ts'
import { planTopology, type Topology } from './topology.ts'
import { warmCompileCache } from './warm.ts'

export type { LabEvent, LabOptions, LabStatus, Output, Topology }

export type OpenOptions = {
  /** Ends the start; an opened lab is ended by `close`. */
  readonly signal?: AbortSignal | undefined
  /** Called with a line for each thing that is done. */
  readonly progress?: ((line: string) => void) | undefined
}
export type ExecOptions = { readonly input?: string; readonly timeoutMs?: number; readonly signal?: AbortSignal }
type LabEvents = { readonly event: [LabEvent] }

/**
 * Makes a lab and starts what runs in it. Rubble of a dead lab of the same id is removed first.
 * @throws UsageError for what cannot be, a living lab of the same id included; whatever was made is removed again.
 */
export async function openLab(
  options: LabOptions = {},
  { signal = new AbortController().signal, progress = () => {} }: OpenOptions = {},
): Promise<Lab> {
  const startedAt = Date.now()
  const id = parseId(options.id ?? 'lab')
  await checkMachine()
  const owner = takeLock(id)
  if (owner !== undefined)
    throw new UsageError(
      `--id ${id}: this lab is up (process ${owner.pid}); choose another --id, or end it with: npm run lab -- down --id ${id}`,
    )
  const stopping = new AbortController()
  const starting = AbortSignal.any([signal, stopping.signal])
  let lab: Lab | undefined
  try {
    await removeLab(id)
    await makeFolder(id)
    starting.throwIfAborted()
    const manifests = manifestsOf(id, options)
    const topology = planTopology(readFolder(manifests), {
      id,
      underlay: options.underlay ?? 'v4',
      overlapLans: options.overlapLans ?? false,
      splitLans: options.splitLans,
      firewall6: options.firewall6 ?? true,
      nat: options.nat ?? new Map(),
      order: options.pools,
      gateways: options.gateways,
      relays: options.relays,
    })
    checkPools(topology, options)
    for (const problem of topology.problems) progress(problem)
    const chart = options.fromChart === true ? chartOf(topology, options, progress) : undefined
    chart?.catch(() => {})
    const state: LabState = { state: 'starting', startedAt, topology, manifests }
    writeState(id, state)
    await Promise.all([buildHosts(topology, starting), options.until === 'hosts' ? undefined : warmCompileCache()])
    progress(describe(topology))
    lab = new Lab(topology, manifests, options, await chart)
    await options.prepare?.(lab)
    await unlessAborted(lab.start(options.until ?? 'all', progress, starting), starting)
    writeState(id, { ...state, state: 'running', startMs: Date.now() - startedAt })
    progress(`lab ${id} runs`)
    return lab
  } catch (error) {
    stopping.abort()
    if (lab === undefined) await takeDown(id)
    else await lab.close()
    throw error
  }
}

export class Lab {
  readonly topology: Topology
  /** The folder that the relay serves; edits are followed. */
  readonly manifests: string
  readonly #supervisor: Supervisor
  readonly #relayFlags: readonly string[]
  readonly #agentFlags: readonly string[]
  readonly #gatewayFlags: readonly string[]
  readonly #kubelets: boolean
  readonly #fulmar: string
  readonly #chart: Chart | undefined
  readonly #events = new EventEmitter<LabEvents>()
  readonly #ending = new AbortController()
  #closed: Promise<void> | undefined

  constructor(topology: Topology, manifests: string, options: LabOptions, chart?: Chart) {
    const { restart = true } = options
    this.topology = topology
    this.manifests = manifests
    this.#relayFlags = options.relayFlags ?? []
    this.#agentFlags = agentFlagsOf(options)
    this.#gatewayFlags = options.gatewayFlags ?? []
    this.#fulmar = options.fulmar ?? FULMAR
    this.#chart = chart
    this.#kubelets = options.kubelets ?? false
    this.#supervisor = new Supervisor({
      id: topology.id,
      restart,
      onEvent: (event) => {
        appendEvent(topology.id, event)
        this.#events.emit('event', event)
      },
    })
  }

  get id(): string {
    return this.topology.id
  }

  /** What the chart was installed on, of a lab that runs as the chart says. */
  get kubernetes(): Kubernetes | undefined {
    return this.#chart?.kubernetes
  }

  /** Runs what `openLab` runs; `startGateways` does the rest of `until: 'nodes'`. */
  async start(until: 'hosts' | 'nodes' | 'all', progress: (line: string) => void, signal: AbortSignal): Promise<void> {
    const options = this.#startOptions(progress, signal)
    if (until === 'hosts') return startPods(options)
    await startNodes(options)
    this.#followNodes(progress)
    if (until === 'all') await startGateways(options)
    if (this.#kubelets) await startKubelets(options)
  }

  #followNodes(progress: (line: string) => void): void {
    const { topology, manifests, kubernetes } = this
    const stateDir = (node: string) => kubernetes?.kubeletDir(node) ?? pathsOf(topology.id).stateDir(node)
    const report = async (names: readonly string[]): Promise<void> => {
      try {
        await reportNodes(topology, names, stateDir)
      } catch (error) {
        progress((error as Error).message)
      }
    }
    void followNodes(manifests, report, this.#ending.signal)
    if (kubernetes !== undefined) void followVolumes(kubernetes, progress, this.#ending.signal)
  }

  /** Resolves when all of them answer. */
  async startGateways(progress: (line: string) => void = () => {}): Promise<void> {
    await startGateways(this.#startOptions(progress))
  }

  /** Resolves when they listen. */
  async startKubelets(progress: (line: string) => void = () => {}): Promise<void> {
    await startKubelets(this.#startOptions(progress))
  }

  #startOptions(progress: (line: string) => void, signal = new AbortController().signal): StartOptions {
    return {
      topology: this.topology,
      manifests: this.manifests,
      supervisor: this.#supervisor,
      relayFlags: this.#relayFlags,
      agentFlags: this.#agentFlags,
      gatewayFlags: this.#gatewayFlags,
      fulmar: this.#fulmar,
      chart: this.#chart,
      progress,
      signal,
    }
  }

  /** Runs a program on a host to its end, 60 s at most; the exit code is an answer. */
  exec(host: string, command: readonly string[], options: ExecOptions = {}): Promise<Output> {
    return execAt(this.id, placeOf(this.topology, host), command, options)
  }

  /** Starts a program on a host; its pid is the program's. It ends with the lab. */
  spawn(host: string, command: readonly string[], options: SpawnOptions = {}): ChildProcess {
    return spawnApart(this.id, placeOf(this.topology, host), command, options)
  }

  /** As from outside: the supervisor starts it again. */
  kill(host: string, daemon: DaemonName, signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#supervisor.kill(host, daemon, signal)
  }

  /** Ends a process for good; what it left in the kernel stays. */
  stop(host: string, daemon: DaemonName, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    return this.#supervisor.stop(host, daemon, signal)
  }

  /** Starts what was stopped; resolves when it answers. @param change what its command is from now on. */
  startAgain(host: string, daemon: DaemonName, change?: Change): Promise<void> {
    return this.#supervisor.startAgain(host, daemon, change)
  }

  pidOf(host: string, daemon: DaemonName): number | undefined {
    return this.#supervisor.pidOf(host, daemon)
  }

  /** Where a process' output goes. */
  logOf(host: string, daemon: DaemonName): string {
    return pathsOf(this.id).logOf(host, daemon)
  }

  cut(kind: Cut, pool: string): Promise<void> {
    return cut(this.topology, kind, pool)
  }

  heal(pool = 'all'): Promise<void> {
    return heal(this.topology, pool)
  }

  cuts(): Promise<CutsByPool> {
    return readCuts(this.topology)
  }

  status(): Promise<LabStatus> {
    return readStatus(this.id)
  }

  /** @returns a function that ends it. */
  onEvent(listener: (event: LabEvent) => void): () => void {
    this.#events.on('event', listener)
    return () => void this.#events.off('event', listener)
  }

  /** Removes everything; twice is fine. */
  close(): Promise<void> {
    this.#supervisor.close()
    this.#ending.abort()
    return (this.#closed ??= takeDown(this.id).then(removeEmptyFolder))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

/** The folder to serve: the one that was asked for, a generated one, or the shop. */
function manifestsOf(id: string, { pools, nodes = DEFAULT_NODES, manifests }: LabOptions): string {
  if (manifests !== undefined) {
    let directory: string
    try {
      directory = realpathSync(manifests)
    } catch (cause) {
      throw new UsageError(`--manifests ${manifests}: there is no such folder`, { cause })
    }
    if (`${directory}/`.startsWith('/run/'))
      throw new UsageError(`--manifests ${directory}: hosts of the lab have a /run of their own; put it elsewhere`)
    return directory
  }
  if (pools === undefined) return SHOP
  const directory = pathsOf(id).manifests
  mkdirSync(directory)
  for (const [name, yaml] of generateManifests({ pools: generatedPools(pools, nodes) }))
    writeFileSync(join(directory, name), yaml)
  return directory
}

/** A lab has no CNI that would carry what pods of a split pool say to each other. */
const agentFlagsOf = ({ agentFlags, splitLans = [] }: LabOptions): readonly string[] =>
  agentFlags ?? (splitLans.length > 0 ? ['--overlay-pods'] : [])

/** @throws UsageError without helm, or without what the image is made of. */
async function chartOf(topology: Topology, options: LabOptions, progress: (line: string) => void): Promise<Chart> {
  const kubernetes = await Kubernetes.prepare(topology)
  const values = valuesOf(topology, {
    installed: kubernetes.installed,
    cgroups: cgroupRoot(),
    relayFlags: options.relayFlags ?? [],
    agentFlags: agentFlagsOf(options),
    gatewayFlags: options.gatewayFlags ?? [],
  })
  const rendered = await renderChart(values)
  progress('making the files of the image')
  const daemons = daemonsOf(rendered, topology, { labels: labelsOf(topology), image: await imageRoot() })
  kubernetes.install(rendered, daemons.pods)
  return { daemons, kubernetes }
}

function checkPools({ pools }: Topology, { nat = new Map(), splitLans = [] }: LabOptions): void {
  const sites = pools.filter(({ router }) => router !== undefined).map(({ name }) => name)
  const strangers = splitLans.filter((name) => !sites.includes(name))
  if (strangers.length > 0)
    throw new UsageError(
      `--split-lans ${strangers.join(', ')}: no site of this name; the sites are ${sites.join(', ')}`,
    )
  const unknown = [...nat.keys()].filter((name) => !sites.includes(name))
  if (unknown.length > 0)
    throw new UsageError(`--nat ${unknown.join(', ')}: no site of this name; the sites are ${sites.join(', ')}`)
}

function describe({ hosts, pools, nodes, pods }: Topology): string {
  const sites = pools.filter(({ router }) => router !== undefined).map(({ name, nat }) => `${name} (${nat})`)
  return `${hosts.length} hosts: ${nodes.length} nodes, ${pods.length} pods, cloud and ${sites.join(', ') || 'no site'}`
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => {})
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error)
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
