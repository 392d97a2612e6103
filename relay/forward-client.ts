// Streams to nodes by replicas that hold their sessions: each a stream of a session (lib/mux) with that replica, so that
// it ends, breaks and waits there as it does here. Sessions are dialled when they are first needed and are kept.

import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect, type TLSSocket } from 'node:tls'
import type { KeyPair } from '../lib/certificates.ts'
import type { Log } from '../lib/log.ts'
import { MAX_STREAMS } from '../lib/mux/receive-window.ts'
import { openMuxConnection, type MuxConnection } from '../lib/net/mux-connection.ts'
import { MuxDuplex } from '../lib/net/mux-duplex.ts'
import { upgradeWebSocket, type RawWebSocket } from '../lib/net/websocket.ts'
import { nameOf, type Replica } from '../lib/replicas.ts'
import { failureOf, NodeDialError, type NodeTarget } from './node-dial.ts'
import { encodeTarget, FORWARD_PATH } from './replicas.ts'

export type ReplicaCredentials = { readonly client: () => Promise<KeyPair>; readonly authorityPem: string }

export type ForwardClient = {
  /** @throws NodeDialError within 12 s. */
  readonly dial: (replica: Replica, node: string, target: NodeTarget, signal: AbortSignal) => Promise<Duplex>
  /** A replica does not answer any more: what is open there breaks. */
  readonly drop: (replica: string) => void
  /** Resolves when the signal aborted and the last session ended. */
  readonly closed: Promise<void>
}

/** Of one address; a replica that is alive is near. */
const CONNECT_MS = 2_000
const DIAL = { connectMs: CONNECT_MS, answerMs: CONNECT_MS }
/** Longer than a replica takes to find out that a session is dead and that a target does not answer. */
const ANSWER_MS = 9_000
/** A replica that says nothing at all for so long after a dial, not even to a ping, is gone. */
const ALIVE_MS = 3_000
const PING_TOKEN = Buffer.alloc(8)
const KEEP_ALIVE_MS = 60_000
const GREETING = JSON.stringify({ version: 1 })

type Session = {
  readonly connection: MuxConnection
  readonly socket: RawWebSocket
  /** When a dial last asked it for a sign of life. */
  pingedMs: number
}

export function openForwardClient(credentials: ReplicaCredentials, log: Log, signal: AbortSignal): ForwardClient {
  const sessions = new Map<string, Set<Session>>()
  const opening = new Map<string, Promise<Session>>()
  const ended = Promise.withResolvers<void>()
  let live = 0

  const open = async (replica: Replica): Promise<Session> => {
    let failure: Error | undefined
    for (const url of replica)
      try {
        return await dialSession(nameOf(replica), url)
      } catch (error) {
        failure = error as Error
      }
    throw failure!
  }

  const dialSession = async (name: string, url: string): Promise<Session> => {
    const stream = await connectReplica(url, credentials, signal)
    const socket = await upgradeWebSocket(new URL(FORWARD_PATH, url), () => stream, DIAL, signal)
    const { promise, resolve, reject } = Promise.withResolvers<Session>()
    const late = setTimeout(() => socket.terminate(), CONNECT_MS)
    const stop = (): void => socket.terminate()
    signal.addEventListener('abort', stop)
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
    const session: Session = { connection, socket, pingedMs: 0 }
    return promise
  }

  const usable = (name: string): Session | undefined =>
    [...(sessions.get(name) ?? [])].find(
      ({ connection: { session } }) => session.usable && session.streams < MAX_STREAMS,
    )

  /** One is dialled at a time, whoever waits for it. */
  const sessionWith = (replica: Replica): Promise<Session> => {
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
    let session: Session | undefined
    let stream
    // Whoever waits for a new session may find it full.
    for (let tries = 0; stream === undefined && tries < 3; tries++) {
      session = usable(nameOf(replica))
      try {
        session ??= await sessionWith(replica)
      } catch (cause) {
        const { message } = cause as Error
        throw new NodeDialError('offline', `${node} is with ${nameOf(replica)}, which cannot be reached: ${message}`, {
          cause,
        })
      }
      stream = session.connection.session.open(host, target.port)
    }
    if (session === undefined || stream === undefined)
      throw new NodeDialError('busy', `${nameOf(replica)} takes no more streams`)
    const { promise, resolve, reject } = Promise.withResolvers<Duplex>()
    const settle = (): void => {
      for (const timer of [ask, alive, late]) clearTimeout(timer)
      until.removeEventListener('abort', cancel)
    }
    const { connection, socket } = session
    const askedMs = performance.now()
    // Of many that wait, one ping is enough.
    const ask = setTimeout(() => {
      if (performance.now() - session.pingedMs < ALIVE_MS / 4) return
      session.pingedMs = performance.now()
      connection.session.ping(PING_TOKEN)
    }, ALIVE_MS / 4)
    // After a stall of this process the timer is due before an answer that lies in the socket has been read.
    const alive = setTimeout(() => setImmediate(isAlive), ALIVE_MS)
    const isAlive = (): void => {
      if (connection.heardMs() < askedMs) socket.terminate()
    }
    const fail = (text: string): void => {
      settle()
      duplex.destroy()
      reject(new NodeDialError('timeout', text))
    }
    const cancel = (): void => fail(`${node}: not wanted any more`)
    const late = setTimeout(() => fail(`${node}: no answer by ${nameOf(replica)}`), ANSWER_MS)
    const duplex = new MuxDuplex(stream, {
      onOpened: () => {
        settle()
        resolve(duplex)
      },
      onRefused: ({ reason, message }) => {
        settle()
        reject(new NodeDialError(failureOf(reason), message))
      },
    })
    // Told by the promise until it is open, and by whoever uses it from then on.
    duplex.once('error', () => {})
    until.addEventListener('abort', cancel, { once: true })
    if (until.aborted) cancel()
    return promise
  }

  const stop = (): void => {
    if (live === 0) ended.resolve()
  }
  if (signal.aborted) stop()
  else signal.addEventListener('abort', stop, { once: true })
  return {
    dial,
    drop: (replica) => {
      for (const { socket } of sessions.get(replica) ?? []) socket.terminate()
    },
    closed: ended.promise,
  }
}

/** @returns a connection by this relay's certificate. @throws Error where there is none in time. */
export async function connectReplica(
  url: string,
  { client, authorityPem }: ReplicaCredentials,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const { certificatePem, keyPem } = await client()
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const { promise, resolve, reject } = Promise.withResolvers<TLSSocket>()
  const socket = connect({
    ...{ host, port: Number(port || 443), servername: isIP(host) === 0 ? host : '' },
    ...{ cert: certificatePem, key: keyPem, ca: authorityPem, minVersion: 'TLSv1.3' },
  })
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEP_ALIVE_MS)
  const late = setTimeout(() => socket.destroy(new Error(`no answer within ${CONNECT_MS / 1000} s`)), CONNECT_MS)
  const gone = (): void => void socket.destroy(new Error('the relay stops'))
  const settle = (): void => {
    clearTimeout(late)
    signal.removeEventListener('abort', gone)
  }
  socket.once('secureConnect', () => {
    settle()
    socket.off('error', reject)
    resolve(socket)
  })
  socket.once('error', reject)
  socket.once('close', () => {
    settle()
    reject(new Error('it closed the connection'))
  })
  if (signal.aborted) gone()
  else signal.addEventListener('abort', gone, { once: true })
  return promise
}
