// `lab ops`: what operators do by kubectl, on nodes that nobody can dial: one behind a symmetric NAT and one that gets
// nothing out but TCP to port 443, both far from the cloud. kubectl runs in the cloud against the relay's API.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Values } from '../../lib/config.ts'
import { runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import { renderTable, type Column } from '../../lib/text-table.ts'
import { delaySite } from './delay.ts'
import { enterCommand, hostEnvironment, placeOf } from './enter.ts'
import { connectIn } from './kubelet/netns-socket.ts'
import { startProcess } from './kubelet/process.ts'
import { REBOOT, reboot } from './kubectl/reboot.ts'
import { PROTOCOLS, type Kubectl, type Protocol } from './kubectl/session.ts'
import { CASE_NAMES, opsContainers, runSuite, type Outcome } from './kubectl/suite.ts'
import { openLab, type Lab } from './lab.ts'
import { generateManifests } from './manifests.ts'
import { CLOUD, nodeOf, pathsOf } from './names.ts'
import type { NatName } from './nat.ts'
import { SITES, type OPS, type SiteName } from './ops-options.ts'

export type OpsValues = Values<typeof OPS>
export type OpsResult = {
  readonly kubectl: readonly string[]
  readonly nodes: readonly {
    readonly node: string
    readonly nat: NatName
    /** Measured, of the link to the cloud. */
    readonly rttMs: number
    readonly outcomes: readonly (Outcome & { readonly kubectl: string })[]
  }[]
  readonly faults: readonly string[]
}

const NAMESPACE = 'ops'
const WEB_PORT = 8080
/** A first session, over a link with a delay. */
const REACHED_WITHIN_MS = 30_000
const RTT_TOLERANCE = 0.1
/** Versions before speak SPDY only, whatever they are told. */
const WEBSOCKET_SINCE_MINOR = 31

/** @returns 0 if every command did what it should. */
export async function ops(values: OpsValues): Promise<number> {
  const names = [...CASE_NAMES, REBOOT]
  const unknown = values.cases.filter((name) => !names.includes(name))
  if (unknown.length > 0)
    throw new UsageError(`--cases ${unknown.join(',')}: no such case; there are ${names.join(', ')}`)
  let code = 1
  await runUntilSignal(async (signal) => {
    const result = await runOps(values, say, signal)
    process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : render(result))
    for (const fault of result.faults) process.stderr.write(`short of what it should be: ${fault}\n`)
    code = result.faults.length === 0 ? 0 : 1
  })
  return code
}

export async function runOps(
  { id, rtt, copyMib, kubectl: programs, sites, protocols, cases }: OpsValues,
  progress: (line: string) => void,
  signal: AbortSignal,
): Promise<OpsResult> {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-ops-'))
  try {
    writeManifests(folder, sites)
    const prepare = async (lab: Lab): Promise<void> => {
      for (const pool of sites) await delaySite(lab, pool, rtt / 2)
    }
    const options = {
      id,
      manifests: folder,
      nat: new Map(sites.map((site) => [site, SITES[site]])),
      until: 'nodes',
      kubelets: true,
      ...(rtt > 0 && { prepare }),
    } as const
    await using lab = await openLab(options, { signal, progress })
    const config = await kubeconfig(lab, folder)
    const nodes: OpsResult['nodes'][number][] = []
    const versions: string[] = []
    for (const program of programs) versions.push(await versionOf(lab, program))
    for (const pool of sites) {
      const nat = SITES[pool]
      const node = nodeOf(pool, 1)
      await reached(lab, config, node)
      const outcomes: (Outcome & { kubectl: string })[] = []
      for (const [index, program] of programs.entries()) {
        const kubectl = kubectlIn(lab, [program, ...config])
        const version = versions[index]!
        const target = {
          node,
          namespace: NAMESPACE,
          pod: `${node}-ops`,
          port: WEB_PORT,
          copyBytes: copyMib << 20,
          directory: '/tmp',
          top: true,
        }
        const onOutcome = ({ name, protocol, ok, ms, detail }: Outcome): void =>
          progress(`${[node, name, protocol].filter(Boolean).join(' ')}: ${ok ? 'ok' : 'WRONG'} in ${ms} ms: ${detail}`)
        const wanted = (name: string) => cases.length === 0 || cases.includes(name)
        const ran = await runSuite(
          kubectl,
          target,
          onOutcome,
          wanted,
          protocolsOf(version).filter((protocol) => protocols.includes(protocol)),
        )
        outcomes.push(...ran.map((outcome) => ({ ...outcome, kubectl: version })))
      }
      if (cases.length === 0 || cases.includes(REBOOT)) {
        const place = { pool, node, namespace: NAMESPACE, pod: `${node}-ops`, container: 'web' }
        const outcome = await reboot(lab, kubectlIn(lab, [programs[0]!, ...config]), place)
        progress(`${node} ${REBOOT}: ${outcome.ok ? 'ok' : 'WRONG'} in ${outcome.ms} ms: ${outcome.detail}`)
        outcomes.push({ ...outcome, kubectl: versions[0]! })
      }
      nodes.push({ node, nat, rttMs: await roundTripMs(lab, node), outcomes })
    }
    return { kubectl: versions, nodes, faults: faultsOf(nodes, rtt) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function writeManifests(folder: string, sites: readonly SiteName[]): void {
  const pools = sites.map((name) => ({ name, nodes: [nodeOf(name, 1)] }))
  for (const [file, text] of generateManifests({ pools })) writeFileSync(join(folder, file), text)
  for (const pool of pools)
    for (const node of pool.nodes)
      writeFileSync(
        join(folder, `${node}-ops.json`),
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: `${node}-ops`, namespace: NAMESPACE },
          spec: {
            nodeName: node,
            containers: [{ name: 'web', ports: [{ containerPort: WEB_PORT }] }, ...opsContainers],
          },
          status: { phase: 'Running' },
        }),
      )
}

