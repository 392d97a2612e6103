// What all daemons of a lab say of themselves, by host, with what is cut.

import { fetchAll } from '../../lib/net/status-client.ts'
import { renderStatus } from '../../lib/status-text.ts'
import type { DaemonStatus } from '../../lib/status.ts'
import { paragraph } from '../../lib/text-table.ts'
import { readCuts, type CutsByPool } from './cuts.ts'
import { pathsOf } from './names.ts'
import { ownerOf, readState } from './state.ts'
import { withShortPath } from './supervisor.ts'

export type LabStatus = {
  readonly id: string
  /** `abandoned`: its supervisor is dead; what it started may run on, but nobody restarts it. */
  readonly state: 'starting' | 'running' | 'abandoned'
  readonly startMs?: number | undefined
  readonly pools: readonly {
    readonly name: string
    readonly nat: string
    readonly nodes: readonly string[]
    readonly gateway: string
  }[]
  readonly cuts: CutsByPool
  readonly daemons: readonly { readonly host: string; readonly status: DaemonStatus }[]
  /** Daemons that were started and do not answer, and why. */
  readonly silent: readonly { readonly host: string; readonly daemon: string; readonly reason: string }[]
}

/** @throws UsageError where there is no such lab. */
export async function readStatus(id: string): Promise<LabStatus> {
  const { topology, state, startMs } = readState(id)
  const hosts = [...new Set([...topology.relays.map(({ host }) => host), ...topology.nodes.map(({ name }) => name)])]
  const [cuts, answers] = await Promise.all([
    readCuts(topology),
    Promise.all(
      hosts.map(async (host) =>
        (await withShortPath(pathsOf(id).runDir(host), fetchAll)).map((answer) => ({ host, answer })),
      ),
    ),
  ])
  return {
    id,
    state: ownerOf(id) === undefined ? 'abandoned' : state,
    startMs,
    pools: topology.pools.map(({ name, nat, nodes, gateway }) => ({ name, nat, nodes, gateway })),
    cuts,
    daemons: answers
      .flat()
      .flatMap(({ host, answer }) => (answer.kind === 'status' ? [{ host, status: answer.status }] : [])),
    silent: answers
      .flat()
      .flatMap(({ host, answer }) =>
        answer.kind === 'dead' ? [{ host, daemon: answer.daemon, reason: reasonOf(answer) }] : [],
      ),
  }
}

const reasonOf = ({ code, reason }: { readonly code: string | undefined; readonly reason: string }): string =>
  code === 'ECONNREFUSED' ? 'it is dead and left its socket' : reason.replace(/^\/proc\/self\/fd\/\d+\//, '')

/** For people: what the lab is, what is cut, then what `fulmar status` says, of all hosts at once. */
export function renderLabStatus({ id, state, pools, cuts, daemons, silent }: LabStatus, nowMs: number): string {
  const sites = pools.map(({ name, nat, nodes }) => `${name} (${nat}; ${nodes.join(' ') || 'no node'})`)
  const told =
    state === 'abandoned'
      ? `abandoned, its supervisor is dead: npm run lab -- down --id ${id} removes what is left`
      : state
  const lines = [
    paragraph('', '  ', `lab ${id}: ${told}; ${sites.join(', ')}`),
    ...Object.entries(cuts).map(([pool, kinds]) => `cut at ${pool}: ${kinds.join(', ')}\n`),
  ]
  const rest = daemons.length + silent.length === 0 ? 'no daemons run\n' : renderStatus(daemons, nowMs, silent)
  return `${lines.join('')}\n${rest}`
}
