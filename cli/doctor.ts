// `fulmar doctor`: looks at this node for whatever keeps the mesh from working or from working well. Each finding comes
// with why it matters and what to do. It changes nothing.

import { join } from 'node:path'
import { apiOptions, bpfDirOption, runDirOption, stateDirOption } from '../lib/common-options.ts'
import { flag, list, type Options } from '../lib/config.ts'
import { renderDoctor, type Diagnosis } from '../lib/doctor.ts'
import { issuerFolder } from '../lib/net/authority.ts'
import { readIfPresent } from '../lib/net/files.ts'
import { IdentityError, loadIdentity, type NodeIdentity } from '../lib/net/identity.ts'
import { readOptions } from '../lib/net/options.ts'
import { DAEMONS, fetchAll, type Daemon } from '../lib/net/status-client.ts'
import { diagnoseCloud, diagnoseRelayCertificate } from './doctor-cloud.ts'
import { diagnoseNode, foreignAddresses } from './doctor-node.ts'
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
} satisfies Options

/** @returns 0, or 1 if something is wrong. */
export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const values = readOptions('fulmar doctor [--for DAEMON,…] [--json]', OPTIONS, argv, env)
  if (typeof values === 'number') return values
  const { stateDir, runDir, json } = values
  const identity = await identityIn(stateDir)
  const daemons = values.for.length > 0 ? values.for : await daemonsOf(stateDir, identity)
  const isNode = daemons.includes('agent') || daemons.includes('gateway')
  const diagnoses: readonly Diagnosis[] = [
    ...(await diagnoseNode(daemons, values)),
    ...(daemons.includes('relay') ? await diagnoseRelayCertificate(stateDir) : []),
    ...(!isNode ? [] : 'node' in identity ? await diagnoseCloud(identity, values, foreignAddresses()) : [identity]),
    ...(await diagnoseDaemons(runDir)),
  ]
  process.stdout.write(
    json ? `${JSON.stringify({ daemons, diagnoses }, undefined, 2)}\n` : renderDoctor(diagnoses, lineWidth()),
  )
  return diagnoses.some(({ verdict }) => verdict === 'wrong') ? 1 : 0
}

/** Or what is wrong with it. */
async function identityIn(stateDir: string): Promise<NodeIdentity | Diagnosis> {
  try {
    return await loadIdentity(stateDir)
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

/** Those that were started; what they know of problems, `fulmar status` tells. */
async function diagnoseDaemons(runDir: string): Promise<readonly Diagnosis[]> {
  const answers = await fetchAll(runDir)
  return answers.flatMap((answer): readonly Diagnosis[] => {
    const base = { name: `fulmar ${answer.daemon}`, why: 'it must run; what it set in the kernel goes on meanwhile' }
    switch (answer.kind) {
      case 'status':
        return [{ ...base, verdict: 'fine', found: 'runs; fulmar status says what it does' }]
      case 'absent':
        return []
      case 'dead':
        return [{ ...base, verdict: 'wrong', found: answer.reason, remedy: 'see its log, and start it again' }]
    }
  })
}
