// One node for a bench: a network, mounts (a BPF file system among them) and cgroup2 groups of its own, in which an agent and
// other processes run; it ends with the bench, however that ends.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { cgroupMount } from '../../lib/bpf/hook-point.ts'
import { createAuthority, createClient, issueServer, validFor, type KeyPair } from '../../lib/certificates.ts'
import { run } from '../../lib/net/exec.ts'
import { identityPaths } from '../../lib/net/identity.ts'
import { BPF_DIR, NFT_TABLE_AGENT } from '../../lib/owned.ts'
import { COMPILE_CACHE } from '../../test/lab/paths.ts'
import { warmCompileCache } from '../../test/lab/warm.ts'
import { remoteOf, type Remote } from '../../test/lib/netns.ts'
import { ENDPOINT_PREFIXES, NODE, NODE_ADDRESS, SERVICE_PREFIX } from './churn-world.ts'
import { cgroupCpuMs } from './cpu.ts'

export type RunningAgent = {
  readonly pid: number
  /** CLOCK_MONOTONIC in ms. */
  readonly startedMs: number
  /** Resolves with the first line of its log that has this message. */
  readonly logged: (
    message: string,
  ) => Promise<{ readonly atMs: number; readonly fields: Readonly<Record<string, unknown>> }>
  /** Of it and of the processes that it started. */
  readonly cpuMs: () => number
  readonly kill: () => Promise<void>
}
export type ChurnNode = {
  readonly pair: KeyPair
  readonly ca: string
  readonly runDir: string
  /** @param group whether BPF serves it. */
  readonly start: (script: string, group: 'served' | 'left') => Promise<Remote>
  readonly startAgent: (server: string) => RunningAgent
  /** All that an agent left in the kernel, and on the disk too. */
  readonly wipe: (what: 'kernel' | 'all') => Promise<void>
  /** Elements of a map of its IPv4 table. */
  readonly nftElements: (map: string) => Promise<number>
  readonly close: () => Promise<void>
}

const HOLD = `
mount -t bpf bpf /sys/fs/bpf && ip link set lo up && ip link add eth0 type veth peer name eth1 &&
ip link set eth0 up && ip link set eth1 up && ip addr add ${NODE_ADDRESS}/24 dev eth0 && ip route add default dev eth0 &&
for prefix in ${[...ENDPOINT_PREFIXES, SERVICE_PREFIX].join(' ')}; do ip route add local $prefix dev lo src ${NODE_ADDRESS}; done &&
echo ready && cat`
const LOG_CHARS = 400
/** Without its types, as it is published. */
const COMPILED = { ...process.env, NODE_COMPILE_CACHE: COMPILE_CACHE }
const PROGRAM = `${import.meta.dirname}/../../cli/main.ts`
const GROUPS = ['served/agent', 'served/others', 'served', 'left', ''] as const

export const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6

