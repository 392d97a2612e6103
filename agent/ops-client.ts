// The agent's session with a relay, on which the relay reaches this node (lib/wire/mux.ts). It comes back for ever; asked to
// go elsewhere, it has the next session before it leaves the last. The agent dials what the relay asks for if it may
// (ops-targets.ts), and nothing else.

import type { Socket } from 'node:net'
import { WebSocket } from 'ws'
import { backoffMs } from '../lib/backoff.ts'
import type { Log } from '../lib/log.ts'
import type { MuxStream } from '../lib/mux/stream.ts'
import { tlsOptions, type NodeIdentity } from '../lib/net/identity.ts'
import { pause } from '../lib/net/lifetime.ts'
import { openMuxConnection } from '../lib/net/mux-connection.ts'
import { MuxDuplex } from '../lib/net/mux-duplex.ts'
import { splice } from '../lib/net/splice.ts'
import { VERSION } from '../lib/version.ts'
import { MAX_MESSAGE_BYTES, MUX_PATH } from '../lib/wire/mux.ts'
import { OpsRefusal } from './ops-dial-client.ts'

export type OpsOptions = {
  readonly identity: NodeIdentity
  /** @throws OpsRefusal */
  readonly dial: (host: string, port: number) => Promise<Socket>
  readonly log: Log
  /** Shorter in tests. */
  readonly times?: Partial<typeof TIMES>
}

export type OpsState = {
  readonly url: string
  readonly state: 'connected' | 'connecting'
  /** Unix milliseconds. */
  readonly since: number
  /** Why the last session ended or none came about. */
  readonly error?: string
  readonly streams: number
}

export type OpsClient = {
  readonly state: () => OpsState
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
}
/** After the first failure at once or nearly so; a relay that is restarted takes 10,000 agents back within this cap. */
const RECONNECT = { baseMs: 500, capMs: 60_000 }
const CONNECT_TIMEOUT_MS = 10_000
/** A session that lived so long was a good one: the next is dialled without much of a wait. */
const GOOD_MS = 30_000
/** Masking hides payloads from proxies that cannot look into TLS anyway; a zero mask saves XOR over every byte. */
const zeroMask = (mask: Buffer): void => void mask.fill(0)
const TOKEN = Buffer.alloc(8)

/** How a session came to take no more streams. */
type End = { readonly reason: string; readonly leaving: boolean }

export function openOpsClient(options: OpsOptions, signal: AbortSignal): OpsClient {
  const { identity, dial, log } = options
  const { pingMs, pongMs, checkMs, leaveMs } = { ...TIMES, ...options.times }
  const sessions = new Set<{ readonly streams: () => number; readonly check: () => void }>()
  let state: Omit<OpsState, 'streams'> = { url: identity.relays[0]!, state: 'connecting', since: Date.now() }
  let hurry = new AbortController()
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
  const session = (url: string): Promise<End> => {
    const { promise, resolve } = Promise.withResolvers<End>()
    const socket = new WebSocket(new URL(MUX_PATH, url.replace(/^http/, 'ws')), {
      ...tlsOptions(identity),
      handshakeTimeout: CONNECT_TIMEOUT_MS,
      maxPayload: MAX_MESSAGE_BYTES,
      perMessageDeflate: false,
      generateMask: zeroMask,
    })
    let reason = 'the relay closed the connection'
    const terminate = (why: string): void => {
      reason = why
      socket.terminate()
    }
    const stop = (): void => terminate('the agent stops')
    signal.addEventListener('abort', stop)
    socket.on('unexpected-response', (_request, response) => {
      terminate(`the relay answered ${response.statusCode} ${response.statusMessage ?? ''}`.trim())
      response.resume()
    })
    socket.on('error', (error) => (reason = error.message))
    // Before the connection has its own listener, and where it never comes to that.
    socket.once('close', () => {
      signal.removeEventListener('abort', stop)
      resolve({ reason, leaving: false })
    })
    socket.once('open', () => {
      let timer: NodeJS.Timeout
      let leaving = false
      const { session: mux, heardMs } = openMuxConnection(
        socket,
        'acceptor',
        {
          greeted: () => {
            state = { url, state: 'connected', since: Date.now() }
            log.info({ url }, 'session with the relay')
          },
          opened: (stream) => void serve(stream),
          goAway: (why) => {
            leaving = true
            log.info({ url, reason: why }, 'the relay sends us elsewhere')
            setTimeout(() => terminate('streams did not end in time'), leaveMs).unref()
            resolve({ reason: why, leaving: true })
            if (mux.streams === 0) socket.close()
          },
          pong: () => {},
          idle: () => {
            if (leaving) socket.close()
          },
        },
        (end) => {
          clearTimeout(timer)
          sessions.delete(self)
          if (end.reason !== '') reason = end.reason
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
        timer = setTimeout(() => ask(pongMs), pingMs * (1 + Math.random() / 2))
      }
      const self = { streams: () => mux.streams, check: () => ask(checkMs) }
      sessions.add(self)
      mux.greet(JSON.stringify({ version: 1, agent: VERSION }))
      wait()
    })
    return promise
  }

  /** A certificate that cannot be read is no reason for the agent to end. */
  const sessionOrReason = (url: string): Promise<End> => {
    try {
      return session(url)
    } catch (error) {
      return Promise.resolve({ reason: (error as Error).message, leaving: false })
    }
  }

  const run = async (): Promise<void> => {
    let failures = 0
    for (let attempt = 0; !signal.aborted; attempt++) {
      const url = identity.relays[attempt % identity.relays.length]!
      const startedMs = performance.now()
      const { reason, leaving } = await sessionOrReason(url)
      if (signal.aborted) break
      failures = performance.now() - startedMs > GOOD_MS ? 1 : failures + 1
      if (!leaving) log.warn({ url, reason }, 'no session with the relay')
      const since = state.state === 'connected' ? Date.now() : state.since
      state = { url, state: 'connecting', since, error: reason }
      hurry = new AbortController()
      await pause(backoffMs(RECONNECT, failures, Math.random()), AbortSignal.any([signal, hurry.signal]))
    }
    while (sessions.size > 0) await new Promise<void>((resolve) => (drained = resolve))
  }
  return {
    state: () => ({ ...state, streams: [...sessions].reduce((sum, { streams }) => sum + streams(), 0) }),
    check: () => {
      for (const { check } of sessions) check()
      hurry.abort()
    },
    closed: run(),
  }
}
