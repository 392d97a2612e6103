// What does an idle gateway cost in a mesh of 30 pools? A lab of the cloud and 29 sites with a node each, with Services that
// nobody calls; when all pairs are cold, one site's router counts what passes, by what it is for, and the kernel what its
// daemons and the relay use of processor and memory. Daemons only: no pods run.

import { rmSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { openLab, type Lab } from '../test/lab/lab.ts'
import { CLOUD } from '../test/lab/names.ts'
import { treeCpuMs } from './harness/cpu.ts'
import { onlyNodeOf, siteNames, writeSites } from './harness/daemons-only.ts'
import { statusBytes } from './harness/memory.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const POOLS = 30
const SITE = 's1'
const NODE = onlyNodeOf(SITE)
const ROUND_MS = 60_000
const COLD_AFTER_S = 20
const COLD_TIMEOUT_MS = 120_000

export const question: Study = {
  kind: 'study',
  text: `What does an idle gateway cost in a mesh of ${POOLS} pools?`,
  rounds: 2,
  run,
}

/** By the node's own port for TCP to the relay; the rest is UDP. IP packets, both directions. */
const COUNTERS = `table inet count {
  set sessions { type inet_service; flags dynamic; counter; size 4096; }
  counter stun { }
  counter pairs { }
  chain forward {
    type filter hook forward priority 10;
    iifname "lan" meta l4proto tcp update @sessions { tcp sport }
    oifname "lan" meta l4proto tcp update @sessions { tcp dport }
    udp dport 3478-3479 counter name stun accept
    udp sport 3478-3479 counter name stun accept
    meta l4proto udp counter name pairs
  }
}
`

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const manifests = writeSites(siteNames(POOLS), ['Pod'])
  try {
    await using lab = await openLab(
      { id: 'benchidle', manifests, gatewayFlags: ['--cold-after', String(COLD_AFTER_S)] },
      { signal, progress },
    )
    const router = lab.topology.pools.find(({ name }) => name === SITE)!.router!
    const notCold = await untilCold(lab, signal)
    progress(`${POOLS - 1 - notCold.length} of ${POOLS - 1} pairs are cold; counting for ${rounds} minutes`)

    const load = await lab.exec(router, ['nft', '-f', '-'], { input: COUNTERS })
    if (load.code !== 0) throw new Error(`${router}: ${load.stderr}`)
    const startMs = performance.now()
    const ports = { gateway: new Set<number>(), agent: new Set<number>() }
    const look = async (): Promise<void> => {
      const sockets = await socketsOf(lab)
      for (const daemon of ['gateway', 'agent'] as const)
        for (const port of sockets(lab.pidOf(NODE, daemon)!)) ports[daemon].add(port)
    }
    await look()
    const costs = watchCosts(lab)
    for (let round = 0; round < rounds; round++) {
      await pause(ROUND_MS, undefined, { signal })
      await look()
    }
    const hours = (performance.now() - startMs) / 3_600_000
    const spent = costs()
    const { sessions, stun, pairs } = await count(lab, router)
    const bytesOf = (of: (port: number) => boolean): number =>
      sessions.filter(([port]) => of(port)).reduce((sum, [, bytes]) => sum + bytes, 0) / hours
    const gateway = bytesOf((port) => ports.gateway.has(port))
    const agent = bytesOf((port) => ports.agent.has(port))
    const brief = bytesOf((port) => !ports.gateway.has(port) && !ports.agent.has(port))
    return {
      findings: [
        {
          name: 'idleGateway',
          title: `idle: gateway among ${POOLS} pools`,
          unit: 'bytes/h',
          value: gateway + (stun + pairs) / hours,
        },
        { name: 'idleRelay', title: 'idle: of it, connections to the relay', unit: 'bytes/h', value: gateway },
        { name: 'idleStun', title: 'idle: of it, STUN', unit: 'bytes/h', value: stun / hours },
        { name: 'idlePairs', title: 'idle: of it, paths to other gateways', unit: 'bytes/h', value: pairs / hours },
        { name: 'idleAgent', title: 'idle: beside it, the node’s agent', unit: 'bytes/h', value: agent },
        { name: 'idleBrief', title: 'idle: beside it, brief connections of both', unit: 'bytes/h', value: brief },
        ...spent,
      ],
      notes: [
        `idle: IP packets both ways at the router of a site over ${rounds} minutes; ${notCold.length === 0 ? 'all pairs cold' : `not cold: ${notCold.join(', ')}`}`,
      ],
    }
  } finally {
    rmSync(manifests, { recursive: true })
  }
}

/** @returns what each daemon has used since, with all that it started. */
function watchCosts(lab: Lab): () => StudyReport['findings'] {
  const watched = (
    [
      ['Agent', NODE, 'agent'],
      ['Gateway', NODE, 'gateway'],
      ['Relay', CLOUD, 'relay'],
    ] as const
  ).map(([name, host, daemon]) => {
    const pid = lab.pidOf(host, daemon)!
    return { name, daemon, pid, beganMs: treeCpuMs(pid) }
  })
  const startMs = performance.now()
  return () =>
    watched.flatMap(({ name, daemon, pid, beganMs }) => [
      {
        name: `idle${name}Cpu`,
        title: `idle: processor, ${daemon} and what it runs`,
        unit: 'ms CPU/s',
        value: (treeCpuMs(pid) - beganMs) / ((performance.now() - startMs) / 1_000),
      },
      {
        name: `idle${name}Anon`,
        title: `idle: memory of its own, ${daemon}`,
        unit: 'MB',
        value: statusBytes(pid, 'RssAnon') / 2 ** 20,
      },
    ])
}

/** @returns the pools whose pair with the site is not cold in time. */
async function untilCold(lab: Lab, signal: AbortSignal): Promise<readonly string[]> {
  const endMs = performance.now() + COLD_TIMEOUT_MS
  for (;;) {
    const { daemons } = await lab.status()
    const paths = daemons.flatMap(({ status }) =>
      status.kind === 'gateway' && status.pool === SITE ? status.paths : [],
    )
    const warm = paths.filter(({ rung }) => rung !== 'cold').map(({ pool, rung }) => `${pool} (${rung})`)
    if (paths.length === POOLS - 1 && warm.length === 0) return []
    if (performance.now() > endMs) return warm
    await pause(1_000, undefined, { signal })
  }
}

/** The local ports of the TCP connections that a process has on the node. */
async function socketsOf(lab: Lab): Promise<(pid: number) => readonly number[]> {
  const { stdout } = await lab.exec(NODE, ['ss', '-tnpH'])
  const lines = stdout.split('\n')
  return (pid) =>
    lines.filter((line) => line.includes(`pid=${pid},`)).map((line) => Number(/:(\d+) +\S+:443 /.exec(line)?.[1] ?? 0))
}

type Listed = {
  readonly set?: { readonly elem?: readonly { readonly elem: { readonly val: number; readonly counter: Bytes } }[] }
  readonly counter?: Bytes & { readonly name: string }
}
type Bytes = { readonly bytes: number }

async function count(lab: Lab, router: string) {
  const { stdout } = await lab.exec(router, ['nft', '-j', 'list', 'table', 'inet', 'count'])
  const { nftables } = JSON.parse(stdout) as { readonly nftables: readonly Listed[] }
  const named = (name: string): number => nftables.find(({ counter }) => counter?.name === name)?.counter?.bytes ?? 0
  const elements = nftables.flatMap(({ set }) => set?.elem ?? [])
  const sessions = elements.map(({ elem }) => [elem.val, elem.counter.bytes] as const)
  return { sessions, stun: named('stun'), pairs: named('pairs') }
}
