// Questions to STUN servers, through a socket that others use too or one of their own. A lost packet is repeated soon; a
// server that is silent is a result, no error.

import { randomBytes } from 'node:crypto'
import { createSocket, type Socket } from 'node:dgram'
import { sameSocketAddress, socketAddress, type SocketAddress } from '../lib/address.ts'
import type { Family } from '../lib/cidr.ts'
import { decodeStun, encodeStun, METHOD_BINDING, TRANSACTION_ID_BYTES, type StunMessage } from '../lib/wire/stun.ts'
import { retransmitAtMs } from './nat.ts'

export type StunClient = {
  /** @returns the address that the server sees; undefined if it does not answer in time, or with an error. */
  readonly request: (server: SocketAddress, timeoutMs: number) => Promise<SocketAddress | undefined>
  /** Resolves to undefined on silence. */
  readonly ask: (server: SocketAddress, timeoutMs: number, extras?: Extras) => Promise<Answer | undefined>
  /** Hands in a message that arrived on the socket. @returns true if it answers one of our requests. */
  readonly onMessage: (message: StunMessage, from: SocketAddress) => boolean
}

/** What a request asks for beyond the mapped address. */
export type Extras = Pick<StunMessage, 'changeRequest' | 'responsePort'> & {
  /** The answer may come from elsewhere than where the request went. */
  readonly fromAnywhere?: boolean
}
export type Answer = { readonly message: StunMessage; readonly from: SocketAddress; readonly rttMs: number }
type Pending = {
  readonly server: SocketAddress
  readonly anywhere: boolean
  readonly sentAtMs: number
  readonly settle: (answer: Answer | undefined) => void
}

/** Requests in flight on one socket; one more is answered at once by undefined. */
const MAX_PENDING = 64
/** More are not asked: one that answers is enough, and few are down at once. */
const MAX_SERVERS = 4
/** From the last repetition to the end at the least, however late it left. */
const LAST_CHANCE_MS = 100

/** @param send puts a datagram on the socket. @param signal ends all requests in flight. */
export function createStunClient(
  send: (datagram: Uint8Array, to: SocketAddress) => void,
  signal?: AbortSignal,
): StunClient {
  const pending = new Map<string, Pending>()
  const endAll = (): void => {
    for (const { settle } of pending.values()) settle(undefined)
  }
  signal?.addEventListener('abort', endAll, { once: true })

  const ask: StunClient['ask'] = (server, timeoutMs, { fromAnywhere = false, ...attributes } = {}) => {
    if (pending.size >= MAX_PENDING || signal?.aborted === true) return Promise.resolve(undefined)
    const transactionId = randomBytes(TRANSACTION_ID_BYTES)
    const datagram = encodeStun({
      class: 'request',
      method: METHOD_BINDING,
      transactionId,
      classic: false,
      unknownAttributes: [],
      ...attributes,
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
      pending.set(key, { server, anywhere: fromAnywhere, sentAtMs, settle })
      const transmit = (repetition: number): void => {
        send(datagram, server)
        const nextMs = retransmitAtMs(repetition + 1)
        const waitedMs = performance.now() - sentAtMs
        if (nextMs < timeoutMs) {
          timer = setTimeout(() => transmit(repetition + 1), Math.max(1, nextMs - waitedMs))
          return
        }
        // A process that stood still sends late, and finds its answers after its timers.
        const lastChanceMs = Math.max(0, Math.min(LAST_CHANCE_MS, timeoutMs - retransmitAtMs(repetition)))
        const waitMs = Math.max(timeoutMs - waitedMs, lastChanceMs)
        timer = setTimeout(() => setImmediate(() => settle(undefined)), waitMs)
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
    onMessage: (message, from) => {
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

/** @returns those of one family, the first few. */
export const serversToAsk = (servers: readonly SocketAddress[], family: Family): readonly SocketAddress[] =>
  servers.filter((server) => server.family === family).slice(0, MAX_SERVERS)

export type StunSocket = {
  readonly client: StunClient
  readonly port: number
  readonly send: (datagram: Uint8Array, to: SocketAddress) => void
}

/**
 * A socket of its own on a port of the kernel's choice, closed when the signal aborts.
 * @param onOther gets what answers no question of this client.
 * @throws where the host has no such family, and the signal's reason if it has aborted.
 */
export async function openStunSocket(
  family: Family,
  signal: AbortSignal,
  onOther?: (message: StunMessage, from: SocketAddress) => void,
): Promise<StunSocket> {
  const socket = await open(family, (socket, done) => socket.bind(0, done))
  if (signal.aborted) {
    socket.close()
    throw signal.reason
  }
  signal.addEventListener('abort', () => socket.close(), { once: true })
  const send: StunSocket['send'] = (datagram, to) => socket.send(datagram, to.port, to.address, () => {})
  const client = createStunClient(send, signal)
  socket.on('error', () => {})
  socket.on('message', (datagram, { address, port }) => {
    const message = decodeStun(datagram)
    const from = socketAddress(address, port)
    // Nobody can be answered on port 0.
    if (message === undefined || from === undefined || port === 0) return
    if (!client.onMessage(message, from)) onOther?.(message, from)
  })
  return { client, port: socket.address().port, send }
}

/** The address that the kernel sends from to this place; undefined where there is no way. Nothing is sent. */
export async function sourceAddress({ address, port, family }: SocketAddress): Promise<string | undefined> {
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

export const mappedOf = (message: StunMessage): SocketAddress | undefined =>
  message.class === 'success' ? (message.xorMappedAddress ?? message.mappedAddress) : undefined

const keyOf = (transactionId: Uint8Array): string =>
  Buffer.from(transactionId.buffer, transactionId.byteOffset, transactionId.length).toString('latin1')
