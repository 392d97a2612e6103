// Streams to nodes by replicas that hold their sessions: each a stream of a session (lib/mux) with that replica, so that
// it ends, breaks and waits there as it does here. Sessions are dialled when they are first needed and are kept.

import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect, type ConnectionOptions } from 'node:tls'
import type { Log } from '../lib/log.ts'
import { MAX_STREAMS } from '../lib/mux/receive-window.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { openMuxConnection } from '../lib/net/mux-connection.ts'
import { upgradeWebSocket } from '../lib/net/websocket.ts'
import { nameOf, type Replica } from '../lib/replicas.ts'
import { failureOf, NodeDialError, type NodeTarget } from './node-dial.ts'
import { encodeTarget, FORWARD_PATH } from './forward-target.ts'
import { answered, type DialledSession, type StreamDial } from './stream-dial-client.ts'

/** What relays of one mesh show to each other, and by whom it must be issued. */
export type ReplicaCredentials = () => Promise<Pick<ConnectionOptions, 'cert' | 'key' | 'ca' | 'minVersion'>>

export type ForwardClient = {
  /** @throws NodeDialError within 12 s. */
  readonly dial: (replica: Replica, node: string, target: NodeTarget, signal: AbortSignal) => Promise<Duplex>
  /** A replica does not answer any more: what is open there breaks. */
  readonly drop: (replica: string) => void
  /** Resolves when the signal aborted and the last session ended. */
  readonly closed: Promise<void>
}

/** Of one address; a replica that is alive is near. */
export const CONNECT_MS = 2_000
const DIAL = { connectMs: CONNECT_MS, answerMs: CONNECT_MS }
/** Longer than a replica takes to find out that a session is dead and that a target does not answer. */
const ANSWER_MS = 9_000
/** A replica that says nothing at all for so long after a dial, not even to a ping, is gone. */
const ALIVE_MS = 3_000
const KEEP_ALIVE_MS = 60_000
const GREETING = JSON.stringify({ version: 1 })

export function openForwardClient(credentials: ReplicaCredentials, log: Log, signal: AbortSignal): ForwardClient {
  const sessions = new Map<string, Set<DialledSession>>()
  const opening = new Map<string, Promise<DialledSession>>()
  const ended = Promise.withResolvers<void>()
  let live = 0

  const open = async (replica: Replica): Promise<DialledSession> => {
    let failure: Error | undefined
    for (const url of replica)
      try {
        return await dialSession(nameOf(replica), url)
      } catch (error) {
        failure = error as Error
      }
    throw failure!
  }

  const dialSession = async (name: string, url: string): Promise<DialledSession> => {
    const shown = await credentials()
    const connectTo = (to: ConnectionOptions): Socket => connect({ ...to, ...shown }).setKeepAlive(true, KEEP_ALIVE_MS)
    const socket = await upgradeWebSocket(new URL(FORWARD_PATH, url), connectTo, DIAL, signal)
    const { promise, resolve, reject } = Promise.withResolvers<DialledSession>()
    const late = setTimeout(() => socket.terminate(), CONNECT_MS)
    const stop = (): void => socket.terminate()
    onAbort(signal, stop)
    live++
    const all = sessions.get(name) ?? new Set()
    sessions.set(name, all)
    const connection = openMuxConnection(
      socket,
      'opener',
      {
        greeted: () => {
          clearTimeout(late)
          connection.session.greet(GREETING)
          all.add(session)
          resolve(session)
        },
        opened: () => {},
        goAway: () => void all.delete(session),
        pong: () => {},
        idle: () => {},
      },
      ({ code, reason }) => {
        clearTimeout(late)
        signal.removeEventListener('abort', stop)
        all.delete(session)
        log.info({ url, kind: 'forward', code, reason }, 'session ended')
        reject(new Error('it closed the connection'))
        if (--live === 0 && signal.aborted) ended.resolve()
      },
    )
    const session: DialledSession = { connection, socket, pingedMs: 0 }
    return promise
  }

  const usable = (name: string): DialledSession | undefined =>
    [...(sessions.get(name) ?? [])].find(
      ({ connection: { session } }) => session.usable && session.streams < MAX_STREAMS,
    )

  /** One is dialled at a time, whoever waits for it. */
  const sessionWith = (replica: Replica): Promise<DialledSession> => {
    const name = nameOf(replica)
    let dialled = opening.get(name)
    if (dialled === undefined) {
      dialled = open(replica).finally(() => opening.delete(name))
      dialled.catch(() => {})
      opening.set(name, dialled)
    }
    return dialled
  }

  const dial: ForwardClient['dial'] = async (replica, node, target, until) => {
    const host = encodeTarget(node, target.host)
    if (host === undefined) throw new NodeDialError('refused', `${node}: ${target.host} is too long a name`)
    const name = nameOf(replica)
    let session: DialledSession | undefined
    let stream
    // Whoever waits for a new session may find it full.
    for (let tries = 0; stream === undefined && tries < 3; tries++) {
      session = usable(name)
      try {
        session ??= await sessionWith(replica)
      } catch (cause) {
        const { message } = cause as Error
        throw new NodeDialError('offline', `${node} is with ${name}, which cannot be reached: ${message}`, { cause })
      }
      stream = session.connection.session.open(host, target.port)
    }
    if (session === undefined || stream === undefined) throw new NodeDialError('busy', `${name} takes no more streams`)
    const dialled: StreamDial = {
      ...{ node, aliveMs: ALIVE_MS, answerMs: ANSWER_MS },
      onRefused: ({ reason, message }) => new NodeDialError(failureOf(reason), message),
      onLate: () => new NodeDialError('timeout', `${node}: no answer by ${name}`),
      onDead: () => new NodeDialError('offline', `${node} is with ${name}, which does not answer`),
    }
    return answered(session, stream, dialled, until)
  }

  const stop = (): void => {
    if (live === 0) ended.resolve()
  }
  onAbort(signal, stop)
  return {
    dial,
    drop: (replica) => {
      for (const { socket } of sessions.get(replica) ?? []) socket.terminate()
    },
    closed: ended.promise,
  }
}
