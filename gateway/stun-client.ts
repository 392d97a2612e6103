// Questions to STUN servers: "what is my address?" through a socket that others use too, and the whole of NAT behaviour
// discovery through sockets of its own. A lost packet is repeated soon; a server that is silent is a result, no error.

import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { sameSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import type { NatBehaviour } from '../lib/status.ts'
import { decodeStun, encodeStun, METHOD_BINDING, TRANSACTION_ID_BYTES, type StunMessage } from '../lib/wire/stun.ts'
import {
  furtherServers,
  isSilence,
  isUsefulOther,
  natBehaviour,
  retransmitAtMs,
  silentAfterMs,
  UDP_BLOCKED,
  UNKNOWN_NAT,
  type FilteringTest,
  type MappingTest,
} from './nat.ts'

export type Binder = {
  /** @returns the address that the server sees; undefined if it does not answer in time, or with an error. */
  readonly request: (server: SocketAddress, timeoutMs: number) => Promise<SocketAddress | undefined>
  /** Hands in a message that arrived on the socket. @returns true if it answers one of our requests. */
  readonly onDatagram: (message: StunMessage, datagram: Uint8Array, from: SocketAddress) => boolean
}

type ChangeRequest = NonNullable<StunMessage['changeRequest']>
type Answer = { readonly message: StunMessage; readonly from: SocketAddress; readonly rttMs: number }
type Asker = Binder & {
  /** Resolves to undefined on silence. With `change` the answer may come from anywhere. */
  readonly ask: (server: SocketAddress, timeoutMs: number, change?: ChangeRequest) => Promise<Answer | undefined>
}
type Pending = {
  readonly server: SocketAddress
  readonly anywhere: boolean
  readonly sentAtMs: number
  readonly settle: (answer: Answer | undefined) => void
}

/** Requests in flight on one socket; one more is answered at once by undefined. */
const MAX_PENDING = 64

/** @param send puts a datagram on the socket. @param signal ends all requests in flight. */
export function createBinder(send: (datagram: Uint8Array, to: SocketAddress) => void, signal?: AbortSignal): Asker {
  const pending = new Map<string, Pending>()
  const endAll = (): void => {
    for (const { settle } of pending.values()) settle(undefined)
  }
  signal?.addEventListener('abort', endAll, { once: true })

  const ask: Asker['ask'] = (server, timeoutMs, change) => {
    if (pending.size >= MAX_PENDING || signal?.aborted === true) return Promise.resolve(undefined)
    const transactionId = randomBytes(TRANSACTION_ID_BYTES)
    const datagram = encodeStun({
      class: 'request',
      method: METHOD_BINDING,
      transactionId,
      classic: false,
      unknownAttributes: [],
      ...(change === undefined ? {} : { changeRequest: change }),
    })
    const key = keyOf(transactionId)
    return new Promise((resolve) => {
      const sentAtMs = performance.now()
      let timer: NodeJS.Timeout
      const settle = (answer: Answer | undefined): void => {
        clearTimeout(timer)
        pending.delete(key)
        resolve(answer)
      }
      pending.set(key, { server, anywhere: change !== undefined, sentAtMs, settle })
      const transmit = (repetition: number): void => {
        send(datagram, server)
        const nextMs = retransmitAtMs(repetition + 1)
        const waitedMs = performance.now() - sentAtMs
        if (nextMs < timeoutMs) timer = setTimeout(() => transmit(repetition + 1), Math.max(1, nextMs - waitedMs))
        else timer = setTimeout(() => settle(undefined), Math.max(1, timeoutMs - waitedMs))
      }
      transmit(0)
    })
  }

  return {
    ask,
    request: async (server, timeoutMs) => {
      const answer = await ask(server, timeoutMs)
      return answer && mappedOf(answer.message)
    },
    onDatagram: (message, _datagram, from) => {
      if (message.class !== 'success' && message.class !== 'error') return false
      const asked = pending.get(keyOf(message.transactionId))
      if (asked === undefined) return false
      const genuine = asked.anywhere || sameSocketAddress(from, asked.server)
      const understood = message.class === 'error' || message.unknownAttributes.length === 0
      if (genuine && understood) asked.settle({ message, from, rttMs: performance.now() - asked.sentAtMs })
      return true
    },
  }
}

export type NatDiscovery = {
  /** Servers of one family; the first that answers and has two addresses is used. At most 4 are asked. */
  readonly servers: readonly SocketAddress[]
  readonly family: Family
  /** For everything. */
  readonly deadlineMs?: number
}

const DEADLINE_MS = 3_000
/** Half of the time is for finding a server, the rest for the tests. */
const SEARCH_SHARE = 0.5
const MAX_SERVERS = 4

/**
 * Takes two round trips where nothing is filtered, a second more where something is (silence takes that long to tell
 * from loss), and never longer than the deadline. Never throws; what could not be found out is `unknown`. `mapped` is
 * left out: it would be the address of a socket that is gone.
 */
export async function discoverNat(options: NatDiscovery, signal: AbortSignal): Promise<NatBehaviour> {
  const { family, deadlineMs = DEADLINE_MS } = options
  const servers = options.servers.filter((server) => server.family === family).slice(0, MAX_SERVERS)
  if (servers.length === 0 || signal.aborted) return UNKNOWN_NAT
  const endsAtMs = performance.now() + deadlineMs
  const ending = new AbortController()
  const stopped = AbortSignal.any([signal, ending.signal])
  try {
    const mapping = await openAsker(family, stopped)
    const found = await findServer(mapping.asker, servers, deadlineMs * SEARCH_SHARE)
    if (signal.aborted) return UNKNOWN_NAT
    if (found === undefined) return UDP_BLOCKED
    const { server, other } = found
    const timeoutMs = Math.min(silentAfterMs(found.rttMs), endsAtMs - performance.now())
    const [further, [fromOther, fromOtherPort], source] = await Promise.all([
      Promise.all(furtherServers(server, other).map((place) => testMapping(mapping.asker, place, timeoutMs))),
      other === undefined ? UNTESTED : testFiltering(await openAsker(family, stopped), found, other, timeoutMs),
      sourceAddress(server),
    ])
    if (signal.aborted) return UNKNOWN_NAT
    const mappings = [...found.mappings, ...further.filter((test) => test !== undefined)]
    const local = source === undefined ? undefined : socketAddress(source, mapping.port)
    return natBehaviour({ local, mappings, server, other, fromOther, fromOtherPort })
  } catch {
    if (signal.aborted) return UNKNOWN_NAT
    // A host without this family has no sockets of it, and no way out by it.
    return UDP_BLOCKED
  } finally {
    ending.abort()
  }
}

type Found = {
  readonly server: SocketAddress
  /** B:p2, if the server has it. */
  readonly other: SocketAddress | undefined
  readonly rttMs: number
  readonly mappings: readonly MappingTest[]
}

/** Asks all at once. The first with two addresses ends the search; else those that answer soon after the first count. */
async function findServer(
  asker: Asker,
  servers: readonly SocketAddress[],
  timeoutMs: number,
): Promise<Found | undefined> {
  const mappings: MappingTest[] = []
  let best: Omit<Found, 'mappings'> | undefined
  const enough = Promise.withResolvers<void>()
  let patience: NodeJS.Timeout | undefined
  const asked = servers.map(async (server) => {
    const answer = await asker.ask(server, timeoutMs)
    const mapped = answer && mappedOf(answer.message)
    if (answer === undefined || mapped === undefined) return
    mappings.push({ server, mapped })
    const named = answer.message.otherAddress
    const other = isUsefulOther(server, named) ? named : undefined
    if (best === undefined || (best.other === undefined && other !== undefined))
      best = { server, other, rttMs: answer.rttMs }
    if (other !== undefined) enough.resolve()
    patience ??= setTimeout(enough.resolve, silentAfterMs(answer.rttMs))
  })
  await Promise.race([enough.promise, Promise.all(asked)])
  clearTimeout(patience)
  return best && { ...best, mappings: [...mappings] }
}

async function testMapping(asker: Asker, server: SocketAddress, timeoutMs: number): Promise<MappingTest | undefined> {
  const answer = await asker.ask(server, timeoutMs)
  const mapped = answer && mappedOf(answer.message)
  return mapped && { server, mapped }
}

const UNTESTED: readonly [FilteringTest, FilteringTest] = ['unknown', 'unknown']

/** Both questions go to A:p1, so neither opens the filter for the other's answer. */
async function testFiltering(
  { asker }: { readonly asker: Asker },
  { server, rttMs }: Found,
  other: SocketAddress,
  timeoutMs: number,
): Promise<readonly [FilteringTest, FilteringTest]> {
  const test = async (change: ChangeRequest, expected: SocketAddress): Promise<FilteringTest> => {
    const answer = await asker.ask(server, timeoutMs, change)
    if (answer === undefined) return isSilence(timeoutMs, rttMs) ? 'silent' : 'unknown'
    return answer.message.class === 'success' && sameSocketAddress(answer.from, expected) ? 'answered' : 'unknown'
  }
  const fromOther = test({ address: true, port: true }, other)
  const fromOtherPort = test({ address: false, port: true }, { ...server, port: other.port })
  // An answer from B:p2 says all; the other question is moot then.
  if ((await fromOther) === 'answered') return ['answered', 'unknown']
  return [await fromOther, await fromOtherPort]
}

/** A socket of its own on a port of the kernel's choice, closed when the signal aborts. */
async function openAsker(
  family: Family,
  signal: AbortSignal,
): Promise<{ readonly asker: Asker; readonly port: number }> {
  const socket = await open(family, (socket, done) => socket.bind(0, done))
  if (signal.aborted) {
    socket.close()
    throw signal.reason
  }
  signal.addEventListener('abort', () => socket.close(), { once: true })
  const asker = createBinder((datagram, to) => socket.send(datagram, to.port, to.address, () => {}), signal)
  socket.on('error', () => {})
  socket.on('message', (datagram, { address, port }) => {
    const message = decodeStun(datagram)
    const from = socketAddress(address, port)
    if (message !== undefined && from !== undefined) asker.onDatagram(message, datagram, from)
  })
  return { asker, port: socket.address().port }
}

/** The address that the kernel sends from to this server; nothing is sent. */
async function sourceAddress({ address, port, family }: SocketAddress): Promise<string | undefined> {
  try {
    const socket = await open(family, (socket, done) => socket.connect(port, address, done))
    const source = socket.address().address
    socket.close()
    return source
  } catch {
    return undefined
  }
}

function open(family: Family, start: (socket: Socket, done: (error?: Error) => void) => void): Promise<Socket> {
  const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6 })
  return new Promise((resolve, reject) => {
    // bind() reports a failure as an event, connect() to its callback.
    const done = (error?: Error): void => {
      socket.removeAllListeners('error')
      if (error === undefined) return resolve(socket)
      socket.close()
      reject(error)
    }
    socket.once('error', done)
    start(socket, done)
  })
}

const mappedOf = (message: StunMessage): SocketAddress | undefined =>
  message.class === 'success' ? (message.xorMappedAddress ?? message.mappedAddress) : undefined

const keyOf = (transactionId: Uint8Array): string =>
  Buffer.from(transactionId.buffer, transactionId.byteOffset, transactionId.length).toString('latin1')
