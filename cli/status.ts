// `fulmar status`: what the daemons of this node do now, and why. Asks the sockets of the run directory and merges.

import { hostname } from 'node:os'
import { runDirOption } from '../lib/common-options.ts'
import { flag, type Options } from '../lib/config.ts'
import { readOptions } from '../lib/net/options.ts'
import { fetchAll, type Answer } from '../lib/net/status-client.ts'
import type { HostStatus, SilentDaemon } from '../lib/problems-text.ts'
import { renderStatus } from '../lib/status-text.ts'
import { lineWidth } from './line-width.ts'

const OPTIONS = {
  json: { name: 'json', doc: 'one JSON object on stdout', fallback: 'false', parse: flag },
  runDir: runDirOption('where the daemons’ sockets are'),
} satisfies Options

/** @returns 0 if every daemon that was started answers, 1 if one does not or if there is none. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar status [--json] [--run-dir DIR]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { json, runDir } = values
  const answers = await fetchAll(runDir)
  const silent = silentOf(answers)
  const daemons = Object.fromEntries(
    answers.flatMap((answer) => (answer.kind === 'status' ? [[answer.daemon, answer.status]] : [])),
  )
  if (json) process.stdout.write(`${JSON.stringify({ daemons, silent }, undefined, 2)}\n`)
  else if (Object.keys(daemons).length === 0 && silent.length === 0) process.stderr.write(noneRuns(runDir))
  else process.stdout.write(renderStatus(hostStatuses(answers), Date.now(), silent, lineWidth()))
  return Object.keys(daemons).length > 0 && silent.length === 0 ? 0 : 1
}

/** The node's name as its daemons know it, else the machine's. */
function hostOf(answers: readonly Answer[]): string {
  for (const answer of answers) if (answer.kind === 'status' && 'node' in answer.status) return answer.status.node
  return hostname()
}

const hostStatuses = (answers: readonly Answer[]): readonly HostStatus[] =>
  answers.flatMap((answer) => (answer.kind === 'status' ? [{ host: hostOf(answers), status: answer.status }] : []))

const silentOf = (answers: readonly Answer[]): readonly SilentDaemon[] =>
  answers.flatMap((answer) =>
    answer.kind === 'dead' ? [{ host: hostOf(answers), daemon: answer.daemon, reason: reasonOf(answer) }] : [],
  )

function reasonOf({ daemon, code, reason }: Extract<Answer, { kind: 'dead' }>): string {
  switch (code) {
    case 'ECONNREFUSED':
      return `it was killed and left its socket; start it: fulmar ${daemon}`
    case 'EACCES':
      return 'its socket is root’s; run fulmar status as root'
    default:
      return reason
  }
}

const noneRuns = (runDir: string): string =>
  `fulmar status: no daemon runs here: there is no socket in ${runDir}
  on a node:     fulmar agent, and fulmar gateway where it may join its pool to others (after fulmar join)
  in the cloud:  fulmar relay
  If they run with another --run-dir, name it here too.
`
