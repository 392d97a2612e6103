// A node of its own for each kind of way to the service, in a network namespace with a cable to the server's, and all of
// them to one server. Nodes differ in what serves there and in nothing else. Callers, proxies and server share one processor:
// on two, each message would wait for the other to wake up, which takes longer than the way and differs each time.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { balanceOf } from '../../agent/balance.ts'
import { clusterOf } from '../../agent/cluster.ts'
import { hereOf } from '../../agent/topology.ts'
import { find } from '../../lib/net/preflight.ts'
import { cgroupRoot, killCgroup, makeCgroups, removeCgroup } from '../../test/lab/machine.ts'
import { connect, createHost, remoteOf, until, type Host } from '../../test/lib/netns.ts'
import { cgroupCpuMs } from '../harness/cpu.ts'
import { driveCaller, type Caller, type Target } from './caller-client.ts'
import { clusterObjects, ENDPOINTS, NODE, POD_CIDR, PORTS, SERVICE, SERVICE_CIDR, type PortName } from './cluster.ts'
import { KINDS, WAYS, wayOf, type Kind, type ProxyKind } from './kinds.ts'
import { kubeProxyTable } from './kube-proxy.ts'
import { proxyProgram } from './proxies.ts'

export type Party = {
  readonly caller: Caller
  /** What the caller calls: the service, or its endpoints in turn. */
  readonly targets: Readonly<Record<PortName, readonly Target[]>>
  /** CPU so far of the caller, of what copies for it, and of the server; what the kernel does for each is in it. */
  readonly cpuMs: () => number
  /** @throws Error where a call does not go the way of its kind. */
  readonly prove: () => Promise<void>
}
export type World = {
  readonly parties: ReadonlyMap<Kind, Party>
  /** What is left out, and why. */
  readonly notes: readonly string[]
  readonly close: () => Promise<void>
}

/** Of a bench's group and of its folder, whose names end in its process id. */
const PREFIX = 'fulmar-bench-service-'
const SERVER = 'server'
const READY_TIMEOUT_MS = 10_000
const NGINX_MODULES = '/usr/lib/nginx/modules'
/** Where a distribution's nginx has its modules; one that has stream built in needs none. */
const nginxModules = (): string | undefined =>
  existsSync(`${NGINX_MODULES}/ngx_stream_module.so`) ? NGINX_MODULES : undefined

/** @throws Error where something is missing. */
export async function buildWorld(progress: (line: string) => void, signal: AbortSignal): Promise<World> {
  const undo: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).toReversed()) await step()
  }
  try {
    return { ...(await build(undo, progress, signal)), close }
  } catch (error) {
    await close()
    throw error
  }
}