/** Flags of kubectl on the cloud's host. */
async function kubeconfig(lab: Lab, folder: string): Promise<readonly string[]> {
  const { code, stdout, stderr } = await lab.exec(CLOUD, ['fulmar', 'kubeconfig', '--server', lab.topology.relay.url])
  if (code !== 0) throw new Error(`fulmar kubeconfig: ${stderr}`)
  const file = join(folder, 'kubeconfig')
  writeFileSync(file, stdout)
  return ['--kubeconfig', file]
}

function kubectlIn(lab: Lab, [program, ...flags]: readonly [string, ...string[]]): Kubectl {
  const cloud = placeOf(lab.topology, CLOUD)
  return {
    start: (args, env) => lab.spawn(CLOUD, [program, ...flags, ...args], { env, stdio: ['pipe', 'pipe', 'pipe'] }),
    startInTerminal: (args, env) =>
      startProcess(enterCommand(lab.id, cloud, [program, ...flags, ...args]), {
        command: [],
        tty: true,
        stdin: true,
        env: { ...hostEnvironment(lab.id), ...env },
      }),
    connect: (port) => connectIn(pathsOf(lab.id).networkNamespace(CLOUD), port, AbortSignal.timeout(REACHED_WITHIN_MS)),
  }
}

async function versionOf(lab: Lab, program: string): Promise<string> {
  const { stdout, stderr } = await lab.exec(CLOUD, [program, 'version', '--client', '-o', 'json'])
  const version = /"gitVersion": *"(v[^"]+)"/.exec(stdout)?.[1]
  if (version === undefined)
    throw new UsageError(`--kubectl ${program}: does not run: ${stderr.trim() || stdout.trim()}`)
  return version
}

function protocolsOf(version: string): readonly Protocol[] {
  const minor = Number(/^v1\.(\d+)/.exec(version)?.[1])
  return minor < WEBSOCKET_SINCE_MINOR ? ['spdy'] : PROTOCOLS
}

async function reached(lab: Lab, config: readonly string[], node: string): Promise<void> {
  for (const deadline = Date.now() + REACHED_WITHIN_MS; ; await sleep(200)) {
    const path = `/api/v1/nodes/${node}/proxy/healthz`
    const { code, stderr } = await lab.exec(CLOUD, ['kubectl', ...config, 'get', '--raw', path])
    if (code === 0) return
    if (Date.now() > deadline) throw new Error(`node ${node} is not reached: ${stderr.trim()}`)
  }
}

async function roundTripMs(lab: Lab, node: string): Promise<number> {
  const started = 'time_connect'
  const command = ['curl', '-sk', '-o', '/dev/null', '-w', `%{${started}}`, `${lab.topology.relay.url}/healthz`]
  const { stdout } = await lab.exec(node, command)
  return Math.round(Number(stdout) * 1000)
}

function faultsOf(nodes: OpsResult['nodes'], rttMs: number): readonly string[] {
  return nodes.flatMap(({ node, rttMs: measured, outcomes }) => [
    ...(measured < rttMs * (1 - RTT_TOLERANCE) ? [`${node}: a round trip of ${measured} ms instead of ${rttMs}`] : []),
    ...outcomes.flatMap(({ name, protocol, kubectl, ok, detail }) =>
      ok ? [] : [`${node}: ${[name, protocol, kubectl].filter(Boolean).join(' ')}: ${detail}`],
    ),
  ])
}

const COLUMNS: readonly Column[] = [
  { title: 'command' },
  { title: 'by' },
  { title: 'kubectl' },
  { title: '' },
  { title: 'took', align: 'right' },
  { title: 'what came out', overflow: 'wrap' },
]

function render({ kubectl, nodes }: OpsResult): string {
  const versions = kubectl.map((version) => `${version} (${protocolsOf(version).join(' and ')})`)
  const tables = nodes
    .map(({ node, nat, rttMs, outcomes }) => {
      const rows = outcomes.map(({ name, protocol, kubectl, ok, ms, detail }) => [
        name,
        protocol ?? '',
        kubectl,
        ok ? 'ok' : 'WRONG',
        `${ms} ms`,
        detail,
      ])
      return `${node}: ${nat}, ${rttMs} ms from the cloud\n${renderTable(COLUMNS, rows)}`
    })
    .join('\n')
  return `kubectl ${versions.join(', ')}; Node ${process.version}, Linux ${release()}\n\n${tables}`
}

function say(line: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${line}\n`)
}
