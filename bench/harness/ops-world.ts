// A relay in a cloud and agents' sessions at an edge, each in a network namespace, with a third between them that routes and
// can put them far apart. The relay is the whole daemon; of the agents there is what holds sessions.
//
//   cloud 198.51.100.2 ── 198.51.100.1 core 203.0.113.1 ── 203.0.113.2 edge          MTU 1500, IPv4 and IPv6

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { KeyPair } from '../../lib/certificates.ts'
import { openAuthority } from '../../lib/net/authority.ts'
import { fetchStatus } from '../../lib/net/status-client.ts'
import type { RelayStatus } from '../../lib/status.ts'
import { connect, createHost, until, type Host } from '../../test/lib/netns.ts'
import { statusBytes } from './memory.ts'
import type { Agents } from './ops-agents.ts'
import { opsLoadIn, type OpsLoad, type Way } from './ops-load-client.ts'

export const CLOUD_ADDRESS = '198.51.100.2'
export const EDGE_ADDRESS = '203.0.113.2'
export const NODE = 'edge-1'
/** Of the targets on the node. */
export const PORTS = { pour: 10_250, sink: 10_251, echo: 10_252, deaf: 10_253 } as const
const RELAY_PORT = 443
const START_TIMEOUT_MS = 60_000
const STATUS_TIMEOUT_MS = 30_000
const CLOSE_TIMEOUT_MS = 30_000
const FULMAR = join(import.meta.dirname, '../../cli/main.ts')
const DELAY = join(import.meta.dirname, '../../test/lab/delay.ts')
const AGENTS = join(import.meta.dirname, 'ops-agents.ts')
const COLLECT_ON_SIGNAL = join(import.meta.dirname, 'collect-on-signal.ts')
/** So that TCP's windows are never narrower than ours, 4 MiB. */
const TCP_BUFFERS = '4096 131072 33554432'

export type OpsWorld = AsyncDisposable & {
  readonly folder: string
  readonly authority: KeyPair
  readonly cloud: Host
  readonly edge: Host
  /** In the cloud. */
  readonly client: OpsLoad
  /** At the edge, with all targets. */
  readonly target: OpsLoad
  /** Of the relay, for CONNECT. */
  readonly socket: string
  readonly relayPid: () => number
  readonly relayStatus: () => Promise<RelayStatus>
  readonly killRelay: () => Promise<void>
  readonly startRelay: () => Promise<void>
  /** Makes the relay free, soon, what nobody refers to any more. */
  readonly collectRelay: () => void
  /** Resolves when the sessions of all of them are there. */
  readonly startAgents: (names: readonly string[]) => Promise<AgentProcess>
  /** Milliseconds each way, from now on. */
  readonly delay: (ms: number) => Promise<void>
  /** In the cloud or at the edge; it ends with the world. */
  readonly spawn: (host: Host, command: readonly string[]) => ChildProcess
}

/** Another way from the cloud to the node, to be compared with. */
export type Hops = {
  readonly name: string
  readonly version: string
  readonly pids: readonly number[]
  /** @param target its port on the node. */
  readonly wayTo: (target: number) => Way
}

export type AgentProcess = {
  readonly pid: number
  readonly prepare: (names: readonly string[]) => Promise<void>
  readonly start: (names: readonly string[]) => Promise<void>
  readonly connected: () => Promise<number>
  readonly streams: () => Promise<number>
  /** Frees what nobody refers to any more. */
  readonly collect: () => Promise<void>
  readonly kill: () => Promise<void>
}

