// The agent's sessions with replicas of the relay, on which they reach this node (lib/wire/mux.ts): which replicas, says
// ops-replicas.ts. They come back for ever; who is asked to go elsewhere has the next session before it leaves the last. The
// agent dials what the relay asks for if it may (ops-targets.ts), and nothing else.

import type { Socket } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import type { MuxStream } from '../lib/mux/stream.ts'
import type { LiveIdentity } from '../lib/net/identity-loop.ts'
import { tlsOptions, type NodeIdentity } from '../lib/net/identity.ts'
import { onAbort, pause } from '../lib/net/lifetime.ts'
import { openMuxConnection } from '../lib/net/mux-connection.ts'
import { MuxDuplex } from '../lib/net/mux-duplex.ts'
import type { RelayList } from '../lib/net/relay-list.ts'
import { connectTls } from '../lib/net/relay-tls.ts'
import { splice } from '../lib/net/splice.ts'
import { upgradeWebSocket } from '../lib/net/websocket.ts'
import { rendezvousOrder } from '../lib/rendezvous.ts'
import { nameOf, readReplicas, type Replica } from '../lib/replicas.ts'
import type { OpsSessionStatus } from '../lib/status.ts'
import { VERSION } from '../lib/version.ts'
import { MUX_PATH } from '../lib/wire/mux.ts'
import { OpsRefusal } from './ops-dial-client.ts'
import { planReplicas, SESSIONS } from './ops-replicas.ts'

export type OpsOptions = {
  readonly identity: NodeIdentity & Partial<Pick<LiveIdentity, 'onChange' | 'clock'>>
  /** Learns of others from the relays themselves; without it those of the identity are one replica. */
  readonly relays?: Pick<RelayList, 'current' | 'told'>
  /** @throws OpsRefusal */
  readonly dial: (host: string, port: number) => Promise<Socket>
  readonly log: Log
  /** Shorter in tests. */
  readonly times?: Partial<typeof TIMES>
}

export type OpsStates = OpsSessionStatus & {
  /** One for each replica that is, or should be, connected. The state of all is that of the best. */
  readonly sessions: readonly OpsSessionStatus[]
}

export type OpsClient = {
  readonly state: () => OpsStates
  /** The network changed, or something else stays away: a session that does not answer within 2 s is dialled anew. */
  readonly check: () => void
  /** Resolves when the signal has aborted and everything is closed. */
  readonly closed: Promise<void>
}

const TIMES = {
  /** An idle session is asked for a sign of life after this, up to a half longer. */
  pingMs: 20_000,
  /** And then has so long. */
  pongMs: 20_000,
  checkMs: 2_000,
  /** A session that was asked to leave ends its streams in this time. */
  leaveMs: 4 * 3600_000,
  /** Whoever has another session takes up to so long to replace one: all agents of a replica lose it at once. */
  quietMs: 3_000,
}
/** After the first failure at once or nearly so; a relay that is restarted takes 10,000 agents back within this cap. */
const RECONNECT = { baseMs: 500, capMs: 60_000 }
const DIAL = { connectMs: 10_000, answerMs: 30_000 }
/** A session that lived so long was a good one: the next is dialled without much of a wait. */
const GOOD_MS = 30_000
/**
 * Without a post-quantum group: what runs on streams is TLS of its own, and OpenSSL keeps the other side's key as long as
 * the connection: of X25519MLKEM768 8 kB for each session, on the relay. Nor is the CA shown: with its certificate what a
 * node says first passes 1 KiB, for which Node takes 16 KiB, and OpenSSL keeps the certificate too.
 */
const GROUPS = 'X25519:P-256:P-384'
const TOKEN = Buffer.alloc(8)
/** The list of replicas may have changed meanwhile. */
const MAX_PAUSE_MS = 60_000

/** How a session came to take no more streams. */
type End = { readonly reason: string; readonly leaving: boolean }
type Session = {
  readonly replica: string
  readonly url: string
  /** Unix milliseconds; undefined before the relay's greeting, and when it takes no more streams. */
  connectedAt: number | undefined
  greeted: boolean
  streams: () => number
  check: () => void
  leave: (reason: string) => void
}
const IDLE = { streams: () => 0, check: () => {}, leave: () => {} }
/** What is remembered of a replica that failed. */
type Failure = { readonly count: number; readonly retryMs: number; readonly since: number; readonly reason: string }

