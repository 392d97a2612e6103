// What does a call to a service cost, next to one straight to its endpoint? A node for each way to the service, in a network
// namespace with a cable to one server: BPF and nft by the agent's own code, kube-proxy's chains, and three proxies in
// userspace. Every round measures all of them by turns and a direct connection twice, from two nodes of one kind: these
// say what the machine makes of equal sides.

import type { Study, StudyOptions, StudyReport } from './harness/question.ts'
import { OTHER_SERVICES } from './service/cluster.ts'
import { findingsOf, type Figures } from './service/figures.ts'
import type { Kind } from './service/kinds.ts'
import { CONNECTIONS, measureRound } from './service/measure.ts'
import { buildWorld } from './service/world.ts'

export const question: Study = {
  kind: 'study',
  text: 'What does a call to a service cost, next to one straight to its endpoint?',
  rounds: 20,
  run,
}

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const world = await buildWorld(progress, signal)
  try {
    const prove = async (): Promise<void> => {
      for (const party of world.parties.values()) await party.prove()
    }
    await prove()
    progress('each kind goes its own way; a round that does not count')
    await measureRound(world.parties, 0, signal)
    const done: ReadonlyMap<Kind, Figures>[] = []
    while (done.length < rounds) {
      const round = await measureRound(world.parties, done.length, signal)
      done.push(round)
      const [direct, bpf, nft] = (['direct', 'bpf', 'nft'] as const).map((kind) => round.get(kind)!.rttP50)
      progress(`round ${done.length} of ${rounds}: RTT ${direct} µs direct, ${bpf} by BPF, ${nft} by nft`)
    }
    // What steps aside meanwhile must not be measured under its name.
    await prove()
    return { findings: findingsOf(done), notes: [...NOTES, ...world.notes] }
  } finally {
    await world.close()
  }
}

const NOTES: readonly string[] = [
  `service: ${OTHER_SERVICES + 1} services of 3 endpoints each; caller and server in two namespaces, messages of 64 bytes`,
  `service: beside is direct, on two nodes; equal sides are the one by the other; a ratio no further from 1 keeps its bound`,
  `service: connections are tracked everywhere, as on any node of Kubernetes, but for direct, untracked; under BPF the rules of nft are loaded`,
  `service: all that take part share one core, so that no message waits for another core to wake up`,
  `service: requests/s and Gbit/s are those of the median batch of 32 requests or 4 MiB`,
  `service: connect of a proxy ends at the proxy; first answer is connect and one message there and back`,
  `service: CPU is that of caller, proxy and server with the kernel’s for them, at ${CONNECTIONS} connections (cgroup cpu.stat)`,
  `service: proxies listen on the service’s own address, without a rule that leads there`,
]