export async function openOpsWorld(): Promise<OpsWorld> {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-bench-ops-'))
  const socket = join(folder, 'egress.sock')
  const hosts: Host[] = []
  const children = new Set<ChildProcess>()
  const host = async (): Promise<Host> => {
    const made = await createHost()
    hosts.push(made)
    return made
  }
  const spawnIn = (where: Host, command: readonly string[], stdout: 'ignore' | 'pipe' = 'ignore'): ChildProcess => {
    const enter = ['--target', String(where.pid), '--net', '--mount', ...command]
    const child = spawn('nsenter', enter, { stdio: ['ignore', stdout, 'inherit'] })
    children.add(child)
    child.once('exit', () => children.delete(child))
    return child
  }
  const kill = async (child: ChildProcess): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }
  const close = async (): Promise<void> => {
    await Promise.all([...children].map(kill))
    await Promise.all(hosts.map((each) => each.close()))
    rmSync(folder, { recursive: true, force: true })
  }
  try {
    const [cloud, core, edge] = await Promise.all([host(), host(), host()])
    await connect('south', [cloud!, `${CLOUD_ADDRESS}/24`], [core!, '198.51.100.1/24'])
    await connect('north', [edge!, `${EDGE_ADDRESS}/24`], [core!, '203.0.113.1/24'])
    await core!.sh('sysctl -qw net.ipv4.ip_forward=1')
    await cloud!.sh('ip route add default via 198.51.100.1')
    await edge!.sh('ip route add default via 203.0.113.1')
    for (const end of [cloud!, edge!])
      await end.sh(`sysctl -qw net.ipv4.tcp_rmem='${TCP_BUFFERS}' net.ipv4.tcp_wmem='${TCP_BUFFERS}'`)
    const authority = await openAuthority(join(folder, 'relay'), Date.now())
    const [client, target] = await Promise.all([opsLoadIn(cloud!), opsLoadIn(edge!)])
    for (const [kind, port] of Object.entries(PORTS)) await target.listen(kind as keyof typeof PORTS, port)

    let relay: ChildProcess | undefined
    const status = async (): Promise<RelayStatus> =>
      (await fetchStatus(join(folder, 'run', 'relay.sock'), STATUS_TIMEOUT_MS)) as RelayStatus
    const startRelay = async (): Promise<void> => {
      const flags = [
        ['--listen', `0.0.0.0:${RELAY_PORT}`],
        ['--public', CLOUD_ADDRESS],
        ['--udp-relay-ports', ''],
        ['--egress-socket', socket],
        ['--state-dir', join(folder, 'relay')],
        ['--run-dir', join(folder, 'run')],
        ['--log-level', 'error'],
      ]
      relay = spawnIn(cloud!, [process.execPath, '--import', COLLECT_ON_SIGNAL, FULMAR, 'relay', ...flags.flat()])
      const isUp = (): Promise<boolean> =>
        status().then(
          () => true,
          () => false,
        )
      await until('the relay', START_TIMEOUT_MS, isUp)
    }
    await startRelay()
    let delaying: ChildProcess | undefined
    return {
      ...{ folder, authority, socket, client, target, startRelay, cloud: cloud!, edge: edge! },
      relayPid: () => relay!.pid!,
      relayStatus: status,
      killRelay: () => kill(relay!),
      collectRelay: () => void relay!.kill('SIGUSR2'),
      async startAgents(names) {
        const remote = await edge!.start(AGENTS)
        const agents = (which: readonly string[]): Agents => ({
          names: which,
          authority,
          relay: `https://${CLOUD_ADDRESS}:${RELAY_PORT}`,
          kubeletPort: PORTS.pour,
          targets: Object.values(PORTS).map((port) => `localhost:${port}`),
        })
        const process: AgentProcess = {
          pid: (await remote.call('pid')) as number,
          prepare: (which) => remote.call('prepare', agents(which)),
          start: (which) => remote.call('start', agents(which)),
          connected: () => remote.call('connected'),
          streams: () => remote.call('streams'),
          collect: () => remote.call('collect'),
          kill: () => remote.kill(),
        }
        await process.start(names)
        await until('the sessions', START_TIMEOUT_MS, async () => (await process.connected()) === names.length)
        return process
      },
      async delay(ms) {
        if (delaying !== undefined) await kill(delaying)
        const delay = { ms, uplink: 'north', others: 'south', addresses: [EDGE_ADDRESS], number: 0 }
        delaying = spawnIn(core!, [process.execPath, DELAY, JSON.stringify(delay)], 'pipe')
        await once(delaying.stdout!, 'data')
      },
      spawn: spawnIn,
      [Symbol.asyncDispose]: close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** What one run of streams leaves under way is not the next one's. */
export const untilClosed = ({ target }: OpsWorld): Promise<number> =>
  until('all streams are closed', CLOSE_TIMEOUT_MS, async () => (await target.accepted()) === 0)

/** What a process keeps: bytes that are its own, and file descriptors. */
export function footprint(pid: number): { readonly bytes: number; readonly descriptors: number } {
  return { bytes: statusBytes(pid, 'RssAnon'), descriptors: readdirSync(`/proc/${pid}/fd`).length }
}

/** Bytes that TCP of a namespace holds for its sockets. */
export async function tcpMemoryBytes(host: Host): Promise<number> {
  const lines = await host.sh('cat /proc/net/sockstat')
  return Number(/^TCP:.* mem (\d+)/m.exec(lines)?.[1] ?? NaN) * 4096
}
