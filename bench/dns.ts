// How many questions for the cluster's names does our DNS answer per second of CPU, and how soon, next to CoreDNS, dnsmasq and
// unbound? All four answer for the same names on one machine. A round asks each of the others before and after ours: the
// ratio of a peer's two runs says what the machine makes of equal sides.

import { createSocket } from 'node:dgram'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import packet from 'dns-packet'
import { freeUdpPorts } from '../test/lib/free-ports.ts'
import { until } from '../test/lib/netns.ts'
import { questions, type Asked } from './harness/dns-names.ts'
import { startDnsServers, type DnsProcess, type DnsServerName } from './harness/dns-servers.ts'
import { latencies, throughput } from './harness/dnsperf.ts'
import { compareTriples, type Finding, type Triple } from './harness/findings.ts'
import type { Study, StudyOptions, StudyReport } from './harness/question.ts'

const LOAD_SECONDS = 1
const PACED_SECONDS = 0.6
const PACED_PER_SECOND = 2_000
const START_TIMEOUT_MS = 20_000
const ANSWER_TIMEOUT_MS = 1_000
/** Questions whose answers are compared before anything is measured. */
const COMPARED = 60
/** An option that nobody knows keeps an answer out of our cache of whole messages. */
const UNKNOWN_OPTION = '65001:00'

export const question: Study = {
  kind: 'study',
  text: 'How many questions does our DNS answer, next to CoreDNS, dnsmasq and unbound?',
  rounds: 12,
  run,
}

type Figures = { perCore: number; perSecond: number; p50: number; p99: number; oddPerCore: number }
type Metric = keyof Figures

async function run({ rounds, progress, signal }: StudyOptions): Promise<StudyReport> {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-bench-dns-'))
  const asked = questions()
  const file = join(folder, 'questions')
  writeFileSync(file, asked.map(({ name, type }) => `${name} ${type}\n`).join(''))
  const started = startDnsServers(folder, [...(await freeUdpPorts()), ...(await freeUdpPorts())], progress)
  try {
    await sameAnswers(started.servers, asked.slice(0, COMPARED))
    const own = started.servers.find(({ name }) => name === 'fulmar')!
    const peers = started.servers.filter((server) => server !== own)
    let lost = 0
    const measure = async ({ pid, port }: DnsProcess): Promise<Figures> => {
      signal.throwIfAborted()
      const load = { port, pid, questions: file }
      const most = await throughput({ ...load, seconds: LOAD_SECONDS })
      const odd = await throughput({ ...load, seconds: LOAD_SECONDS }, UNKNOWN_OPTION)
      const paced = await latencies({ ...load, seconds: PACED_SECONDS }, PACED_PER_SECOND)
      lost += most.lost + odd.lost
      return { perCore: most.perCoreSecond, perSecond: most.perSecond, oddPerCore: odd.perCoreSecond, ...paced }
    }
    for (const server of started.servers) await measure(server)
    const triples = new Map<DnsServerName, Record<Metric, Triple[]>>()
    for (let round = 1; round <= rounds; round++) {
      const before = new Map<DnsProcess, Figures>()
      for (const peer of peers) before.set(peer, await measure(peer))
      const value = await measure(own)
      for (const peer of peers.toReversed()) {
        const after = await measure(peer)
        const lists = triples.get(peer.name) ?? { perCore: [], perSecond: [], p50: [], p99: [], oddPerCore: [] }
        for (const metric of Object.keys(lists) as Metric[])
          lists[metric].push({ before: before.get(peer)![metric], value: value[metric], after: after[metric] })
        triples.set(peer.name, lists)
      }
      progress(`round ${round} of ${rounds}: ${Math.round(value.perCore)} queries/s per core`)
    }
    return {
      findings: [...triples].flatMap(([peer, lists]) => findingsOf(peer, lists)),
      notes: notesOf(started.notes, lost),
    }
  } finally {
    await started.close()
    rmSync(folder, { recursive: true })
  }
}

function findingsOf(peer: DnsServerName, lists: Readonly<Record<Metric, readonly Triple[]>>): readonly Finding[] {
  const finding = (metric: Metric, title: string, unit: Finding['unit']): Finding => ({
    name: `dns${metric[0]!.toUpperCase()}${metric.slice(1)}Beside${peer[0]!.toUpperCase()}${peer.slice(1)}`,
    title: `${title}, ${peer}`,
    unit,
    ...compareTriples(lists[metric]),
  })
  return [
    {
      ...finding('perCore', 'per core', 'queries/s'),
      ...(peer === 'coredns' && { bound: { of: 'ratio', is: 'at least', limit: 1 } as const }),
    },
    finding('oddPerCore', 'per core, odd options', 'queries/s'),
    finding('perSecond', 'in all', 'queries/s'),
    finding('p50', 'p50', 'ms'),
    finding('p99', 'p99', 'ms'),
  ]
}

const notesOf = (notes: readonly string[], lost: number): readonly string[] => [
  `dns: per core is per second of the server's CPU time, under as much as it answers of dnsperf, 8 sockets and 100 outstanding`,
  `dns: odd options: each question has an EDNS option that nobody knows, so that no whole answer is at hand`,
  `dns: p50 and p99 at ${PACED_PER_SECOND} questions a second; equal sides: the peer's run after ours by its run before`,
  `dns: 80 % services, 20 % names that are not there; ours is the agent's DNS as a process of its own, CoreDNS serves a zone file`,
  `dns: ${lost} questions got no answer`,
  ...notes.map((note) => `dns: ${note}`),
]

/** All servers are up and say the same. @throws Error for the first question that they differ in. */
async function sameAnswers(servers: readonly DnsProcess[], asked: readonly Asked[]): Promise<void> {
  for (const { name, port } of servers)
    await until(`${name} answers`, START_TIMEOUT_MS, async () => (await ask(port, asked[0]!)) !== 'nothing')
  for (const one of asked) {
    const answers = await Promise.all(servers.map(({ port }) => ask(port, one)))
    if (new Set(answers).size > 1)
      throw new Error(
        `${one.name} ${one.type}: ${servers.map(({ name }, i) => `${name} says ${answers[i]}`).join(', ')}`,
      )
  }
}

/** The code and the answers, in order; `nothing` where none comes in time. */
async function ask(port: number, { name, type }: Asked): Promise<string> {
  const socket = createSocket('udp4')
  try {
    const message = packet.encode({ type: 'query', id: 7, flags: 0x100, questions: [{ name, type }] })
    const answered = new Promise<Buffer>((resolve) => socket.on('message', resolve).on('error', () => undefined))
    socket.send(message, port, '127.0.0.1')
    const timer = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ANSWER_TIMEOUT_MS).unref())
    const bytes = await Promise.race([answered, timer])
    if (bytes === undefined) return 'nothing'
    const { rcode, answers } = packet.decode(bytes) as unknown as { rcode: string; answers: { data: unknown }[] }
    return [rcode, ...answers.map(({ data }) => String(data)).sort()].join(' ')
  } finally {
    socket.close()
  }
}
