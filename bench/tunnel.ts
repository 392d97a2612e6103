// All that the tunnels cost, one question after the other: each can be asked alone by its own name.

import { question as direct } from './direct.ts'
import { question as idle } from './idle.ts'
import { question as portSharing } from './port-sharing.ts'
import { question as relayTcp } from './relay-tcp.ts'
import { question as relayUdp } from './relay-udp.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const PARTS: Readonly<Record<string, Study>> = {
  direct,
  'relay-udp': relayUdp,
  'relay-tcp': relayTcp,
  'port-sharing': portSharing,
  idle,
}

export const question: Study = {
  kind: 'study',
  text: 'What do the tunnels cost: direct, relay-udp, relay-tcp, their shared port, and a gateway that is idle?',
  rounds: 0,
  run,
}

/** @param options 0 rounds are what each part asks for. */
async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const reports: StudyReport[] = []
  for (const [name, part] of Object.entries(PARTS)) {
    signal.throwIfAborted()
    const own = (line: string): void => progress(`${name}: ${line}`)
    reports.push(await part.run({ rounds: rounds === 0 ? part.rounds : rounds, progress: own, signal }))
  }
  return {
    findings: reports.flatMap(({ findings }) => findings),
    notes: reports.flatMap(({ notes }) => notes),
  }
}
