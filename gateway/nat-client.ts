// NAT behaviour discovery (RFC 5780): asks a STUN server with two addresses from sockets of its own, which are thrown away.

import { sameSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { NatBehaviour } from '../lib/status.ts'
import type { StunMessage } from '../lib/wire/stun.ts'
import {
  furtherServers,
  isSilence,
  isUsefulOther,
  natBehaviour,
  silentAfterMs,
  UDP_BLOCKED,
  UNKNOWN_NAT,
  type FilteringTest,
  type MappingTest,
} from './nat.ts'
import { mappedOf, openStunSocket, serversToAsk, sourceAddress, type StunSocket } from './stun-client.ts'

export type NatDiscovery = {
  /** The first that answers and has two addresses is used. */
  readonly servers: readonly SocketAddress[]
  readonly family: Family
  /** For everything. */
  readonly deadlineMs?: number
}

const DEADLINE_MS = 3_000
/** Half of the time is for finding a server, the rest for the tests. */
const SEARCH_SHARE = 0.5

/**
 * Takes two round trips where nothing is filtered, a second more where something is (silence takes that long to tell
 * from loss), and never longer than the deadline. Never throws; what could not be found out is `unknown`. `mapped` is
 * left out: it would be the address of a socket that is gone.
 */
export async function discoverNat(options: NatDiscovery, signal: AbortSignal): Promise<NatBehaviour> {
  const { family, deadlineMs = DEADLINE_MS } = options
  const servers = serversToAsk(options.servers, family)
  if (servers.length === 0 || signal.aborted) return UNKNOWN_NAT
  const endsAtMs = performance.now() + deadlineMs
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const mapping = await openStunSocket(family, stopped)
    const found = await findServer(mapping, servers, deadlineMs * SEARCH_SHARE)
    if (signal.aborted) return UNKNOWN_NAT
    if (found === undefined) return UDP_BLOCKED
    const { server, other } = found
    const timeoutMs = Math.min(silentAfterMs(found.rttMs), endsAtMs - performance.now())
    const [further, [fromOther, fromOtherPort]] = await Promise.all([
      Promise.all(furtherServers(server, other).map((place) => testMapping(mapping, place, timeoutMs))),
      other === undefined ? UNTESTED : testFiltering(await openStunSocket(family, stopped), found, other, timeoutMs),
    ])
    if (signal.aborted) return UNKNOWN_NAT
    const mappings = [...found.mappings, ...further.flatMap((test) => test ?? [])]
    return natBehaviour({ mappings, server, other, fromOther, fromOtherPort })
  } catch {
    if (signal.aborted) return UNKNOWN_NAT
    // A host without this family has no sockets of it, and no way out by it.
    return UDP_BLOCKED
  } finally {
    ending.abort()
  }
}

type ChangeRequest = NonNullable<StunMessage['changeRequest']>
type Found = {
  readonly server: SocketAddress
  /** B:p2, if the server has it. */
  readonly other: SocketAddress | undefined
  readonly rttMs: number
  readonly mappings: readonly MappingTest[]
}

/** Asks all at once. The first with two addresses ends the search; else those that answer soon after the first count. */
async function findServer(
  socket: StunSocket,
  servers: readonly SocketAddress[],
  timeoutMs: number,
): Promise<Found | undefined> {
  const mappings: MappingTest[] = []
  let best: Omit<Found, 'mappings'> | undefined
  const enough = Promise.withResolvers<void>()
  let patience: NodeJS.Timeout | undefined
  const asked = servers.map(async (server) => {
    const test = await testMapping(socket, server, timeoutMs)
    if (test === undefined) return
    const { rttMs, named } = test
    mappings.push(test)
    const other = isUsefulOther(server, named) ? named : undefined
    if (best === undefined || (best.other === undefined && other !== undefined)) best = { server, other, rttMs }
    if (other !== undefined) enough.resolve()
    patience ??= setTimeout(enough.resolve, silentAfterMs(rttMs))
  })
  await Promise.race([enough.promise, Promise.all(asked)])
  clearTimeout(patience)
  return best && { ...best, mappings: [...mappings] }
}

type Answered = MappingTest & { readonly rttMs: number; readonly named: SocketAddress | undefined }

/** @returns undefined on silence. */
export async function testMapping(
  { client, port }: StunSocket,
  server: SocketAddress,
  timeoutMs: number,
): Promise<Answered | undefined> {
  const [answer, source] = await Promise.all([client.ask(server, timeoutMs), sourceAddress(server)])
  const mapped = answer && mappedOf(answer.message)
  if (answer === undefined || mapped === undefined) return undefined
  const local = source === undefined ? undefined : socketAddress(source, port)
  return { server, local, mapped, rttMs: answer.rttMs, named: answer.message.otherAddress }
}

const UNTESTED: readonly [FilteringTest, FilteringTest] = ['unknown', 'unknown']

/** Both questions go to A:p1, so neither opens the filter for the other's answer. */
async function testFiltering(
  { client }: StunSocket,
  { server, rttMs }: Found,
  other: SocketAddress,
  timeoutMs: number,
): Promise<readonly [FilteringTest, FilteringTest]> {
  const test = async (changeRequest: ChangeRequest, expected: SocketAddress): Promise<FilteringTest> => {
    const answer = await client.ask(server, timeoutMs, { changeRequest, fromAnywhere: true })
    if (answer === undefined) return isSilence(timeoutMs, rttMs) ? 'silent' : 'unknown'
    return answer.message.class === 'success' && sameSocketAddress(answer.from, expected) ? 'answered' : 'unknown'
  }
  const fromOther = test({ address: true, port: true }, other)
  const fromOtherPort = test({ address: false, port: true }, { ...server, port: other.port })
  // An answer from B:p2 says all; the other question is moot then.
  if ((await fromOther) === 'answered') return ['answered', 'unknown']
  return [await fromOther, await fromOtherPort]
}