export async function openChurnNode(): Promise<ChurnNode> {
  await warmCompileCache()
  const folder = mkdtempSync(join(tmpdir(), 'bch'))
  const root = `${cgroupMount()}/bch${process.pid}`
  for (const group of GROUPS) mkdirSync(`${root}/${group}`, { recursive: true })
  const holder = spawn('unshare', ['--net', '--mount', 'sh', '-c', HOLD], { stdio: ['pipe', 'pipe', 'inherit'] })
  await once(createInterface(holder.stdout), 'line')
  const enter = (group: string): string[] => [
    ...['--target', String(holder.pid), '--net', '--mount', 'sh', '-c'],
    `echo 0 > ${root}/${group}/cgroup.procs && exec "$@"`,
    'sh',
  ]
  const validity = validFor(Date.now(), 1)
  const authority = await createAuthority('bench', validity)
  const pair = await issueServer(authority, ['127.0.0.1'], validity)
  const subject = { commonName: `system:node:${NODE}`, organization: 'system:nodes' }
  const client = await createClient(authority, subject, validity)
  const [stateDir, runDir] = [join(folder, 'state'), join(folder, 'run')]
  const paths = identityPaths(stateDir)
  mkdirSync(paths.folder, { recursive: true })
  writeFileSync(paths.certificate, client.certificatePem)
  writeFileSync(paths.key, client.keyPem)
  writeFileSync(paths.ca, authority.certificatePem)

  const inside = (command: string): Promise<string> =>
    run('nsenter', ['--target', String(holder.pid), '--net', '--mount', 'sh', '-c', command])

  return {
    pair,
    ca: authority.certificatePem,
    runDir,
    start: (script, group) => {
      const command = [...enter(group === 'left' ? 'left' : 'served/others'), process.execPath, script]
      return remoteOf(spawn('nsenter', command, { stdio: ['ignore', 2, 2, 'ipc'] }))
    },
    startAgent: (server) => {
      writeFileSync(paths.node, JSON.stringify({ node: NODE, relays: ['https://127.0.0.1'], stun: [], server }))
      const flags = ['--state-dir', stateDir, '--run-dir', runDir, '--cgroup', `${root}/served`, '--log-level', 'info']
      const group = `${root}/served/agent`
      const beganCpuMs = cgroupCpuMs(group)
      const startedMs = nowMs()
      const child = spawn('nsenter', [...enter('served/agent'), process.execPath, PROGRAM, 'agent', ...flags], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: COMPILED,
      })
      return {
        pid: child.pid!,
        startedMs,
        logged: logOf(child),
        cpuMs: () => cgroupCpuMs(group) - beganCpuMs,
        kill: async () => {
          if (child.exitCode !== null || child.signalCode !== null) return
          const ended = once(child, 'exit')
          child.kill('SIGKILL')
          await ended
        },
      }
    },
    wipe: async (what) => {
      await inside(
        `for ip in ip ip6; do nft destroy table $ip ${NFT_TABLE_AGENT} || nft delete table $ip ${NFT_TABLE_AGENT}; done 2>/dev/null; rm -rf ${BPF_DIR}; rm -rf ${runDir}`,
      )
      if (what === 'all') rmSync(join(stateDir, 'agent'), { recursive: true, force: true })
    },
    nftElements: async (map) => {
      const { nftables } = JSON.parse(await inside(`nft -j list map ip ${NFT_TABLE_AGENT} ${map}`)) as {
        nftables: readonly { readonly map?: { readonly elem?: readonly unknown[] } }[]
      }
      return nftables.reduce((sum, { map }) => sum + (map?.elem?.length ?? 0), 0)
    },
    close: async () => {
      writeFileSync(`${root}/cgroup.kill`, '1')
      const ended = once(holder, 'exit')
      holder.stdin.end()
      await ended
      for (let i = 0; existsSync(root) && i < 200; i++) {
        try {
          for (const group of GROUPS) if (existsSync(`${root}/${group}`)) rmdirSync(`${root}/${group}`)
        } catch {
          await sleep(10)
        }
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

function logOf(child: ChildProcess): RunningAgent['logged'] {
  type Line = Awaited<ReturnType<RunningAgent['logged']>>
  const found = new Map<string, Line>()
  const waiting = new Map<string, ((line: Line) => void)[]>()
  createInterface(child.stdout!).on('line', (text) => {
    const fields = JSON.parse(text) as Record<string, unknown>
    const line = { atMs: nowMs(), fields }
    if (fields['level'] !== 'info' && fields['level'] !== 'debug')
      process.stderr.write(`agent: ${text.slice(0, LOG_CHARS)}\n`)
    const message = String(fields['msg'])
    if (!found.has(message)) found.set(message, line)
    for (const resolve of waiting.get(message) ?? []) resolve(line)
    waiting.delete(message)
  })
  return (message) => {
    const line = found.get(message)
    if (line !== undefined) return Promise.resolve(line)
    return new Promise((resolve, reject) => {
      waiting.set(message, [...(waiting.get(message) ?? []), resolve])
      child.once('exit', () => reject(new Error(`the agent ended before it said: ${message}`)))
    })
  }
}
