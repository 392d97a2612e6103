// `fulmar paths`: how this node's gateway reaches every other pool, and of one pool why so, what was tried, and what a
// better path would take.

import { setTimeout as sleep } from 'node:timers/promises'
import { runDirOption } from '../lib/common-options.ts'
import { describeOptions, flag, parseOptions, type Options } from '../lib/config.ts'
import { EX_USAGE } from '../lib/net/lifetime.ts'
import { fetchAll, type Answer } from '../lib/net/status-client.ts'
import { renderPath, renderPaths } from '../lib/paths-text.ts'
import type { AgentStatus, GatewayStatus, PathStatus } from '../lib/status.ts'
import { suggest } from '../lib/suggest.ts'
import { lineWidth } from './line-width.ts'

const OPTIONS = {
  json: { name: 'json', doc: 'one JSON object on stdout', fallback: 'false', parse: flag },
  watch: { name: 'watch', doc: 'again whenever a path changes, until Ctrl-C', fallback: 'false', parse: flag },
  runDir: runDirOption('where the daemons’ sockets are'),
} satisfies Options
const USAGE = 'fulmar paths [POOL|NODE] [--json] [--watch] [--run-dir DIR]'

type Found =
  | {
      readonly kind: 'found'
      readonly gateway: GatewayStatus
      readonly paths: readonly PathStatus[]
      /** One pool was asked for: the paths are those to its gateways, the active one's first. */
      readonly one: boolean
    }
  | { readonly kind: 'none'; readonly reason: string }

const WATCH_MS = 1_000
/** Home, and clear what is below: a terminal shows the new text in the place of the old. */
const REPAINT = '\u001B[H\u001B[J'

/** @returns 0 if every pair has a path, or was told that nothing is sent; 1 if one has none or nobody can tell. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const parsed = parseOptions(OPTIONS, argv, env)
  if (parsed.kind === 'help') {
    process.stdout.write(`${USAGE}\n\n${describeOptions(OPTIONS)}\n`)
    return 0
  }
  const errors =
    parsed.kind === 'invalid'
      ? parsed.errors
      : parsed.positional.slice(1).map((word) => `${word}: nothing is expected here; one POOL or NODE at a time`)
  if (parsed.kind === 'invalid' || errors.length > 0) {
    for (const error of errors) process.stderr.write(`fulmar paths: ${error}\n`)
    return EX_USAGE
  }
  const { json, watch, runDir } = parsed.values
  const ask = async (): Promise<Found> => find(await fetchAll(runDir), parsed.positional[0], runDir)
  if (watch) return follow(ask, json)
  const found = await ask()
  if (found.kind === 'none') {
    process.stderr.write(`fulmar paths: ${found.reason}\n`)
    return 1
  }
  process.stdout.write(json ? `${JSON.stringify(jsonOf(found), undefined, 2)}\n` : textOf(found))
  return found.paths.some(({ rung }) => rung === 'none') ? 1 : 0
}

/** On a terminal in place, every second; elsewhere a line of JSON or a text whenever a path is another one. */
async function follow(ask: () => Promise<Found>, json: boolean): Promise<never> {
  const inPlace = process.stdout.isTTY && !json
  let before = ''
  for (;;) {
    const found = await ask()
    const news = JSON.stringify(
      found.kind === 'none'
        ? found.reason
        : found.paths.map(({ pool, rung, since, endpoint }) => [pool, rung, since, endpoint]),
    )
    if (inPlace || news !== before) {
      if (found.kind === 'none') process.stderr.write(`${inPlace ? REPAINT : ''}fulmar paths: ${found.reason}\n`)
      else if (json) process.stdout.write(`${JSON.stringify(jsonOf(found))}\n`)
      else if (inPlace) process.stdout.write(REPAINT + textOf(found))
      else process.stdout.write(`${new Date().toISOString()}\n${textOf(found)}\n`)
    }
    before = news
    await sleep(WATCH_MS)
  }
}

function jsonOf({ gateway, paths }: Extract<Found, { kind: 'found' }>) {
  const { node, pool, nat, candidates } = gateway
  return { node, pool, nat, candidates, paths }
}

function textOf({ gateway, paths, one }: Extract<Found, { kind: 'found' }>): string {
  const [nowMs, width] = [Date.now(), lineWidth()]
  if (one || paths.length === 1) return paths.map((path) => renderPath(gateway, path, nowMs, width)).join('\n')
  const hint = paths.length === 0 ? '' : '\nfulmar paths POOL tells the whole story of one.\n'
  // On a terminal the last column may be cut; a file or another program gets it whole.
  return renderPaths(gateway, nowMs, process.stdout.isTTY ? width : Infinity) + hint
}

function find(answers: readonly Answer[], pool: string | undefined, runDir: string): Found {
  const gateway = statusOf(answers, 'gateway')
  if (gateway === undefined) return { kind: 'none', reason: whyNoGateway(answers, runDir) }
  const agent = statusOf(answers, 'agent')
  if (gateway.paths.length === 0 && agent?.gateway !== undefined)
    return { kind: 'none', reason: `the gateway here stands by; ${activeGateway(agent.pool, agent.gateway.node)}` }
  if (pool === undefined) return { kind: 'found', gateway, paths: gateway.paths, one: false }
  const paths = gateway.paths.filter((path) => path.pool === pool || path.node === pool)
  const activeFirst = paths.toSorted((a, b) => Number(a.standby ?? false) - Number(b.standby ?? false))
  if (paths.length > 0) return { kind: 'found', gateway, paths: activeFirst, one: true }
  const known = [...new Set(gateway.paths.map((path) => path.pool))]
  const meant = suggest(pool, known)
  const hint =
    pool === gateway.pool
      ? 'it is the pool of this node'
      : meant === undefined
        ? `there are ${known.join(', ') || 'none'}`
        : `did you mean ${meant}?`
  return { kind: 'none', reason: `${pool}: no other pool has this name; ${hint}` }
}

type Kinds = { readonly agent: AgentStatus; readonly gateway: GatewayStatus }

function statusOf<K extends keyof Kinds>(answers: readonly Answer[], daemon: K): Kinds[K] | undefined {
  const answer = answers.find((candidate) => candidate.daemon === daemon)
  return answer?.kind === 'status' ? (answer.status as Kinds[K]) : undefined
}

/** Nobody here can tell; who can is said where it is known. */
function whyNoGateway(answers: readonly Answer[], runDir: string): string {
  const answer = answers.find(({ daemon }) => daemon === 'gateway')
  if (answer?.kind === 'dead') {
    const reason =
      answer.code === 'EACCES'
        ? 'its socket is root’s; run fulmar paths as root'
        : answer.code === 'ECONNREFUSED'
          ? 'it was killed and left its socket; start it: fulmar gateway'
          : answer.reason
    return `the gateway of this node does not answer: ${reason}`
  }
  const agent = statusOf(answers, 'agent')
  if (agent === undefined) return `no gateway runs here: there is no socket in ${runDir}; see fulmar status`
  const where =
    agent.gateway === undefined
      ? `the agent knows no other one of pool ${agent.pool}; start it here: fulmar gateway`
      : activeGateway(agent.pool, agent.gateway.node)
  return `no gateway runs on this node, ${agent.node}; ${where}`
}

const activeGateway = (pool: string, node: string): string =>
  `the active gateway of pool ${pool} is on ${node}: run fulmar paths there`
