// Follows the health of endpoints without the cloud: takes what the pool's gateway tells and which calls of this node go
// unanswered, tries what is doubted, and gives the chooser what it needs to know (agent/health.ts).

import type { Log } from '../lib/log.ts'
import { onAbort, pause } from '../lib/net/lifetime.ts'
import { connectTcp } from '../lib/net/tcp-connect.ts'
import { EMPTY } from '../lib/sorted-list.ts'
import type { Finding } from '../lib/wire/lan-findings.ts'
import type { Health, Paths } from './choice.ts'
import type { Cluster } from './cluster.ts'
import { runCallWatch } from './call-watch-loop.ts'
import { CHECK_MS, EndpointChecks, type Outcome } from './endpoint-checks.ts'
import { createHealthView, tcpEndpoints } from './health.ts'
import { PathChecks } from './path-checks.ts'

export type HealthLoop = {
  readonly health: () => Health | undefined
  readonly paths: () => Paths
  /** Endpoints that do not answer this node, for the others of the pool. */
  readonly findings: () => readonly Finding[]
  /** What the gateway tells, or the cluster, may be another. */
  readonly trigger: () => void
  /** Attempts to connect so far. */
  readonly counts: () => Readonly<Record<Outcome, number>>
  readonly problems: () => readonly string[]
  readonly done: Promise<void>
}

const STEP_MS = 100
/** Endpoints are listed again at most so often, while any is doubted. */
const LIST_MS = 1_000
/** What each agent tells of its own. */
const MAX_FINDINGS = 8

export function runHealth(
  options: {
    readonly node: string
    readonly cluster: () => Cluster | undefined
    /** What the gateway that this node follows tells. */
    readonly told: () => readonly Finding[]
    /** The answers of `health` or `paths` may be others. */
    readonly onChange: () => void
    readonly log: Log
  },
  signal: AbortSignal,
): HealthLoop {
  const { node, cluster, log } = options
  const endpoints = new EndpointChecks()
  const paths = new PathChecks()
  const viewOf = createHealthView()
  let view = viewOf({ node, pools: [], findings: [], down: paths.down, dead: endpoints.dead })
  let wake = (): void => undefined
  const now = (): number => performance.now()

  // Listed when something is doubted, which is rare, and not kept: there may be many.
  let list:
    | { readonly of: Cluster['services']; readonly atMs: number; readonly all: ReadonlyMap<string, string | undefined> }
    | undefined
  const known = (): ReadonlyMap<string, string | undefined> => {
    const services = cluster()?.services ?? EMPTY
    if (list === undefined || (list.of !== services && now() - list.atMs >= LIST_MS))
      list = { of: services, atMs: now(), all: tcpEndpoints({ services }) }
    return list.all
  }
  const doubt = (keys: readonly string[]): void => {
    const all = known()
    for (const key of keys) if (all.has(key)) endpoints.doubt(key, 'own calls', now())
    wake()
  }
  const watch = runCallWatch({ pools: () => cluster()?.pools, onUnanswered: doubt, log }, signal)

  let logged: ReadonlySet<string> = new Set()
  const refresh = (): void => {
    const facts = {
      node,
      pools: cluster()?.pools ?? [],
      findings: options.told(),
      down: paths.down,
      dead: endpoints.dead,
    }
    const before = view
    view = viewOf(facts)
    if (view === before) return
    for (const [key, verdict] of facts.dead)
      if (!logged.has(`${key} ${verdict}`)) log.warn({ addr: key, verdict }, 'an endpoint does not answer')
    logged = new Set([...facts.dead].map(([key, verdict]) => `${key} ${verdict}`))
    options.onChange()
  }

  const inPool = (name: string): readonly string[] => {
    const nodes = new Set(
      cluster()
        ?.pools.find((pool) => pool.name === name)
        ?.nodes.map((each) => each.name),
    )
    return [...known()].flatMap(([key, on]) => (on !== undefined && nodes.has(on) ? [key] : []))
  }
  const step = (): void => {
    const findings = options.told()
    paths.told(
      new Set(findings.flatMap((each) => (each.kind === 'path' && each.state === 'silent' ? each.pool : []))),
      now(),
    )
    const shared = findings.flatMap((each) => (each.kind === 'endpoint' ? `${each.address} ${each.port}` : []))
    for (const key of shared) if (known().has(key)) endpoints.doubt(key, 'others', now())
    if (!endpoints.idle) endpoints.retain((key) => known().has(key))
    for (const key of endpoints.step(now()))
      void tryOnce(key, signal).then((outcome) => {
        endpoints.result(key, outcome, now())
        refresh()
      })
    for (const [pool, key] of paths.step(inPool, now()))
      void tryOnce(key, signal).then((outcome) => {
        paths.result(pool, outcome !== 'silent', now())
        refresh()
      })
    if (endpoints.idle && paths.idle) list = undefined
    refresh()
  }

  const run = async (): Promise<void> => {
    while (!signal.aborted) {
      if (endpoints.idle && paths.idle) await new Promise<void>((resolve) => (wake = resolve))
      else await pause(STEP_MS, signal)
      if (!signal.aborted) step()
    }
  }
  onAbort(signal, () => wake())
  return {
    health: () => view.health,
    paths: () => view.paths,
    findings: () =>
      endpoints.met.slice(-MAX_FINDINGS).map((key) => {
        const [address, port] = key.split(' ')
        return { kind: 'endpoint', address: address!, port: Number(port) }
      }),
    trigger: () => {
      watch.trigger()
      wake()
    },
    counts: () => endpoints.counts,
    problems: watch.problems,
    done: Promise.all([run(), watch.done]).then(() => undefined),
  }
}

/** A connection that is opened and closed, and nothing said. */
async function tryOnce(key: string, signal: AbortSignal): Promise<Outcome> {
  const [address, port] = key.split(' ')
  try {
    const socket = await connectTcp(address!, Number(port), AbortSignal.any([signal, AbortSignal.timeout(CHECK_MS)]))
    socket.destroy()
    return 'open'
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? 'refused' : 'silent'
  }
}
