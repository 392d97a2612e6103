// A WebSocket to a relay that comes back for ever: dial, hand over what arrives, notice silence, wait, dial the next
// relay. While none can be reached its owner goes on with what it has. A NAT that forgets the flow, or a new WAN address,
// leaves TCP waiting for minutes: an idle session learns of it from the relay's pings, at no cost of its own, and whoever
// misses answers has it checked at once. The relay ends sessions with the certificate that was shown: where the node has
// another, the next session is there before the last one goes.

import type { createConnection, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { WebSocket, type RawData } from 'ws'
import { canonicalAddress } from '../address.ts'
import { backoffMs } from '../backoff.ts'
import type { Log } from '../log.ts'
import type { SessionStatus } from '../status.ts'
import type { LiveIdentity } from './identity-loop.ts'
import { tlsOptions, type NodeIdentity } from './identity.ts'
import { afterRunning } from './patience.ts'
import { pause } from './lifetime.ts'
import { connectTls } from './relay-tls.ts'

export type RelaySession = {
  /** The open socket; undefined while there is none. */
  readonly socket: () => WebSocket | undefined
  readonly state: () => SessionStatus
  /** Where the last session led, in canonical text. */
  readonly address: () => string | undefined
  /**
   * Something that the session should have carried stays away: asks the relay for a sign of life. Without any within a
   * second (longer where the session before was given up like that too) the session is ended and dialled anew at once; where
   * there is none, the next dial is at most a second away. To be called as often as there is reason.
   */
  readonly check: () => void
  /** Resolves when the signal has aborted and the socket is closed. */
  readonly closed: Promise<void>
}

const RECONNECT = { baseMs: 200, capMs: 5_000 }
const CONNECT_TIMEOUT_MS = 5_000
/**
 * Once it is connected. A relay to which a thousand sites come back at once answers late, and who gives up makes it do the
 * work again.
 */
const HANDSHAKE_TIMEOUT_MS = 20_000
/** The relay pings every 10 s; a session that hears nothing for so long is dead, whatever TCP believes. */
const SILENCE_MS = 25_000
/** Of what the relay says when it refuses a session. */
const MAX_REASON = 300
/** Between two attempts to replace a session that works. */
const REPLACE_MS = 60_000
/** A pong takes a round trip, or a few where packets are lost (the first retransmission comes after 200 ms or more). */
const CHECK_MS = 1_000
/**
 * Twice as long after each session that was given up, until one lives or answers in time: a relay that is late is not helped
 * by a thousand sites that dial it anew.
 */
const CHECK_MAX_MS = 8_000
/** A session that lived so long was no failure. */
const LIVED_MS = 30_000
/** Masking hides payloads from proxies that cannot look into TLS anyway; a zero mask saves XOR over every byte. */
const zeroMask = (mask: Buffer): void => void mask.fill(0)

export function openRelaySession(
  options: {
    readonly identity: NodeIdentity & Partial<Pick<LiveIdentity, 'onChange' | 'clock'>>
    readonly path: string
    readonly maxPayloadBytes: number
    readonly log: Log
    /** Also of one that takes another's place. @param stream the TLS socket below. */
    readonly onOpen: (socket: WebSocket, stream: Duplex) => void
    readonly onMessage: (data: RawData, binary: boolean) => void
    readonly onChange: () => void
  },
  signal: AbortSignal,
): RelaySession {
  const { identity, log } = options
  let open: WebSocket | undefined
  let address: string | undefined
  let check = (): void => undefined
  let checkMs = CHECK_MS
  let news = Promise.withResolvers<void>()
  identity.onChange?.(() => news.resolve())
  let state: SessionStatus = { url: identity.relays[0]!, state: 'connecting', since: Date.now() }
  const change = (next: SessionStatus): void => {
    state = next
    options.onChange()
  }

  /** One session from dial to end. */
  const session = (url: string): Dialled => {
    const { promise, resolve } = Promise.withResolvers<End>()
    const opened = Promise.withResolvers<true>()
    const { certificatePem } = identity
    const dial = (to: ConnectionOptions): TLSSocket => {
      const dialled = connectTls(to, identity.clock)
      dialled.once('connect', () => expect(HANDSHAKE_TIMEOUT_MS, 'no TLS session'))
      return dialled
    }
    const socket = new WebSocket(new URL(options.path, url.replace(/^http/, 'ws')), {
      ...tlsOptions(identity),
      createConnection: dial as unknown as typeof createConnection,
      maxPayload: options.maxPayloadBytes,
      perMessageDeflate: false,
      generateMask: zeroMask,
    })
    let reason: string | undefined
    let checking: { readonly giveUp: () => void; readonly sinceMs: number } | undefined
    let unanswered = false
    const terminate = (why: string): void => {
      reason ??= why
      socket.terminate()
    }
    let opening: NodeJS.Timeout | undefined
    const expect = (ms: number, without: string): void => {
      clearTimeout(opening)
      opening = setTimeout(() => terminate(`${without} within ${ms / 1000} s`), ms)
    }
    expect(CONNECT_TIMEOUT_MS, 'no connection')
    const stop = (): void => socket.terminate()
    const watchdog = setTimeout(() => terminate(`nothing heard for ${SILENCE_MS / 1000} s`), SILENCE_MS)
    signal.addEventListener('abort', stop)

    const onHeard = (): void => {
      watchdog.refresh()
      if (checking === undefined) return
      checking.giveUp()
      if (performance.now() - checking.sinceMs < CHECK_MS) checkMs = CHECK_MS
      checking = undefined
    }
    let openedMs = Infinity
    const ask = (): void => {
      if (socket.readyState !== WebSocket.OPEN || checking !== undefined) return
      const sinceMs = performance.now()
      if (sinceMs - openedMs > LIVED_MS) checkMs = CHECK_MS
      const giveUp = afterRunning(checkMs, () => {
        unanswered = true
        terminate(`no answer within ${checkMs} ms`)
        checkMs = Math.min(2 * checkMs, CHECK_MAX_MS)
      })
      checking = { giveUp, sinceMs }
      socket.ping()
    }

    let stream: Socket | undefined
    socket.on('upgrade', (response) => (stream = response.socket))
    socket.on('open', () => {
      clearTimeout(opening)
      address = canonicalAddress(stream!.remoteAddress ?? '')
      open = socket
      openedMs = performance.now()
      check = ask
      onHeard()
      change({ url, state: 'connected', since: Date.now() })
      options.onOpen(socket, stream!)
      opened.resolve(true)
      if (certificatePem !== identity.certificatePem) news.resolve()
    })
    socket.on('ping', onHeard)
    socket.on('pong', onHeard)
    socket.on('message', (data, binary) => {
      onHeard()
      // What still comes on a session that was replaced means nothing on the new one.
      if (open !== socket) return
      try {
        options.onMessage(data, binary)
      } catch (err) {
        log.warn({ err, url }, 'the relay broke the protocol')
        terminate((err as Error).message)
      }
    })
    socket.on('unexpected-response', (_request, response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text = (text + chunk).slice(0, MAX_REASON)))
      const { statusCode, statusMessage = '' } = response
      response.on('close', () => terminate(`the relay answered ${statusCode} ${statusMessage}: ${text}`.trim()))
    })
    socket.on('error', (error) => (reason ??= error.message))
    socket.on('close', () => {
      for (const timer of [watchdog, opening]) clearTimeout(timer)
      checking?.giveUp()
      checking = undefined
      signal.removeEventListener('abort', stop)
      if (open === socket) open = undefined
      resolve({ reason: reason ?? 'the relay closed the connection', unanswered })
    })
    return { certificatePem, isOpen: () => open === socket, opened: opened.promise, ended: promise }
  }

  /** A session, and those that take its place while it lives. */
  const sessions = async (url: string): Promise<End> => {
    for (let current = session(url); ;) {
      const end = await Promise.race([current.ended, news.promise.then(() => undefined)])
      if (end !== undefined) return end
      news = Promise.withResolvers()
      if (!current.isOpen() || current.certificatePem === identity.certificatePem) continue
      const next = session(url)
      if (await Promise.race([next.opened, next.ended.then(() => false)])) current = next
      else {
        log.warn({ url, path: options.path }, 'no session by the new certificate; going on with the one before')
        setTimeout(news.resolve, REPLACE_MS).unref()
      }
    }
  }

  /** A check cuts the wait short, but not to nothing: many sites may have lost one relay. */
  const wait = async (ms: number): Promise<void> => {
    const due = new AbortController()
    let hurry: NodeJS.Timeout | undefined
    check = () => void (hurry ??= setTimeout(() => due.abort(), CHECK_MS))
    await pause(ms, AbortSignal.any([signal, due.signal]))
    clearTimeout(hurry)
  }

  const run = async (): Promise<void> => {
    let failures = 0
    for (let attempt = 0; !signal.aborted;) {
      const url = identity.relays[attempt % identity.relays.length]!
      const { reason, unanswered } = await sessions(url)
      if (signal.aborted) return
      failures = state.state === 'connected' ? 1 : failures + 1
      log.warn({ url, path: options.path, reason }, 'no session with the relay')
      change({ url, state: 'connecting', since: state.state === 'connected' ? Date.now() : state.since, error: reason })
      // The way to the relay changed rather than the relay: the same one again, and now.
      if (unanswered) continue
      attempt++
      await wait(backoffMs(RECONNECT, failures, Math.random()))
    }
  }
  return { socket: () => open, state: () => state, address: () => address, check: () => check(), closed: run() }
}

type Dialled = {
  /** What was shown. */
  readonly certificatePem: string
  readonly isOpen: () => boolean
  readonly opened: Promise<true>
  readonly ended: Promise<End>
}

/** How a session ended. */
type End = {
  readonly reason: string
  /** A check brought no answer. */
  readonly unanswered: boolean
}
