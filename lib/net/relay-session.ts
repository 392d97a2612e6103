// A WebSocket to a relay that comes back for ever: dial, hand over what arrives, notice silence, wait, dial the next
// relay. While none can be reached its owner goes on with what it has.

import { WebSocket, type RawData } from 'ws'
import { backoffMs } from '../backoff.ts'
import type { Log } from '../log.ts'
import { tlsOptions, type NodeIdentity } from './identity.ts'
import { pause } from './lifetime.ts'

export type RelaySessionState = {
  readonly url: string
  readonly state: 'connected' | 'connecting'
  /** Unix milliseconds. */
  readonly since: number
  /** Why the last session ended or none came about. */
  readonly error?: string
}

export type RelaySession = {
  /** The open socket; undefined while there is none. */
  readonly socket: () => WebSocket | undefined
  readonly state: () => RelaySessionState
  /** Resolves when the signal has aborted and the socket is closed. */
  readonly closed: Promise<void>
}

const RECONNECT = { baseMs: 200, capMs: 5_000 }
const CONNECT_TIMEOUT_MS = 5_000
/** The relay pings every 10 s; a session that hears nothing for so long is dead, whatever TCP believes. */
const SILENCE_MS = 25_000
/** Masking hides payloads from proxies that cannot look into TLS anyway; a zero mask saves XOR over every byte. */
const zeroMask = (mask: Buffer): void => void mask.fill(0)

export function openRelaySession(
  options: {
    readonly identity: NodeIdentity
    readonly path: string
    readonly maxPayloadBytes: number
    readonly log: Log
    readonly onOpen: (socket: WebSocket) => void
    readonly onMessage: (data: RawData, binary: boolean) => void
    readonly onChange: () => void
  },
  signal: AbortSignal,
): RelaySession {
  const { identity, log } = options
  let open: WebSocket | undefined
  let state: RelaySessionState = { url: identity.relays[0]!, state: 'connecting', since: Date.now() }
  const change = (next: RelaySessionState): void => {
    state = next
    options.onChange()
  }

  /** One session from dial to end. @returns why it ended. */
  const session = (url: string): Promise<string> => {
    const { promise, resolve } = Promise.withResolvers<string>()
    const socket = new WebSocket(new URL(options.path, url.replace(/^http/, 'ws')), {
      ...tlsOptions(identity),
      handshakeTimeout: CONNECT_TIMEOUT_MS,
      maxPayload: options.maxPayloadBytes,
      perMessageDeflate: false,
      generateMask: zeroMask,
    })
    let reason = 'the relay closed the connection'
    const terminate = (why: string): void => {
      reason = why
      socket.terminate()
    }
    const stop = (): void => socket.terminate()
    const watchdog = setTimeout(() => terminate(`nothing heard for ${SILENCE_MS / 1000} s`), SILENCE_MS)
    signal.addEventListener('abort', stop)

    socket.on('open', () => {
      open = socket
      watchdog.refresh()
      change({ url, state: 'connected', since: Date.now() })
      options.onOpen(socket)
    })
    socket.on('ping', () => watchdog.refresh())
    socket.on('message', (data, binary) => {
      watchdog.refresh()
      try {
        options.onMessage(data, binary)
      } catch (err) {
        log.warn({ err, url }, 'the relay broke the protocol')
        terminate((err as Error).message)
      }
    })
    socket.on('unexpected-response', (_request, response) => {
      terminate(`the relay answered ${response.statusCode} ${response.statusMessage ?? ''}`.trim())
      response.resume()
    })
    socket.on('error', (error) => (reason = error.message))
    socket.on('close', () => {
      clearTimeout(watchdog)
      signal.removeEventListener('abort', stop)
      open = undefined
      resolve(reason)
    })
    return promise
  }

  const run = async (): Promise<void> => {
    let failures = 0
    for (let attempt = 0; !signal.aborted; attempt++) {
      const url = identity.relays[attempt % identity.relays.length]!
      const error = await session(url)
      if (signal.aborted) return
      failures = state.state === 'connected' ? 1 : failures + 1
      log.warn({ url, path: options.path, reason: error }, 'no session with the relay')
      change({ url, state: 'connecting', since: state.state === 'connected' ? Date.now() : state.since, error })
      await pause(backoffMs(RECONNECT, failures, Math.random()), signal)
    }
  }
  return { socket: () => open, state: () => state, closed: run() }
}
