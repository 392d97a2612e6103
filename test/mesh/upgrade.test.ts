// `helm upgrade` of a whole mesh under calls by ClusterIP, each over a connection of its own: every daemon is ended and its
// successor started, as the update strategies of the chart do it, agents, gateways and relays at the same time. No call
// fails. Where FROM or TO names a checkout of another version, the mesh runs that one before, or after.

import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { Rung } from '../../lib/status.ts'
import type { Came, Calling } from '../contract/fault-caller.ts'
import type { DaemonName } from '../lab/daemons.ts'
import type { Lab } from '../lab/lab.ts'
import type { NatType } from '../lab/nat.ts'
import { FULMAR } from '../lab/paths.ts'
import { addressOf, gatewaysOf, getOnce, LONG, openMesh, UNLESS_LONG, until } from './mesh.ts'

t.setTimeout(600_000)

const POOLS = ['bay', 'cape'] as const
/** From the end of a process until its successor starts: a node has the image already, or must pull it. */
const AWAY_MS = Number(process.env['AWAY'] ?? (LONG ? 5_000 : 1_000))
const [BEFORE_MS, AFTER_MS] = [2_000, 3_000]
/** minReadySeconds of relays and gateways; where none hands over to another, there is nothing to wait for. */
const READY_MS = 10_000
const fulmarOf = (checkout: string | undefined): string => (checkout === undefined ? FULMAR : `${checkout}/cli/main.ts`)
const [before, after] = [fulmarOf(process.env['FROM']), fulmarOf(process.env['TO'])]
const CALLER = fileURLToPath(import.meta.resolve('../contract/fault-caller.ts'))
const REQUEST = 'GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n'

type Row = {
  readonly name: string
  readonly nat: NatType
  readonly rung: Rung
  readonly gateways: number
  readonly relays: number
  /** Each packet of which takes a process of ours some time, where it is not the kernel's. */
  readonly perSecond: number
  readonly long?: true
}
const rows: readonly Row[] = [
  { name: 'direct', nat: 'port-restricted', rung: 'direct', gateways: 1, relays: 1, perSecond: 500 },
  {
    name: 'direct, two gateways each',
    nat: 'port-restricted',
    rung: 'direct',
    gateways: 2,
    relays: 1,
    perSecond: 500,
    long: true,
  },
  {
    name: 'over UDP of the relay',
    nat: 'symmetric',
    rung: 'relay-udp',
    gateways: 1,
    relays: 1,
    perSecond: 500,
    long: true,
  },
  {
    name: 'over TCP of two relays',
    nat: 'udp-blocked',
    rung: 'relay-tcp',
    gateways: 2,
    relays: 2,
    perSecond: 60,
    long: true,
  },
]
const only = process.env['ONLY']
const skipOf = ({ name, long }: Row) => (only === undefined ? long === true && UNLESS_LONG : only !== name)