export function openOpsClient(options: OpsOptions, signal: AbortSignal): OpsClient {
  const { identity, dial, log } = options
  const { pingMs, pongMs, checkMs, leaveMs, quietMs: mostQuietMs } = { ...TIMES, ...options.times }
  const replicas = options.relays?.current ?? (() => [identity.relays as Replica])
  /** All connections, those that are to end included. */
  const sessions = new Set<Session>()
  /** Those that take streams, or will when they are connected; by the replica's name. */
  const current = new Map<string, Session>()
  const failures = new Map<string, Failure>()
  let quietMs = 0
  let startedAt = Date.now()
  let changed = new AbortController()
  /** Sessions end with the certificate that was shown. */
  let renewed = false
  let drained = (): void => {}

  const serve = async (stream: MuxStream): Promise<void> => {
    const { host, port } = stream
    const duplex = new MuxDuplex(stream)
    const gone = (): void => void duplex.destroy()
    duplex.once('error', gone)
    try {
      const socket = await dial(host, port)
      if (duplex.destroyed) return void socket.resetAndDestroy()
      stream.accept()
      splice(duplex, socket)
    } catch (error) {
      const refusal = error instanceof OpsRefusal ? error : undefined
      log[refusal === undefined ? 'error' : 'info']({ addr: `${host}:${port}`, err: error }, 'stream refused')
      stream.reset(refusal?.reason ?? 'failed', (error as Error).message)
      duplex.destroy()
    }
  }

  /** One session; resolves when it takes no more streams, which may be long before it ends. */
  const connect = async (self: Session): Promise<End> => {
    const { url } = self
    const dialTls = (to: ConnectionOptions) =>
      connectTls({ ...to, ...tlsOptions(identity), ecdhCurve: GROUPS }, identity.clock, 'alone')
    const socket = await upgradeWebSocket(new URL(MUX_PATH, url), dialTls, DIAL, signal)
    const { promise, resolve } = Promise.withResolvers<End>()
    let reason = 'the relay closed the connection'
    const terminate = (why: string): void => {
      reason = why
      socket.terminate()
    }
    const stop = (): void => terminate('the agent stops')
    onAbort(signal, stop)
    let timer: NodeJS.Timeout | undefined
    let leaving = false
    /** By the relay, which opens no stream after that; where the agent leaves by itself, the relay closes. */
    let sentAway = false
    const leave = (why: string): void => {
      if (leaving) return
      leaving = true
      self.connectedAt = undefined
      setTimeout(() => terminate('streams did not end in time'), leaveMs).unref()
      resolve({ reason: why, leaving: true })
    }
    const { session: mux, heardMs } = openMuxConnection(
      socket,
      'acceptor',
      {
        greeted: (text) => {
          self.connectedAt = Date.now()
          self.greeted = true
          log.info({ url }, 'session with the relay')
          onGreeting(text)
        },
        opened: (stream) => void serve(stream),
        goAway: (why) => {
          log.info({ url, reason: why }, 'the relay sends us elsewhere')
          leave(why)
          sentAway = true
          if (mux.streams === 0) socket.close()
        },
        // The relay counts the time from one ping to the next, whatever an answer may take.
        pong: () => wait(),
        idle: () => {
          if (sentAway) socket.close()
        },
      },
      (end) => {
        clearTimeout(timer)
        signal.removeEventListener('abort', stop)
        sessions.delete(self)
        if (end.reason !== '') reason = end.reason
        else if (end.error !== undefined) reason = end.error.message
        resolve({ reason, leaving: false })
        drained()
      },
    )
    const isAlive = (askedMs: number): void => {
      if (heardMs() >= askedMs) wait()
      else terminate('the relay does not answer')
    }
    const ask = (withinMs: number): void => {
      clearTimeout(timer)
      const askedMs = performance.now()
      mux.ping(TOKEN)
      // After a stall of this process the timer is due before an answer that lies in the socket has been read.
      timer = setTimeout(() => setImmediate(isAlive, askedMs), withinMs)
    }
    const wait = (): void => {
      clearTimeout(timer)
      timer = setTimeout(() => ask(pongMs), pingMs * (1 + Math.random() / 2))
    }
    self.streams = () => mux.streams
    self.check = () => ask(checkMs)
    self.leave = (why) => {
      mux.goAway(why)
      leave(why)
    }
    sessions.add(self)
    mux.greet(JSON.stringify({ version: 1, agent: VERSION }))
    wait()
    return promise
  }

  /** Whatever keeps a session from coming about, and a certificate that cannot be read too, is no reason for the agent to end. */
  const connectOrReason = async (self: Session): Promise<End> => {
    try {
      return await connect(self)
    } catch (error) {
      return { reason: (error as Error).message, leaving: false }
    }
  }

  const onGreeting = (text: string): void => {
    const told = readReplicas((parseOrNothing(text) as { replicas?: unknown } | undefined)?.replicas)
    if (told !== undefined) options.relays?.told(told)
    changed.abort()
  }

  /** Dials a replica, by another of its addresses after each failure. */
  const open = async (replica: Replica): Promise<void> => {
    const name = nameOf(replica)
    const count = failures.get(name)?.count ?? 0
    const url = replica[count % replica.length]!
    const self: Session = { replica: name, url, connectedAt: undefined, greeted: false, ...IDLE }
    current.set(name, self)
    const startedMs = performance.now()
    const { reason, leaving } = await connectOrReason(self)
    // Another has taken its place: the relay lets streams of both go on.
    if (current.get(name) !== self) return
    current.delete(name)
    if (signal.aborted) return
    if (!leaving) log.warn({ url, reason }, 'no session with the relay')
    const nowMs = performance.now()
    const failed = nowMs - startedMs > GOOD_MS ? 1 : count + 1
    const since = self.greeted ? Date.now() : (failures.get(name)?.since ?? startedAt)
    failures.set(name, { count: failed, retryMs: nowMs + backoffMs(RECONNECT, failed, Math.random()), since, reason })
    quietMs = nowMs + mostQuietMs * Math.random()
    if (self.greeted && !isConnected()) startedAt = Date.now()
    changed.abort()
  }

  const isConnected = (): boolean => [...current.values()].some(({ connectedAt }) => connectedAt !== undefined)

  const run = async (): Promise<void> => {
    const opened = new Set<Promise<void>>()
    const start = (replica: Replica): void => {
      const ended = open(replica)
      opened.add(ended)
      void ended.finally(() => opened.delete(ended))
    }
    while (!signal.aborted) {
      changed = new AbortController()
      const all = new Map(replicas().map((replica) => [nameOf(replica), replica]))
      const order = rendezvousOrder(identity.node, [...all.keys()])
      const states = [...current.values()].map(({ replica, connectedAt }) => ({
        replica,
        connected: connectedAt !== undefined,
      }))
      for (const name of failures.keys()) if (!all.has(name)) failures.delete(name)
      const retryMs = new Map([...failures].map(([name, failure]) => [name, failure.retryMs]))
      const { dial: due, leave, againMs } = planReplicas(order, states, retryMs, quietMs, performance.now())
      for (const name of leave) current.get(name)!.leave('other replicas of the relay are nearer to this node')
      for (const name of due) start(all.get(name)!)
      if (renewed) for (const name of current.keys()) if (!due.includes(name) && all.has(name)) start(all.get(name)!)
      renewed = false
      const pauseMs = Math.min(MAX_PAUSE_MS, againMs - performance.now())
      await pause(Math.max(0, pauseMs), AbortSignal.any([signal, changed.signal]))
    }
    await Promise.all(opened)
    while (sessions.size > 0) await new Promise<void>((resolve) => (drained = resolve))
  }

  const stateOf = (replica: Replica): OpsSessionStatus => {
    const session = current.get(nameOf(replica))
    const failure = failures.get(nameOf(replica))
    const url = session?.url ?? nameOf(replica)
    if (session?.connectedAt !== undefined)
      return { url, state: 'connected', since: session.connectedAt, streams: session.streams() }
    const error = failure && { error: failure.reason }
    return { url, state: 'connecting', since: failure?.since ?? startedAt, ...error, streams: 0 }
  }

  const state = (): OpsStates => {
    const all = replicas()
    const order = rendezvousOrder(identity.node, all.map(nameOf))
    const states = order.map((name) => stateOf(all.find((replica) => nameOf(replica) === name)!))
    const wanted = states.filter((each, index) => each.state === 'connected' || index < SESSIONS)
    const best = wanted.find((each) => each.state === 'connected') ?? { ...wanted[0]!, since: startedAt }
    const streams = [...sessions].reduce((sum, each) => sum + each.streams(), 0)
    return { ...best, streams, sessions: wanted }
  }

  /** What failed may go well now. */
  const retry = (): void => {
    for (const [name, failure] of failures) failures.set(name, { ...failure, retryMs: 0 })
    changed.abort()
  }
  identity.onChange?.(() => {
    renewed = true
    retry()
  })
  return {
    state,
    check: () => {
      for (const { check } of sessions) check()
      quietMs = 0
      retry()
    },
    closed: run(),
  }
}

function parseOrNothing(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
