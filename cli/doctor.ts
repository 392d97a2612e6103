// `fulmar doctor`: looks at this node for whatever keeps the mesh from working or from working well. Each finding comes
// with why it matters and what to do. It changes nothing.

import { join } from 'node:path'
import { apiOptions, bpfDirOption, numbersOptions, runDirOption, stateDirOption } from '../lib/common-options.ts'
import { flag, list, type Options } from '../lib/config.ts'
import { renderDoctor, type Diagnosis } from '../lib/doctor.ts'
import { issuerFolder } from '../lib/net/authority.ts'
import { readIfPresent } from '../lib/net/files.ts'
import { damageOf, IdentityError, loadIdentity, type NodeIdentity } from '../lib/net/identity.ts'
import { readOptions } from '../lib/net/options.ts'
import { DAEMONS, fetchAll, type Answer, type Daemon } from '../lib/net/status-client.ts'
import { problemsOf } from '../lib/problems-text.ts'
import { diagnoseCloud, diagnoseRelayCertificate } from './doctor-cloud.ts'
import { diagnoseNode, diagnoseState, foreignAddresses } from './doctor-node.ts'
import { lineWidth } from './line-width.ts'

const daemon = (value: string): Daemon => {
  const found = DAEMONS.find((name) => name === value)
  if (found === undefined) throw new Error(`${value} is none of ${DAEMONS.join(', ')}`)
  return found
}

const OPTIONS = {
  for: {
    name: 'for',
    value: 'DAEMON,…',
    doc: 'the daemons that are to run here, instead of those that the state folder tells of',
    fallback: '',
    parse: list(daemon),
  },
  json: { name: 'json', doc: 'one JSON object on stdout', fallback: 'false', parse: flag },
  ...apiOptions,
  stateDir: stateDirOption('certificate and keys'),
  runDir: runDirOption('where the daemons’ sockets are'),
  bpfDir: bpfDirOption,
  rulePreference: {
    ...numbersOptions.rulePreference,
    doc: 'preference of the rule for the routing table of the mesh, as agent and gateway have it',
  },
} satisfies Options

/** @returns 0, or 1 if something is wrong. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar doctor [--for DAEMON,…] [--json]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { stateDir, runDir, json } = values
  const identity = await identityIn(stateDir)
  const daemons = values.for.length > 0 ? values.for : await daemonsOf(stateDir, identity)
  const answers = await fetchAll(runDir)
  const agent = answers
    .map((answer) => (answer.kind === 'status' ? answer.status : undefined))
    .find((status) => status?.kind === 'agent')
  const isNode = daemons.includes('agent') || daemons.includes('gateway')
  const diagnoses: readonly Diagnosis[] = [
    ...diagnoseState(stateDir),
    ...(await diagnoseNode(daemons, { ...values, services: agent?.services })),
    ...(daemons.includes('relay') ? await diagnoseRelayCertificate(stateDir) : []),
    ...(!isNode ? [] : 'node' in identity ? await diagnoseCloud(identity, values, foreignAddresses()) : [identity]),
    ...answers.flatMap((answer) => diagnoseDaemon(answer, daemons)),
  ]
  process.stdout.write(
    json ? `${JSON.stringify({ daemons, diagnoses }, undefined, 2)}\n` : renderDoctor(diagnoses, lineWidth()),
  )
  return diagnoses.some(({ verdict }) => verdict === 'wrong') ? 1 : 0
}

/** Or what is wrong with it. */
async function identityIn(stateDir: string): Promise<NodeIdentity | Diagnosis> {
  try {
    const identity = await loadIdentity(stateDir)
    const damage = damageOf(identity, stateDir)
    if (damage !== undefined) throw new IdentityError(damage)
    return identity
  } catch (error) {
    if (!(error instanceof IdentityError)) throw error
    return {
      name: 'identity',
      verdict: 'wrong',
      found: error.message,
      why: 'agents and gateways start only on a machine that has joined',
      remedy:
        'make a token on the relay (fulmar token create --node NAME), then run fulmar join here; or let pods join, by --join-relay (the chart: identity.ca)',
    }
  }
}

/** A machine on which a relay ran and that never joined is a relay only. */
async function daemonsOf(stateDir: string, identity: NodeIdentity | Diagnosis): Promise<readonly Daemon[]> {
  const isRelay = (await readIfPresent(join(issuerFolder(stateDir), 'authority.pem'))) !== undefined
  const isNode = 'node' in identity || !isRelay
  return [...(isNode ? (['agent', 'gateway'] as const) : []), ...(isRelay ? (['relay'] as const) : [])]
}

/** More would only bury the rest. */
const PROBLEMS_MAX = 8

/** One that was started, and what it knows to be wrong; one that should have been. */
function diagnoseDaemon(answer: Answer, wanted: readonly Daemon[]): readonly Diagnosis[] {
  const { daemon } = answer
  const base = { name: `fulmar ${daemon}`, why: 'it must run; what it set in the kernel goes on meanwhile' }
  const log = `its log (of a pod: kubectl -n fulmar-system logs POD --previous)`
  switch (answer.kind) {
    case 'status': {
      const problems = problemsOf(answer.status, Date.now())
      if (problems.length === 0) return [{ ...base, verdict: 'fine', found: 'runs, and knows of no problem' }]
      const rest = problems.length - PROBLEMS_MAX
      const found = [...problems.slice(0, PROBLEMS_MAX), ...(rest > 0 ? [`and ${rest} more`] : [])]
      const why = 'it runs, and says this itself'
      const remedy = 'what is wrong above comes first; fulmar status and fulmar paths say more'
      return found.map((problem) => ({ ...base, verdict: 'note', found: problem, why, remedy }))
    }
    case 'absent':
      // A node need not have a gateway.
      if (daemon === 'gateway' || !wanted.includes(daemon)) return []
      return [
        {
          ...base,
          verdict: 'note',
          found: 'was not started here',
          remedy: `start it; if it ended by itself, see ${log}`,
        },
      ]
    case 'dead': {
      const found = answer.code === 'ECONNREFUSED' ? 'is dead, and left its socket' : answer.reason
      return [{ ...base, verdict: 'wrong', found, remedy: `see ${log}, and start it again` }]
    }
  }
}
