// The gateway's control session with a relay (lib/wire/signal.ts).

import { WebSocket } from 'ws'
import type { Log } from '../lib/log.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { openRelaySession, type RelaySession } from '../lib/net/relay-session.ts'
import {
  decodeSignal,
  encodeSignal,
  MAX_SIGNAL_BYTES,
  SIGNAL_PATH,
  type SignalFrame,
  type SignedAnnouncement,
  type UdpSessionFrame,
} from '../lib/wire/signal.ts'

export type SignalClient = Pick<RelaySession, 'state' | 'address' | 'check' | 'closed'> & {
  /** Sends a frame if the session is up. @returns false if it is not; nothing is queued for later. */
  readonly send: (frame: SignalFrame) => boolean
}

export function openSignalClient(
  options: {
    readonly identity: NodeIdentity
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
  const session = openRelaySession(
    {
      identity: options.identity,
      path: SIGNAL_PATH,
      maxPayloadBytes: MAX_SIGNAL_BYTES,
      log: options.log,
      onOpen: (socket) => {
        const known = options.digests()
        socket.send(encodeSignal({ kind: 'hello', version: 1, role: 'gateway', ...(known !== '' && { known }) }))
        options.onOpen()
      },
      onMessage: (data, binary) => {
        const frame = binary ? undefined : decodeSignal((data as Buffer).toString('utf8'))
        switch (frame?.kind) {
          case 'announce':
            return options.onAnnounce(frame.node, frame.announcement)
          case 'ready':
            return options.onReady(frame.node, frame.reply)
          case 'call':
            return options.onCall(frame.node, frame.reply)
          case 'udp-session':
            return options.onUdpSession(frame)
          case 'udp-end':
            return options.onUdpEnd(frame.node, frame.reason)
          // A peer that is gone from the relay may be there for us still; echoes decide.
          case 'gone':
          case 'hello':
          case 'welcome':
          case 'udp-request':
          case undefined:
            return
        }
      },
      onChange: () => {},
    },
    signal,
  )
  return {
    send: (frame) => {
      const socket = session.socket()
      if (socket?.readyState !== WebSocket.OPEN) return false
      socket.send(encodeSignal(frame))
      return true
    },
    state: session.state,
    address: session.address,
    check: session.check,
    closed: session.closed,
  }
}
