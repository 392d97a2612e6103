// The sessions of agents on which the relay reaches their nodes (lib/wire/mux.ts): one WebSocket per agent, streams on it
// for those who dial. A node is who its certificate says. An idle session costs the relay a pong now and then and nothing
// else: no timer, no buffer.

import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { openMuxConnection } from '../lib/net/mux-connection.ts'
import { acceptWebSocket, type RawWebSocket } from '../lib/net/websocket.ts'
import { MAX_STREAMS } from '../lib/mux/receive-window.ts'
import type { Replica } from '../lib/replicas.ts'
import { durationText } from '../lib/text-table.ts'
import { failureOf, NodeDialError, type DialNode, type NodeDialFailure, type NodeTarget } from './node-dial.ts'
import { answered, lookForLife, type DialledSession, type StreamDial } from './stream-dial-client.ts'
import { createBucket, type Bucket } from './token-bucket.ts'
import { refuseUpgrade, type Caller } from './websocket-server.ts'

export type OpsOptions = {
  /** The relay's name, for agents. */
  readonly relay: string
  /** What agents are told of them; nothing where there are none. */
  readonly replicas?: readonly Replica[]
  /** A node can be reached from now on, or cannot any more. */
  readonly onPresence?: (node: string, here: boolean) => void
  readonly log: Log
  /** Shorter in tests. */
  readonly times?: Partial<typeof TIMES>
  /** How often one node may be dialled. */
  readonly rate?: typeof DIAL_RATE
}

export type OpsCounts = { dials: number; failures: Record<NodeDialFailure, number> }

export type OpsSessions = {
  readonly upgrade: (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Caller) => void
  readonly dial: DialNode
  /** Sessions that take new streams, newest last, and those that end when their streams have. */
  readonly list: () => readonly OpsSessionState[]
  /** Why a node cannot be reached now; undefined if it can. */
  readonly absence: (node: string) => string | undefined
  /** Nodes that can be reached. */
  readonly here: () => readonly string[]
  /** When those that have no session any more lost it, Unix milliseconds. */
  readonly lost: ReadonlyMap<string, number>
  /** Sends all agents elsewhere and takes no more of them; streams go on. */
  readonly drain: (reason: string) => void
  readonly counts: Readonly<OpsCounts>
  /** Resolves when the signal aborted and the last session ended. */
  readonly closed: Promise<void>
}

export type OpsSessionState = {
  readonly node: string
  readonly address: string
  readonly since: number
  readonly streams: number
  /** A newer session of the node takes new streams. */
  readonly leaving: boolean
}

const TIMES = {
  /** The agent has this to reach its target and say so. */
  dialMs: 5_000,
  /** Who says nothing at all for so long after a dial, not even to a ping, is gone. */
  aliveMs: 3_000,
  /** Agents ping after 20 to 30 s of silence. */
  silenceMs: 40_000,
  /** All sessions are looked at in this time, some each second. */
  roundMs: 15_000,
}
const MAX_SESSIONS = 20_000
/** Of one node: the one in use and one that ends. */
const MAX_SESSIONS_PER_NODE = 2
/** Of one node: connections on which nothing was said, so that one node cannot take the places of all. */
const MAX_UNGREETED_PER_NODE = 4
const MAX_PENDING_DIALS = 64
const DIAL_RATE = { perSecond: 50, burst: 200 }
/** Nodes whose absence is remembered. */
const MAX_KNOWN = 100_000
const SLOTS = 15

const CLOSE_NORMAL = 1000
const CLOSE_GOING_AWAY = 1001
const CLOSE_REPLACED = 4001
const CLOSE_EXPIRED = 4002

type OpsSession = DialledSession & {
  readonly node: string
  readonly address: string
  readonly since: number
  readonly expiresAtMs: number
  leaving: boolean
}
/** What is kept of a node that was dialled, while it has a session. */
type Dials = { pending: number; readonly bucket: Bucket }

