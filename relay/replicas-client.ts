// Listens to the other replicas for which nodes they hold sessions with (presence.ts): a WebSocket to each, dialled for
// ever. A replica that dies takes what it said with it.

import { WebSocket } from 'ws'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import { onAbort, pause } from '../lib/net/lifetime.ts'
import { nameOf, type Replica } from '../lib/replicas.ts'
import type { SessionStatus } from '../lib/status.ts'
import { CONNECT_MS, type ReplicaCredentials } from './forward-client.ts'
import { decodePresence, MAX_FRAME_BYTES, Presence, PRESENCE_PATH } from './presence.ts'

/** With how many nodes it holds. */
export type ReplicaLink = SessionStatus & { readonly nodes: number }

export type ReplicaLinks = {
  readonly holders: (node: string) => readonly string[]
  readonly lostAt: (node: string) => number | undefined
  readonly list: () => readonly ReplicaLink[]
  /** Resolves when the signal aborted and the last connection ended. */
  readonly closed: Promise<void>
}

const RECONNECT = { baseMs: 200, capMs: 5_000 }
const PING_MS = 3_000
const MAX_MISSED = 3
/** Longer than it takes to reach a replica: until its first frame. */
const FIRST_MS = 5_000

export function followReplicas(
  options: {
    readonly others: readonly Replica[]
    readonly credentials: ReplicaCredentials
    /** A replica is gone, or out of reach. */
    readonly onLost: (replica: string) => void
    readonly log: Log
  },
  signal: AbortSignal,
): ReplicaLinks {
  const { others, credentials, onLost, log } = options
  const presence = new Presence()
  const states = new Map<string, SessionStatus>()

  /** One connection from dial to end. @returns why it ended. */
  const follow = async (name: string, url: string): Promise<string> => {
    let shown
    try {
      shown = await credentials()
    } catch (error) {
      return (error as Error).message
    }
    const { promise, resolve } = Promise.withResolvers<string>()
    const socket = new WebSocket(new URL(PRESENCE_PATH, url.replace(/^http/, 'ws')), {
      ...{ ...shown, handshakeTimeout: CONNECT_MS },
      maxPayload: MAX_FRAME_BYTES,
      perMessageDeflate: false,
    })
    let reason: string | undefined
    let missed = 0
    let told = false
    const terminate = (why: string): void => {
      reason ??= why
      socket.terminate()
    }
    const stop = (): void => terminate('the relay stops')
    const first = setTimeout(() => terminate('it told nothing'), FIRST_MS)
    const pings = setInterval(() => {
      if (socket.readyState !== WebSocket.OPEN) return
      if (missed++ >= MAX_MISSED) terminate('it does not answer')
      else socket.ping()
    }, PING_MS)
    socket.on('pong', () => (missed = 0))
    socket.on('message', (data) => {
      missed = 0
      const frame = decodePresence((data as Buffer).toString('utf8'))
      if (frame === undefined) return terminate('it broke the protocol')
      presence.apply(name, frame, Date.now())
      if (told) return
      told = true
      clearTimeout(first)
      states.set(name, { url, state: 'connected', since: Date.now() })
      log.info({ url }, 'session with a replica')
    })
    socket.on('unexpected-response', (_request, response) => {
      terminate(`it answered ${response.statusCode} ${response.statusMessage ?? ''}`.trim())
      response.resume()
    })
    socket.on('error', (error) => (reason ??= error.message))
    socket.once('close', () => {
      clearTimeout(first)
      clearInterval(pings)
      signal.removeEventListener('abort', stop)
      presence.forget(name, Date.now())
      onLost(name)
      resolve(reason ?? 'it closed the connection')
    })
    onAbort(signal, stop)
    return promise
  }

  const run = async (replica: Replica): Promise<void> => {
    const name = nameOf(replica)
    let failures = 0
    states.set(name, { url: name, state: 'connecting', since: Date.now() })
    while (!signal.aborted) {
      const url = replica[failures % replica.length]!
      const reason = await follow(name, url)
      if (signal.aborted) return
      const { state, since } = states.get(name)!
      failures = state === 'connected' ? 1 : failures + 1
      if (failures === 1) log.warn({ url, reason }, 'no session with a replica')
      states.set(name, { url, state: 'connecting', since: state === 'connected' ? Date.now() : since, error: reason })
      await pause(backoffMs(RECONNECT, failures, Math.random()), signal)
    }
  }

  return {
    holders: (node) => presence.holders(node),
    lostAt: (node) => presence.lostAtMs(node),
    list: () => [...states].map(([name, state]) => ({ ...state, nodes: presence.count(name) })),
    closed: Promise.all(others.map(run)).then(() => undefined),
  }
}
