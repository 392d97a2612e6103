// The gateway's control sessions with relays (lib/wire/signal.ts). Where it has two, what it says to a peer goes by both, and
// what comes by both is heard once: so two gateways hear of each other as long as one relay has both.

import type { Log } from '../lib/log.ts'
import type { RelayList } from '../lib/net/relay-list.ts'
import type { RelaySession } from '../lib/net/relay-session.ts'
import { openRelaySessions, type RelaySessions, type RelaySessionsOptions } from '../lib/net/relay-sessions.ts'
import {
  decodeSignal,
  encodeSignal,
  MAX_SIGNAL_BYTES,
  SIGNAL_PATH,
  type SignalFrame,
  type SignedAnnouncement,
  type UdpSessionFrame,
} from '../lib/wire/signal.ts'
import { Echoes } from './signal-echoes.ts'

export type SignalClient = Pick<RelaySession, 'state' | 'check' | 'closed'> &
  Pick<RelaySessions, 'addresses'> & {
    /** Sends a frame if a session is up. @returns false if none is; nothing is queued for later. */
    readonly send: (frame: SignalFrame) => boolean
  }

export function openSignalClient(
  options: {
    readonly identity: RelaySessionsOptions['identity']
    /** Learns of others from the relays themselves. */
    readonly relays: RelayList
    readonly log: Log
    /** Digests of the announcements that we have; see `hello` in lib/wire/signal.ts. */
    readonly digests: () => string
    /** A new session is up: announce again, since the relay may be another or may have forgotten. */
    readonly onOpen: () => void
    readonly onAnnounce: (node: string, announcement: SignedAnnouncement) => void
    /** @param reply false where the peer wants a ready in return. */
    readonly onReady: (node: string, reply: boolean) => void
    /** @param reply whether it answers a call of ours. */
    readonly onCall: (node: string, reply: boolean) => void
    /** The session over the relay's UDP with a peer, as it is now; or that there is none. */
    readonly onUdpSession: (frame: UdpSessionFrame) => void
    readonly onUdpEnd: (node: string, reason: string) => void
  },
  signal: AbortSignal,
): SignalClient {
  const echoes = new Echoes()
  /** Which relay a session over UDP with a peer was asked of, or is given by. */
  const udpRelays = new Map<string, { readonly relay: string; readonly asked: boolean }>()

  const sessions = openRelaySessions(
    {
      identity: options.identity,
      relays: options.relays,
      path: SIGNAL_PATH,
      maxPayloadBytes: MAX_SIGNAL_BYTES,
      log: options.log,
      onOpen: (_relay, socket) => {
        const known = options.digests()
        socket.send(encodeSignal({ kind: 'hello', version: 1, role: 'gateway', ...(known !== '' && { known }) }))
        options.onOpen()
      },
      onMessage: (relay, data, binary) => {
        const frame = binary ? undefined : decodeSignal((data as Buffer).toString('utf8'))
        switch (frame?.kind) {
          case 'welcome':
            if (frame.replicas !== undefined) options.relays.told(frame.replicas)
            return
          case 'announce':
            return options.onAnnounce(frame.node, frame.announcement)
          case 'ready':
            if (echoes.isNew(frame, relay, performance.now())) options.onReady(frame.node, frame.reply)
            return
          case 'call':
            if (echoes.isNew(frame, relay, performance.now())) options.onCall(frame.node, frame.reply)
            return
          case 'udp-session':
            udpRelays.set(frame.node, { relay, asked: false })
            return options.onUdpSession(frame)
          case 'udp-end':
            return onUdpEnd(relay, frame)
          // A peer that is gone from the relay may be there for us still; echoes decide.
          case 'gone':
          case 'hello':
          case 'udp-request':
          case undefined:
            return
        }
      },
      onChange: () => {},
    },
    signal,
  )

  /** Both ends ask the same relay, the first that they have; where that has not both of them, the next. */
  const askForUdp = (frame: SignalFrame & { readonly kind: 'udp-request' }, after?: string): boolean => {
    const open = sessions.open()
    const next = open[open.findIndex(([relay]) => relay === after) + 1]
    if (next === undefined) return false
    const [relay, socket] = next
    udpRelays.set(frame.node, { relay, asked: true })
    socket.send(encodeSignal(frame))
    return true
  }

  const onUdpEnd = (relay: string, { node, reason }: SignalFrame & { readonly kind: 'udp-end' }): void => {
    const current = udpRelays.get(node)
    if (current !== undefined && current.relay !== relay) return
    udpRelays.delete(node)
    if (current?.asked === true && askForUdp({ kind: 'udp-request', node }, relay)) return
    options.onUdpEnd(node, reason)
  }

  return {
    send: (frame) => {
      if (frame.kind === 'udp-request') return askForUdp(frame)
      const open = sessions.open()
      for (const [, socket] of open) socket.send(encodeSignal(frame))
      return open.length > 0
    },
    state: sessions.state,
    addresses: sessions.addresses,
    check: sessions.check,
    closed: sessions.closed,
  }
}
