// Calls at a steady rate, each over a connection of its own, begun when it is due whether or not those before have ended;
// and calls by name, each tried again until it succeeds. Argument: JSON of Calling. A line on stdin asks for what came of
// all calls that began since the last, and is answered by a line of JSON (Came) once they have ended.

import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import packet from 'dns-packet'

export type Calling = {
  readonly perSecond: number
  /** Called in turn. */
  readonly addresses: readonly string[]
  readonly port: number
  /** What a server is told before it answers; those of nothing answer at once. */
  readonly says?: string
  readonly byName?: {
    readonly name: string
    /** Asked in turn for an address of their own family. */
    readonly nameservers: readonly string[]
    readonly everyMs: number
    /** A call that has not succeeded by then has failed. */
    readonly withinMs: number
  }
}
type ByName = NonNullable<Calling['byName']>
export type Failure = { readonly atMs: number; readonly endedMs: number; readonly to: string; readonly error: string }
export type Came = {
  readonly calls: number
  /** Begun, over all the time and in the slowest of its whole half seconds. */
  readonly perSecond: number
  readonly leastPerSecond: number
  readonly slowestMs: number
  readonly failures: readonly Failure[]
  /** The pods that the answers name, else their first words. */
  readonly by: readonly string[]
  readonly names: number
  readonly nameFailures: readonly Failure[]
  /** Of those that succeeded. */
  readonly slowestNameMs: number
}

/** A SYN that was lost comes again after a second: that is late, but no failure. */
const TIMEOUT_MS = 2_000
const TICK_MS = 4
const SLOT_MS = 500
const QUESTION_TIMEOUT_MS = 500
const RETRY_MS = 50

type Call = { readonly atMs: number; readonly ms: number; readonly to: string; readonly by?: string; error?: string }

function callOnce(
  address: string,
  { port, says }: Pick<Calling, 'port' | 'says'>,
  timeoutMs = TIMEOUT_MS,
): Promise<Call> {
  const atMs = performance.now()
  return new Promise((resolve) => {
    const socket = connect(port, address)
    if (says !== undefined) socket.write(says)
    const end = (more: { by: string } | { error: string }): void => {
      clearTimeout(timer)
      // Nothing waits in TIME_WAIT.
      socket.resetAndDestroy()
      resolve({ atMs, ms: performance.now() - atMs, to: address, ...more })
    }
    const timer = setTimeout(() => end({ error: 'timeout' }), timeoutMs)
    socket.on('data', (bytes: Buffer) => end({ by: answererOf(bytes.toString()) }))
    socket.on('error', ({ code, message }: NodeJS.ErrnoException) => end({ error: code ?? message }))
    socket.on('end', () => end({ error: 'ended' }))
  })
}

const answererOf = (text: string): string => /"pod":"([^"]*)"/.exec(text)?.[1] ?? text.split(' ')[0]!

/** @throws Error of the socket, of the answer, or that none came. */
function addressOf(name: string, nameserver: string): Promise<string> {
  const type = isIPv6(nameserver) ? 'AAAA' : 'A'
  const socket = createSocket(isIPv6(nameserver) ? 'udp6' : 'udp4')
  return new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no answer')), QUESTION_TIMEOUT_MS)
    socket.on('error', reject)
    socket.on('message', (bytes) => {
      const { answers, rcode } = packet.decode(bytes) as unknown as { answers: { data: string }[]; rcode: string }
      clearTimeout(timer)
      if (answers[0] === undefined) reject(new Error(rcode))
      else resolve(answers[0].data)
    })
    socket.connect(53, nameserver, () =>
      socket.send(packet.encode({ type: 'query', id: 1, flags: 0x100, questions: [{ name, type }] }), (error) => {
        if (error !== null) reject(error)
      }),
    )
  }).finally(() => socket.close())
}

async function callByName(calling: Calling, byName: ByName, nameserver: string): Promise<Call> {
  const atMs = performance.now()
  const passedMs = () => performance.now() - atMs
  let error = ''
  while (passedMs() < byName.withinMs) {
    try {
      const call = await callOnce(await addressOf(byName.name, nameserver), calling, QUESTION_TIMEOUT_MS)
      if (call.error === undefined) return { atMs, ms: passedMs(), to: nameserver }
      ;({ error } = call)
    } catch (cause) {
      error = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message
    }
    await sleep(RETRY_MS)
  }
  return { atMs, ms: passedMs(), to: nameserver, error }
}

function cameOf(calls: readonly Call[], names: readonly Call[]): Came {
  const failures = (list: readonly Call[]): readonly Failure[] =>
    list.flatMap(({ atMs, ms, to, error }) => (error === undefined ? [] : [{ atMs, endedMs: atMs + ms, to, error }]))
  const slowest = (list: readonly Call[]) =>
    Math.round(list.reduce((most, { ms, error }) => (error === undefined ? Math.max(most, ms) : most), 0))
  const slots = Map.groupBy(calls, ({ atMs }) => Math.floor(atMs / SLOT_MS))
  const whole = [...slots.keys()].sort((a, b) => a - b).slice(1, -1)
  return {
    calls: calls.length,
    perSecond: Math.round((calls.length - 1) / (((calls.at(-1)?.atMs ?? 0) - (calls[0]?.atMs ?? 0)) / 1_000)),
    leastPerSecond: Math.min(...whole.map((slot) => slots.get(slot)!.length * (1_000 / SLOT_MS))),
    slowestMs: slowest(calls),
    failures: failures(calls),
    by: [...new Set(calls.flatMap(({ by }) => by ?? []))].sort(),
    names: names.length,
    nameFailures: failures(names),
    slowestNameMs: slowest(names),
  }
}

if (import.meta.main) {
  const calling = JSON.parse(process.argv[2]!) as Calling
  const { perSecond, addresses, byName } = calling
  let calls: Promise<Call>[] = []
  let names: Promise<Call>[] = []
  let [count, nameCount] = [0, 0]
  const startedMs = performance.now()
  setInterval(() => {
    const passedMs = performance.now() - startedMs
    for (const due = (passedMs * perSecond) / 1_000; count < due; count++)
      calls.push(callOnce(addresses[count % addresses.length]!, calling))
    if (byName === undefined) return
    for (; nameCount < passedMs / byName.everyMs; nameCount++)
      names.push(callByName(calling, byName, byName.nameservers[nameCount % byName.nameservers.length]!))
  }, TICK_MS)
  for await (const _ of createInterface({ input: process.stdin })) {
    const begun = [calls, names] as const
    ;[calls, names] = [[], []]
    process.stdout.write(`${JSON.stringify(cameOf(await Promise.all(begun[0]), await Promise.all(begun[1])))}\n`)
  }
  process.exit()
}
