// The order in which a lab comes to life: relay, nodes join, their kubelets report, pods, agents, gateways.

import { copyFileSync, mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { issuerFolder } from '../../lib/net/authority.ts'
import type { ChartDaemons } from './chart.ts'
import { agentsOf, gatewaysOf, kubeletsOf, podsOf, relayOf, type Daemon, type Programs } from './daemons.ts'
import { execAt, placeOf } from './enter.ts'
import type { KubeletNode } from './kubelet.ts'
import type { Kubernetes } from './kubernetes.ts'
import { cgroupRoot } from './machine.ts'
import { CLOUD, pathsOf } from './names.ts'
import { FULMAR, KUBELETS, POD_SERVER } from './paths.ts'
import type { Supervisor } from './supervisor.ts'
import type { Topology } from './topology.ts'

export const PROGRAMS: Programs = {
  node: process.execPath,
  fulmar: FULMAR,
  podServer: POD_SERVER,
  kubelets: KUBELETS,
}

/** Daemons wait for each other and for the kernel as they start; many more only make each of them late. */
const DAEMONS_AT_ONCE = 4 * availableParallelism()

export type Chart = { readonly daemons: ChartDaemons; readonly kubernetes: Kubernetes }

export type StartOptions = {
  readonly topology: Topology
  readonly manifests: string
  readonly supervisor: Supervisor
  readonly relayFlags: readonly string[]
  readonly agentFlags: readonly string[]
  readonly gatewayFlags: readonly string[]
  /** What they are started from. */
  readonly fulmar: string
  /** Daemons by the chart, instead of by daemons.ts. */
  readonly chart: Chart | undefined
  readonly progress: (line: string) => void
  readonly signal: AbortSignal
}

export async function startPods(options: StartOptions): Promise<void> {
  await startPodsOn('own network', options)
  await startPodsOn('host network', options)
}

async function startPodsOn(
  network: 'own network' | 'host network',
  { topology, supervisor, progress, signal }: StartOptions,
): Promise<void> {
  const onHost = new Set(topology.pods.filter(({ hostNetwork }) => hostNetwork).map(({ host }) => host))
  const pods = podsOf(topology, PROGRAMS).filter(({ host }) => onHost.has(host) === (network === 'host network'))
  // More at once than there are processors only makes each of them slow to answer.
  await inTurn(pods, (pod) => supervisor.start(pod), signal)
  if (pods.length > 0)
    progress(`${count(pods.length, 'pod')} listening${network === 'own network' ? '' : ' on their nodes’ networks'}`)
}

/** Everything but gateways. */
export async function startNodes(options: StartOptions): Promise<void> {
  const { topology, chart } = options
  const programs = { ...PROGRAMS, fulmar: options.fulmar }
  await (chart === undefined ? startRelays(options, programs) : startChart(options, chart, programs))
  await startPodsOn('own network', options)
  const agents = chart?.daemons.agents ?? agentsOf(topology, programs, cgroupRoot(), options.agentFlags)
  await startAll(agents, options)
  options.progress(`${count(agents.length, 'agent')} answering`)
  // After the agents, so that a pod which wants the node's DNS port, say, goes without it and not the node.
  await startPodsOn('host network', options)
}

/** And the nodes join them. */
async function startRelays(options: StartOptions, programs: Programs): Promise<void> {
  const { topology, manifests, supervisor, progress, signal } = options
  const names = topology.nodes.map(({ name }) => name)
  const [first, ...others] = topology.relays.map((relay) =>
    relayOf(topology, relay, programs, manifests, options.relayFlags),
  )
  const { stateDir } = pathsOf(topology.id)
  const [tokens] = await Promise.all([createTokens(topology, names, stateDir(CLOUD)), first && supervisor.start(first)])
  await inTurn(others, (relay) => startReplica(topology, relay, supervisor), signal)
  progress(relaysText(topology))
  const joinAt = { server: topology.relay.url, stateDir, tokens }
  await inTurn(names, (name) => join(topology, name, joinAt), signal)
  await reportNodes(topology, names, stateDir)
  progress(`${count(names.length, 'node')} joined: ${names.join(', ')}`)
}

/** The API and the kubelets, who give pods what they mount, and then the relay; nodes join by their pods. */
async function startChart(options: StartOptions, { daemons, kubernetes }: Chart, programs: Programs): Promise<void> {
  const { topology, manifests, supervisor, progress, signal } = options
  const { server } = kubernetes.installed
  const [tokens] = await Promise.all([
    createTokens(topology, kubernetes.nodes, kubernetes.stateDir),
    supervisor.start(kubernetes.daemon(programs, manifests)),
  ])
  progress(`Kubernetes API at ${server}`)
  const joinAt = { server, stateDir: (node: string) => kubernetes.kubeletDir(node), tokens }
  await inTurn(kubernetes.nodes, (name) => join(topology, name, joinAt), signal)
  const names = topology.nodes.map(({ name }) => name)
  await reportNodes(topology, names, joinAt.stateDir)
  progress(`${count(names.length, 'kubelet')} joined it: ${names.join(', ')}`)
  await kubernetes.renewVolumes()
  progress('tokens of ServiceAccounts are where pods mount them')
  await inTurn(daemons.relays, (relay) => supervisor.start(relay), signal)
  progress(relaysText(topology))
}

export async function startGateways(options: StartOptions): Promise<void> {
  const chart = options.chart?.daemons
  if (chart !== undefined) await inTurn(chart.tunnels, (tunnel) => options.supervisor.start(tunnel), options.signal)
  const programs = { ...PROGRAMS, fulmar: options.fulmar }
  const gateways = chart?.gateways ?? gatewaysOf(options.topology, programs, options.gatewayFlags)
  await inTurn(gateways, (gateway) => options.supervisor.start(gateway), options.signal)
  options.progress(`${count(gateways.length, 'gateway')} answering: ${gateways.map(({ host }) => host).join(', ')}`)
}

/** When the relay has run once: its authority issues their serving certificates. */
export async function startKubelets({ topology, supervisor, progress }: StartOptions): Promise<void> {
  await supervisor.start(kubeletsOf(topology, PROGRAMS))
  progress(`${count(topology.nodes.length, 'kubelet')} listening`)
}

async function startAll(daemons: readonly Daemon[], { supervisor, signal }: StartOptions): Promise<void> {
  await inTurn(daemons, (daemon) => supervisor.start(daemon), signal, DAEMONS_AT_ONCE)
}

/** Another relay of the same mesh has the CA of the first. */
async function startReplica({ id }: Topology, relay: Daemon, supervisor: Supervisor): Promise<void> {
  const { stateDir } = pathsOf(id)
  const folder = issuerFolder(stateDir(relay.host))
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  copyFileSync(`${issuerFolder(stateDir(CLOUD))}/authority.pem`, `${folder}/authority.pem`)
  await supervisor.start(relay)
}

/** One command makes the tokens of all nodes; the relay need not run yet. */
async function createTokens(
  topology: Topology,
  nodes: readonly string[],
  stateDir: string,
): Promise<ReadonlyMap<string, string>> {
  if (nodes.length === 0) return new Map()
  const command = ['fulmar', 'token', 'create', '--node', nodes.join(','), '--state-dir', stateDir]
  const output = await succeed(topology, CLOUD, command)
  return new Map(
    output
      .trim()
      .split('\n')
      .map((line) => line.split(' ') as [string, string]),
  )
}

type Joining = {
  readonly server: string
  readonly stateDir: (node: string) => string
  readonly tokens: ReadonlyMap<string, string>
}
async function join(topology: Topology, node: string, { server, stateDir, tokens }: Joining): Promise<void> {
  const flags = ['--relay', server, '--token', tokens.get(node) ?? '', '--state-dir', stateDir(node)]
  await succeed(topology, node, ['fulmar', 'join', ...flags])
}

/** What their kubelets say of nodes of the lab; names of others are left out. @param stateDir where each keeps who it is. */
export async function reportNodes(
  topology: Topology,
  names: readonly string[],
  stateDir: (node: string) => string,
): Promise<void> {
  const nodes = topology.nodes
    .filter(({ name }) => names.includes(name))
    .map(({ name, addresses }): KubeletNode => ({ name, addresses, stateDir: stateDir(name) }))
  if (nodes.length === 0) return
  await succeed(topology, CLOUD, [PROGRAMS.node, `${import.meta.dirname}/kubelet.ts`, JSON.stringify(nodes)])
}

async function succeed(topology: Topology, host: string, command: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await execAt(topology.id, placeOf(topology, host), command)
  if (code === 0) return stdout
  throw new Error(
    `${command.slice(0, 3).join(' ')} on ${host} ended with code ${code}: ${stderr.trim() || stdout.trim()}`,
  )
}

async function inTurn<T>(
  items: readonly T[],
  body: (item: T) => Promise<void>,
  signal: AbortSignal,
  atOnce = availableParallelism(),
): Promise<void> {
  const waiting = [...items]
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      signal.throwIfAborted()
      await body(item)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
}

const relaysText = ({ relays }: Topology) => `relay at ${relays.map(({ url }) => url).join(' and ')}`
const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? '' : 's'}`