async function build(
  undo: (() => unknown)[],
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<Omit<World, 'close'>> {
  await removeLeftovers()
  const root = `${PREFIX}${process.pid}`
  const wanted = KINDS.filter((kind) => lackOf(kind) === undefined)
  const groups = new Map([SERVER, ...wanted].map((name) => [name, `${root}/${name}/work`]))
  makeCgroups([...groups.values(), ...wanted.map((kind) => `${root}/${kind}/agent`)])
  undo.push(() => removeGroup(root))
  const folder = join(tmpdir(), root)
  mkdirSync(folder)
  undo.push(() => rmSync(folder, { recursive: true }))
  const folderOf = (name: string): string => `${cgroupRoot()}/${groups.get(name)!}`

  const openHost = async (): Promise<Host> => {
    const host = await createHost()
    undo.push(() => host.close())
    return host
  }
  const server = await openHost()
  await server.sh(ENDPOINTS.map((address) => `ip addr add ${address}/32 dev lo`).join(' && '))
  await listening(start(server, folderOf(SERVER), onOne(process.execPath, `${import.meta.dirname}/server.ts`), 'pipe'))

  const parties = new Map<Kind, Party>()
  for (const [i, kind] of wanted.entries()) {
    signal.throwIfAborted()
    progress(`a node for ${kind}`)
    const host = await openHost()
    const place: Place = {
      host,
      group: folderOf(kind),
      agentGroup: `${cgroupRoot()}/${root}/${kind}/agent`,
      nodeGroup: `${cgroupRoot()}/${root}/${kind}`,
      podCidr: `10.244.${10 + i}.0/24`,
      address: `10.244.${10 + i}.1`,
      folder: join(folder, kind),
    }
    await joinServer(server, `n${i}`, place)
    if (kind !== 'untracked') await host.sh(`nft '${trackingTable(place.podCidr)}'`)
    await serveBy(kind, place)
    const caller = driveCaller(
      await remoteOf(start(host, place.group, onOne(process.execPath, `${import.meta.dirname}/caller.ts`), 'ipc')),
    )
    const targets = { echo: targetsOf(kind, 'echo'), sink: targetsOf(kind, 'sink') }
    const taking = [place.group, folderOf(SERVER)]
    parties.set(kind, {
      caller,
      targets,
      cpuMs: () => taking.reduce((sum, group) => sum + cgroupCpuMs(group), 0),
      prove: () => prove(kind, host, caller, targets.echo),
    })
  }
  return { parties, notes: KINDS.flatMap((kind) => lackOf(kind) ?? []) }
}

type Place = {
  readonly host: Host
  /** Folders of groups: of whoever takes part in calls, of an agent, and of both. */
  readonly group: string
  readonly agentGroup: string
  readonly nodeGroup: string
  readonly podCidr: string
  readonly address: string
  readonly folder: string
}

function lackOf(kind: Kind): string | undefined {
  if ((kind === 'haproxy' || kind === 'nginx') && find(kind) === undefined)
    return `${kind} is left out: it is not installed`
  if (kind !== 'nginx' || nginxModules() !== undefined) return undefined
  const { stderr } = spawnSync('nginx', ['-V'], { encoding: 'utf8' })
  return / --with-stream(\s|$)/.test(stderr) ? undefined : 'nginx is left out: it has no stream module'
}

const targetsOf = (kind: Kind, name: PortName): readonly Target[] =>
  kind === 'direct' || kind === 'again' || kind === 'untracked'
    ? ENDPOINTS.map((address) => ({ address, port: PORTS[name].endpoint }))
    : [{ address: SERVICE.clusterIp, port: PORTS[name].service }]

/** The node has an address among its pods', as a bridge for pods has, so that nobody masquerades. */
async function joinServer(server: Host, cable: string, { host, address }: Place): Promise<void> {
  await connect(cable, [server], [host, `${address}/32`])
  await server.sh(`ip route add ${address} dev ${cable}`)
  await host.sh(`ip route add default dev ${cable}`)
}

/** As a CNI plugin masquerades what leaves the cluster: by it connections are tracked, as on any node of Kubernetes. */
const trackingTable = (podCidr: string): string =>
  `table ip cni { chain postrouting { type nat hook postrouting priority 100; ` +
  `ip saddr ${podCidr} ip daddr != ${POD_CIDR} masquerade; }; }`

async function serveBy(kind: Kind, place: Place): Promise<void> {
  switch (kind) {
    case 'direct':
    case 'again':
    case 'untracked':
      return
    case 'bpf':
    case 'nft':
      return startAgent(kind, place)
    case 'chains':
      return loadChains(place)
    case 'pipe':
    case 'haproxy':
    case 'nginx':
      return startProxy(kind, place)
  }
}

async function startAgent(kind: 'bpf' | 'nft', { host, agentGroup, nodeGroup, podCidr }: Place): Promise<void> {
  // Pins end with the host, and are nobody else's.
  await host.sh('mount -t bpf bpf /sys/fs/bpf')
  const words = [process.execPath, `${import.meta.dirname}/agent.ts`, podCidr, ...(kind === 'bpf' ? [nodeGroup] : [])]
  const agent = await remoteOf(start(host, agentGroup, words, 'ipc'))
  const { path, problems } = (await agent.call('state')) as { path: string; problems: readonly string[] }
  if (path !== kind || problems.length > 0) throw new Error(`${kind}: ${path} serves; ${problems.join('; ')}`)
}

async function loadChains({ host, podCidr, address, folder }: Place): Promise<void> {
  const cluster = clusterOf(clusterObjects(podCidr))
  const services = [...balanceOf({ cluster, here: hereOf(cluster, NODE) }).services]
  mkdirSync(folder)
  const table = { services, podCidr: POD_CIDR, serviceCidr: SERVICE_CIDR, nodeAddress: address }
  writeFileSync(join(folder, 'table.nft'), kubeProxyTable(table))
  await host.sh(`nft -f ${folder}/table.nft`)
}

async function startProxy(kind: ProxyKind, { host, group, folder }: Place): Promise<void> {
  mkdirSync(folder)
  const { words, files } = proxyProgram(kind, folder, nginxModules())
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
  await host.sh(`ip addr add ${SERVICE.clusterIp}/32 dev lo`)
  start(host, group, onOne(...words), 'ignore')
  for (const { service } of Object.values(PORTS))
    await until(`${kind} listens`, READY_TIMEOUT_MS, async () => {
      return (await host.sh(`ss -Hltn src ${SERVICE.clusterIp}:${service}`)).trim() !== ''
    })
}

async function prove(kind: Kind, host: Host, caller: Caller, [target]: readonly Target[]): Promise<void> {
  const { own, peer, seen } = await caller.prove(target!)
  const flows = await host.sh(`conntrack -L -p tcp --orig-port-src ${own.split(':')[1]} 2>/dev/null`)
  const way = wayOf(own, seen, flows)
  const called = `${target!.address}:${target!.port}`
  if (way !== WAYS[kind] || peer !== called)
    throw new Error(`${kind}: a call to ${called} went ${way} to ${peer}, where ${WAYS[kind]} was expected: ${flows}`)
}

/** The last of the processors that this process may use. */
function onOne(...words: readonly string[]): readonly string[] {
  const processor = /^Cpus_allowed_list:.*?(\d+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
  return ['taskset', '-c', processor, ...words]
}

/** It ends with the bench, however that ends. */
function start(host: Host, group: string, words: readonly string[], channel: 'ipc' | 'pipe' | 'ignore'): ChildProcess {
  const inside = 'echo 0 > "$1/cgroup.procs" && shift && exec "$@"'
  const enter = ['nsenter', '--target', String(host.pid), '--net', '--mount', ...words]
  const all = ['--pdeathsig', 'KILL', 'sh', '-c', inside, 'sh', group, ...enter]
  return spawn('setpriv', all, {
    stdio: channel === 'ipc' ? ['ignore', 2, 2, 'ipc'] : ['ignore', channel, 2],
  })
}

async function listening(child: ChildProcess): Promise<void> {
  for await (const line of createInterface({ input: child.stdout! })) if (line === 'listening') return
  throw new Error(`${child.spawnargs.at(-1)} ended before it listened`)
}

async function removeGroup(group: string): Promise<void> {
  killCgroup(group)
  await until(`${group} is empty`, READY_TIMEOUT_MS, async () => removeCgroup(group))
}

/** Of benches that were killed: their processes hold their namespaces. */
async function removeLeftovers(): Promise<void> {
  const isLeft = (name: string): boolean => name.startsWith(PREFIX) && !existsSync(`/proc/${name.slice(PREFIX.length)}`)
  for (const name of readdirSync(cgroupRoot()).filter(isLeft)) await removeGroup(name)
  for (const name of readdirSync(tmpdir()).filter(isLeft)) rmSync(join(tmpdir(), name), { recursive: true })
}