export function runOpsSessions(options: OpsOptions, signal: AbortSignal): OpsSessions {
  const { relay, replicas = [], onPresence = () => {}, log, times, rate = DIAL_RATE } = options
  const greeting = JSON.stringify({ version: 1, relay, ...(replicas.length > 0 && { replicas }) })
  const { dialMs, aliveMs, silenceMs, roundMs } = { ...TIMES, ...times }
  const startedAt = Date.now()
  const byNode = new Map<string, OpsSession[]>()
  const slots: Set<OpsSession>[] = Array.from({ length: SLOTS }, () => new Set())
  const ungreeted = new Map<string, Set<OpsSession>>()
  const lost = new Map<string, number>()
  const dials = new Map<string, Dials>()
  const counts: OpsCounts = { dials: 0, failures: { offline: 0, refused: 0, failed: 0, timeout: 0, busy: 0 } }
  const ended = Promise.withResolvers<void>()
  let live = 0
  let slot = 0
  let draining = false

  const look = setInterval(() => {
    slot = (slot + 1) % SLOTS
    for (const session of slots[slot]!) {
      const { socket, connection, node, expiresAtMs } = session
      if (Date.now() >= expiresAtMs) socket.close(CLOSE_EXPIRED, 'the certificate expired')
      else if (performance.now() - connection.heardMs() > silenceMs) {
        log.info({ node, kind: 'ops' }, 'session is silent')
        socket.terminate()
      } else if (session.leaving && connection.session.streams === 0) socket.close(CLOSE_NORMAL)
    }
  }, roundMs / SLOTS)

  const open = (socket: RawWebSocket, caller: Caller): void => {
    const { node, address, expiresAtMs } = caller
    const home = slots[live % SLOTS]!
    const connection = openMuxConnection(
      socket,
      'opener',
      {
        greeted: () => greeted(session),
        opened: () => {},
        goAway: (reason) => {
          log.info({ node, reason }, 'session takes no more streams')
          leave(session)
          // The agent leaves that to us: it does not know what we have opened meanwhile.
          if (connection.session.streams === 0) socket.close(CLOSE_NORMAL)
        },
        pong: () => {},
        idle: () => {
          if (session.leaving) socket.close(CLOSE_NORMAL)
        },
      },
      ({ code, reason, error }) => {
        live--
        home.delete(session)
        forgetUngreeted(session)
        remove(session)
        log.info({ node, kind: 'ops', code, reason, ...(error && { err: error }) }, 'session ended')
        if (signal.aborted && live === 0) ended.resolve()
      },
    )
    const session: OpsSession = {
      ...{ node, address, expiresAtMs, socket, connection },
      since: Date.now(),
      leaving: false,
      pingedMs: 0,
    }
    live++
    home.add(session)
    const waiting = ungreeted.get(node) ?? new Set()
    ungreeted.set(node, waiting.add(session))
    const [oldest] = waiting
    if (waiting.size <= MAX_UNGREETED_PER_NODE) return
    forgetUngreeted(oldest!)
    oldest!.socket.terminate()
  }

  const forgetUngreeted = (session: OpsSession): void => {
    const { node } = session
    const waiting = ungreeted.get(node)
    waiting?.delete(session)
    if (waiting?.size === 0) ungreeted.delete(node)
  }

  /** Only now: whoever opens a connection and says nothing takes nobody's place. */
  const greeted = (session: OpsSession): void => {
    const { node, address, connection } = session
    forgetUngreeted(session)
    connection.session.greet(greeting)
    const sessions = byNode.get(node) ?? []
    byNode.set(node, sessions)
    for (const older of sessions) {
      if (!older.leaving) older.connection.session.goAway('a newer session of this node is there')
      older.leaving = true
      if (older.connection.session.streams === 0) older.socket.close(CLOSE_REPLACED)
      // The agent may dial anew because this one is cut; those who wait on it are told soon.
      else lookForLife(older, aliveMs, 0)
    }
    sessions.push(session)
    if (sessions.length > MAX_SESSIONS_PER_NODE) sessions[0]!.socket.terminate()
    lost.delete(node)
    log.info({ node, addr: address, kind: 'ops' }, 'session opened')
    if (draining) sendAway(session, 'this relay is about to stop')
    else onPresence(node, true)
  }

  /** It takes no more streams; those that it has go on. */
  const leave = (session: OpsSession): void => {
    if (session.leaving) return
    session.leaving = true
    if (inUse(session.node) === undefined) onPresence(session.node, false)
  }

  const sendAway = (session: OpsSession, reason: string): void => {
    if (session.leaving) return
    session.connection.session.goAway(reason)
    leave(session)
    if (session.connection.session.streams === 0) session.socket.close(CLOSE_GOING_AWAY, reason)
  }

  const remove = (session: OpsSession): void => {
    const { node } = session
    const sessions = byNode.get(node)
    const at = sessions?.indexOf(session) ?? -1
    if (at === -1) return
    sessions!.splice(at, 1)
    leave(session)
    if (sessions!.length > 0) return
    byNode.delete(node)
    dials.delete(node)
    lost.delete(node)
    lost.set(node, Date.now())
    if (lost.size > MAX_KNOWN) lost.delete(lost.keys().next().value!)
  }

  const inUse = (node: string): OpsSession | undefined =>
    byNode.get(node)?.findLast(({ leaving, connection }) => !leaving && connection.session.usable)

  const absence = (node: string): string | undefined => {
    if (inUse(node) !== undefined) return undefined
    const since = lost.get(node)
    const nowMs = Date.now()
    if (since !== undefined) return `${node} offline ${durationText(nowMs - since)}`
    return `${node} has not connected since this relay started ${durationText(nowMs - startedAt)} ago`
  }

  /** One attempt on one session. @throws NodeDialError, and `Silent` where the session itself is dead. */
  const attempt = (session: OpsSession, target: NodeTarget, until: AbortSignal): Promise<Duplex> => {
    const { node, connection } = session
    const stream = connection.session.open(target.host, target.port)
    if (stream === undefined) throw new NodeDialError('busy', `${node} has ${MAX_STREAMS} streams`)
    const dialled: StreamDial = {
      ...{ node, aliveMs, answerMs: dialMs },
      onRefused: ({ reason, message }) => new NodeDialError(failureOf(reason), `${node}: ${message}`),
      onLate: () => {
        const where = `${target.host}:${target.port}`
        return new NodeDialError('timeout', `${node} did not reach ${where} within ${dialMs / 1000} s`)
      },
      onDead: () => {
        log.info({ node, kind: 'ops' }, 'session does not answer')
        leave(session)
        return new Silent(node)
      },
    }
    return answered(session, stream, dialled, until)
  }

  const admitted = (node: string): Dials => {
    let state = dials.get(node)
    if (state === undefined) dials.set(node, (state = { pending: 0, bucket: createBucket(rate, performance.now()) }))
    if (state.pending >= MAX_PENDING_DIALS)
      throw new NodeDialError('busy', `${node} has ${MAX_PENDING_DIALS} dials under way`)
    if (!state.bucket.take(performance.now()))
      throw new NodeDialError('busy', `${node} is dialled more than ${rate.perSecond} times a second`)
    return state
  }

  const dialSessions: DialNode = async (node, target, until) => {
    let silent: Silent | undefined
    for (let tries = 0; tries < MAX_SESSIONS_PER_NODE; tries++) {
      const session = inUse(node)
      if (session === undefined) break
      const state = admitted(node)
      state.pending++
      try {
        return await attempt(session, target, until)
      } catch (error) {
        if (!(error instanceof Silent)) throw error
        silent = error
      } finally {
        state.pending--
      }
    }
    throw silent ?? new NodeDialError('offline', absence(node) ?? `${node} offline`)
  }

  const dial: DialNode = async (node, target, until) => {
    counts.dials++
    try {
      return await dialSessions(node, target, until)
    } catch (error) {
      if (error instanceof NodeDialError) counts.failures[error.failure]++
      throw error
    }
  }

  const stop = (): void => {
    clearInterval(look)
    for (const sessions of slots) for (const { socket } of sessions) socket.close(CLOSE_GOING_AWAY, 'the relay stops')
    if (live === 0) ended.resolve()
  }
  onAbort(signal, stop)

  return {
    dial,
    absence,
    here: () => [...byNode.keys()].filter((node) => inUse(node) !== undefined),
    lost,
    drain(reason) {
      draining = true
      for (const session of [...byNode.values()].flat()) sendAway(session, reason)
    },
    counts,
    closed: ended.promise,
    list: () =>
      [...byNode.values()].flat().map(({ node, address, since, leaving, connection }) => ({
        ...{ node, address, since, leaving },
        streams: connection.session.streams,
      })),
    upgrade(request, stream, head, caller) {
      if (signal.aborted || draining) return refuseUpgrade(stream, 503, 'the relay stops')
      if (live >= MAX_SESSIONS)
        return refuseUpgrade(stream, 503, `the relay has ${MAX_SESSIONS} sessions of agents and takes no more`)
      const socket = acceptWebSocket(request, stream, head, refuseUpgrade)
      if (socket !== undefined) open(socket, caller)
    },
  }
}

/** Nothing was heard of a session that should be there. */
class Silent extends NodeDialError {
  constructor(node: string) {
    super('offline', `${node} does not answer`)
  }
}