for (const [index, row] of rows.entries())
  t.test(row.name, { skip: skipOf(row) }, async (t) => {
    const { nat, gateways, relays, perSecond } = row
    const lab = await openMesh(t, `u${index}`, {
      pools: POOLS,
      nodes: 2,
      gateways,
      relays,
      underlay: 'v4',
      nat: new Map(POOLS.map((pool) => [pool, nat])),
      fulmar: before,
    })
    await getOnce(lab, 'bay1-client', `http://${addressOf(lab, 'cape1-shop', 4)}:8080/`, 4)
    await settled(lab, row)
    const callers = [
      { what: 'across pools, bay to cape', ...startCaller(lab, 'bay1-client', 'cape', perSecond / 4) },
      { what: 'across pools, cape to bay', ...startCaller(lab, 'cape2-client', 'bay', perSecond / 4) },
      { what: 'inside bay', ...startCaller(lab, 'bay2-client', 'bay', perSecond / 4) },
      { what: 'inside cape', ...startCaller(lab, 'cape1-client', 'cape', perSecond / 4) },
    ]
    await sleep(BEFORE_MS)
    for (const { came } of callers) await came()

    const startedAt = performance.now()
    const log = (line: string) => t.comment(`${Math.round(performance.now() - startedAt)} ms: ${line}`)
    const { nodes, pools } = lab.topology
    const inTurn = async (daemon: DaemonName, hosts: readonly string[]) => {
      for (const host of hosts) {
        await upgrade(lab, host, daemon, log)
        if ((daemon === 'gateway' && gateways > 1) || (daemon === 'relay' && relays > 1)) await sleep(READY_MS)
      }
    }
    await Promise.all([
      inTurn(
        'agent',
        nodes.map(({ name }) => name),
      ),
      inTurn(
        'gateway',
        pools.flatMap((pool) => pool.gateways),
      ),
      inTurn(
        'relay',
        lab.topology.relays.map(({ host }) => host),
      ),
    ])
    await sleep(AFTER_MS)
    for (const { what, came, end } of callers) {
      const result = await came()
      end()
      const { calls, perSecond, slowestMs, failures, by, names, nameFailures, slowestNameMs } = result
      t.comment(
        `${what}: ${calls} calls, ${perSecond}/s, slowest ${slowestMs} ms, ${failures.length} failed; ${names} by name, slowest ${slowestNameMs} ms, ${nameFailures.length} failed; by ${by.join(' ')}`,
      )
      for (const f of failures.slice(0, 5))
        t.comment(`  ${Math.round(f.atMs)}–${Math.round(f.endedMs)} ${f.to} ${f.error}`)
      t.equal(failures.length, 0, `${what}: none of ${calls} calls failed`)
      t.equal(nameFailures.length, 0, `${what}: none of ${names} calls by name failed`)
    }
    await settled(lab, row)
  })

/** Every gateway of a pool has a path to the active one of the other, and all are on one rung. */
async function settled(lab: Lab, { rung, gateways }: Row): Promise<void> {
  let seen: unknown
  await until(
    `all paths between the pools ${rung}`,
    async () => {
      const sites = (await gatewaysOf(lab)).filter(({ pool }) => POOLS.some((name) => name === pool))
      const active = sites.flatMap(({ node, role }) => (role === undefined || role.state === 'active' ? [node] : []))
      const paths = sites.flatMap(({ node, paths }) =>
        paths.flatMap((path) => (active.includes(path.node) ? [{ node, to: path.node, rung: path.rung }] : [])),
      )
      seen = { active, paths }
      const between = paths.filter(({ to }) => sites.some(({ node }) => node === to))
      return (
        active.length === POOLS.length &&
        between.length === POOLS.length * gateways &&
        between.every((path) => path.rung === rung)
      )
    },
    { seen: () => seen },
  )
}

async function upgrade(lab: Lab, host: string, daemon: DaemonName, log: (line: string) => void): Promise<void> {
  const at = performance.now()
  await lab.stop(host, daemon, 'SIGTERM')
  const ended = performance.now()
  await sleep(AWAY_MS)
  await lab.startAgain(host, daemon, (command) => command.map((word) => (word === before ? after : word)))
  log(
    `${daemon} of ${host}: ended in ${Math.round(ended - at)} ms, answers ${Math.round(performance.now() - ended)} ms later`,
  )
}

/** Calls of the Service of a pool from a pod. */
function startCaller(
  lab: Lab,
  host: string,
  pool: string,
  perSecond: number,
): { came: () => Promise<Came>; end: () => void } {
  const index = ['cloud', ...POOLS].indexOf(pool)
  const calling: Calling = {
    perSecond,
    addresses: [`10.96.16.${index}`, `fd00:96::${(0x1000 + index).toString(16)}`],
    port: 80,
    says: REQUEST,
    byName: {
      name: `web-${pool}.shop.svc.cluster.local`,
      nameservers: ['10.96.0.10'],
      everyMs: 200,
      withinMs: AWAY_MS + 10_000,
    },
  }
  const child: ChildProcess = lab.spawn(host, [process.execPath, CALLER, JSON.stringify(calling)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  return {
    came: async () => {
      child.stdin!.write('\n')
      return JSON.parse((await lines.next()).value as string) as Came
    },
    end: () => void child.kill(),
  }
}
