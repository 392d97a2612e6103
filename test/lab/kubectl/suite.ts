// What an operator does to a pod by kubectl, each case with what must come out of it: output, exit code and bytes. The same
// against any API server: kubectl is the client, and a pod of `opsPod` the target.

import { COPY } from './copy.ts'
import { EXEC } from './exec.ts'
import { LOG_LINES, LOGS } from './logs.ts'
import { NODE } from './node.ts'
import { PORT_FORWARD } from './port-forward.ts'
import { PROTOCOLS, Session, type Kubectl, type Protocol, type Target } from './session.ts'

export type Outcome = {
  readonly name: string
  readonly protocol: Protocol | undefined
  readonly ok: boolean
  readonly ms: number
  /** What came out, or what was wrong with it. */
  readonly detail: string
}

const CASES = [...LOGS, ...EXEC, ...COPY, ...PORT_FORWARD, ...NODE]

export const CASE_NAMES: readonly string[] = CASES.map(({ name }) => name)

/** Containers of a pod that the suite is run against, beside the pod's server. */
export const opsContainers = [
  { name: 'shell', command: ['sleep', 'infinity'] },
  { name: 'lines', command: ['sh', '-c', `seq 1 ${LOG_LINES}; exec sleep infinity`] },
  { name: 'ticker', command: ['sh', '-c', 'i=0; while :; do echo "tick $i"; i=$((i+1)); sleep 0.1; done'] },
  { name: 'crash', command: ['sh', '-c', 'echo starts; sleep 0.5; echo last words; exit 3'] },
  { name: 'echo', command: ['cat'], stdin: true },
] as const

/** Runs all cases in turn. */
export async function runSuite(
  kubectl: Kubectl,
  target: Target,
  onOutcome: (outcome: Outcome) => void,
  only: (name: string) => boolean = () => true,
  protocols: readonly Protocol[] = PROTOCOLS,
): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = []
  for (const { name, perProtocol, run } of CASES)
    for (const protocol of perProtocol ? protocols : [undefined]) {
      if (!only(name) || (name === 'top' && !target.top)) continue
      const startedMs = performance.now()
      const ms = () => Math.round(performance.now() - startedMs)
      let outcome: Outcome
      try {
        const detail = await run(new Session(kubectl, target, protocol ?? protocols[0] ?? 'spdy'))
        outcome = { name, protocol, ok: true, ms: ms(), detail }
      } catch (error) {
        outcome = { name, protocol, ok: false, ms: ms(), detail: (error as Error).message }
      }
      outcomes.push(outcome)
      onOutcome(outcome)
    }
  return outcomes
}
