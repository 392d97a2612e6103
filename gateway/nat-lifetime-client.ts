// Measures how long an idle mapping lives (gateway/nat-lifetime.ts says how), from sockets that are thrown away.

import type { SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import { pause } from '../lib/net/lifetime.ts'
import { REPETITIONS, retransmitAtMs } from './nat.ts'
import { lifetimeOf, WAITS_MS, type Lifetime, type WaitTest } from './nat-lifetime.ts'
import {
  createStunClient,
  mappedOf,
  openStunSocket,
  serversToAsk,
  type StunClient,
  type StunSocket,
} from './stun-client.ts'

export type LifetimeOptions = {
  /** The first that answers is used. */
  readonly servers: readonly SocketAddress[]
  readonly family: Family
  readonly waitsMs?: readonly number[]
}

const ANSWER_MS = retransmitAtMs(REPETITIONS) + 500
/** Linux takes a flow for a stream if it is in use 2 s after its first packet, and only then gives it the longer time. */
const STREAM_MS = 2_500
/** A test that began so much later than it should have is of another length. */
const LATE_MS = 1_000

/** @returns undefined where it cannot be found out: no answer, no RESPONSE-PORT, a NAT that spreads a host's mappings. */
export async function measureLifetime(options: LifetimeOptions, signal: AbortSignal): Promise<Lifetime | undefined> {
  const { family, waitsMs = WAITS_MS } = options
  const servers = serversToAsk(options.servers, family)
  if (servers.length === 0 || signal.aborted) return undefined
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const y: StunSocket = await openStunSocket(family, stopped, (message, from) => {
      // A refusal goes to who asked.
      if (message.class === 'error') diverted.onMessage(message, from)
    })
    const diverted = createStunClient(y.send, stopped)
    const server = await firstToAnswer(y.client, servers)
    if (server === undefined) return undefined
    const tester: Tester = { y: y.client, diverted, server, family }
    // Of no length: it shows that the server diverts its answers, and that they come through.
    if ((await testWait(tester, 0, stopped)) !== 'alive') return undefined

    const tests: WaitTest[] = []
    const enough = Promise.withResolvers<void>()
    const all = waitsMs.map(async (waitMs) => {
      tests.push({ waitMs, outcome: await testWait(tester, waitMs, stopped) })
      if (lifetimeOf(tests)?.diedMs !== undefined) enough.resolve()
    })
    await Promise.race([enough.promise, Promise.all(all)])
    return signal.aborted ? undefined : lifetimeOf(tests)
  } catch {
    // A host without this family has no sockets of it.
    return undefined
  } finally {
    ending.abort()
  }
}

type Tester = {
  readonly y: StunClient
  /** Sends from Y; its answers come to the socket whose port they were diverted to. */
  readonly diverted: StunClient
  readonly server: SocketAddress
  readonly family: Family
}

async function firstToAnswer(
  client: StunClient,
  servers: readonly SocketAddress[],
): Promise<SocketAddress | undefined> {
  const asked = servers.map(async (server) => {
    if ((await client.request(server, ANSWER_MS)) === undefined) throw new Error('silent')
    return server
  })
  return Promise.any(asked).catch(() => undefined)
}

/** @param waitMs 0 tests at once, without making a stream of the mapping. */
async function testWait(
  { y, diverted, server, family }: Tester,
  waitMs: number,
  signal: AbortSignal,
): Promise<WaitTest['outcome']> {
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const x = await openStunSocket(family, stopped, (message, from) => void diverted.onMessage(message, from))
    let mapped = await x.client.request(server, ANSWER_MS)
    if (waitMs > 0) {
      await pause(STREAM_MS, stopped)
      mapped = await x.client.request(server, ANSWER_MS)
    }
    if (mapped === undefined) return 'unknown'
    const idleSinceMs = performance.now()
    await pause(waitMs, stopped)
    if (stopped.aborted || performance.now() - idleSinceMs > waitMs + LATE_MS) return 'unknown'
    const answer = await diverted.ask(server, ANSWER_MS, { responsePort: mapped.port })
    if (answer !== undefined) return mappedOf(answer.message) === undefined ? 'unknown' : 'alive'
    // Silence counts if the server is there, and sees us where it saw us before.
    const now = await y.request(server, ANSWER_MS)
    return now?.address === mapped.address ? 'silent' : 'unknown'
  } finally {
    ending.abort()
  }
}
