// Sessions of one kind with the first two relays of the list, the same two for all who know it: so whoever has one of them
// meets all others there, and the end of one parts nobody.

import type { Duplex } from 'node:stream'
import { WebSocket, type RawData } from 'ws'
import { nameOf, type Replica } from '../replicas.ts'
import type { SessionStatus } from '../status.ts'
import { aborted } from './lifetime.ts'
import type { RelayList } from './relay-list.ts'
import { openRelaySession, type RelaySession } from './relay-session.ts'

type SessionOptions = Parameters<typeof openRelaySession>[0]

export type RelaySessionsOptions = Omit<SessionOptions, 'onOpen' | 'onMessage'> & {
  readonly relays: Pick<RelayList, 'current' | 'onChange'>
  /** @param relay the relay's name. */
  readonly onOpen: (relay: string, socket: WebSocket, stream: Duplex) => void
  readonly onMessage: (relay: string, data: RawData, binary: boolean) => void
}

export type RelaySessions = {
  /** Those that are open, by the relay's name, in the order of the list. */
  readonly open: () => readonly (readonly [relay: string, socket: WebSocket])[]
  /** Of the first that is connected, else of the first. */
  readonly state: () => SessionStatus
  /** Where the sessions led. */
  readonly addresses: () => readonly string[]
  /** See RelaySession. */
  readonly check: () => void
  /** Resolves when the signal has aborted and all are closed. */
  readonly closed: Promise<void>
}

const SESSIONS = 2

type Held = {
  readonly session: RelaySession
  readonly life: AbortController
  readonly target: Omit<SessionOptions['identity'], 'relays'> & { relays: readonly string[] }
}

export function openRelaySessions(options: RelaySessionsOptions, signal: AbortSignal): RelaySessions {
  const { identity, relays } = options
  const sessions = new Map<string, Held>()
  const closing = new Set<Promise<void>>()
  let order: readonly string[] = []

  const start = (replica: Replica): void => {
    const relay = nameOf(replica)
    const life = new AbortController()
    // Its fields change while it is in use, but these are not of the identity.
    const target = Object.create(identity, { relays: { value: replica, writable: true } }) as Held['target']
    const session = openRelaySession(
      {
        ...options,
        identity: target,
        onOpen: (socket, stream) => options.onOpen(relay, socket, stream),
        onMessage: (data, binary) => options.onMessage(relay, data, binary),
      },
      AbortSignal.any([signal, life.signal]),
    )
    sessions.set(relay, { session, life, target })
    const closed = session.closed.finally(() => closing.delete(closed))
    closing.add(closed)
  }

  const follow = (): void => {
    const wanted = relays.current().slice(0, SESSIONS)
    order = wanted.map(nameOf)
    for (const replica of wanted) {
      const known = sessions.get(nameOf(replica))
      // The next dial goes there.
      if (known !== undefined) known.target.relays = replica
      else start(replica)
    }
    for (const [relay, { life }] of sessions)
      if (!order.includes(relay)) {
        sessions.delete(relay)
        life.abort()
      }
  }
  follow()
  relays.onChange(follow)

  const inOrder = (): readonly (readonly [string, RelaySession])[] =>
    order.flatMap((relay) => {
      const known = sessions.get(relay)
      return known === undefined ? [] : [[relay, known.session] as const]
    })
  const ended = async (): Promise<void> => {
    await aborted(signal)
    await Promise.all(closing)
  }
  return {
    open: () =>
      inOrder().flatMap(([relay, session]) => {
        const socket = session.socket()
        return socket?.readyState === WebSocket.OPEN ? [[relay, socket] as const] : []
      }),
    state: () => {
      const states = inOrder().map(([, session]) => session.state())
      return states.find(({ state }) => state === 'connected') ?? states[0]!
    },
    addresses: () => inOrder().flatMap(([, session]) => session.address() ?? []),
    check: () => {
      for (const [, session] of inOrder()) session.check()
    },
    closed: ended(),
  }
}
