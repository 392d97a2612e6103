// Signalling between gateways (lib/wire/signal.ts): the relay hands each gateway's latest announcement to all others
// and carries calls from one to another. It checks who speaks and how much, not what is said: gateways sign what they
// announce, and their peers verify it.

import type { Log } from '../lib/log.ts'
import { openAnnouncements } from '../lib/net/announcement-files.ts'
import {
  decodeSignal,
  encodeSignal,
  MAX_SIGNAL_BYTES,
  ProtocolError,
  type SignalFrame,
  type SignedAnnouncement,
} from '../lib/wire/signal.ts'
import { createBucket, type Bucket } from './token-bucket.ts'
import { runSessions, type Session, type Sessions } from './websocket-server.ts'

/** May `from` reach `to` over this relay? Both have proven who they are by their certificates. */
export type PairPolicy = (from: string, to: string) => boolean

export type SignalOptions = {
  readonly stateDir: string
  /** The relay's name, told to gateways. */
  readonly relay: string
  readonly mayReach: PairPolicy
  /** A gateway wants a session over UDP with another; without this the relay has none. */
  readonly onUdpRequest?: (from: string, to: string) => void
  readonly onGreeted?: (node: string) => void
  readonly heartbeatMs?: number
  readonly log: Log
}

export type SignalServer = {
  readonly sessions: Sessions
  /** Sends a frame to a gateway, if it is there. */
  readonly tell: (node: string, frame: SignalFrame) => void
  readonly closed: Promise<void>
}

/** A gateway that starts calls all its peers at once, and then seldom. */
const FRAMES = { perSecond: 64, burst: 1024 }
/** Each goes to all other gateways and to disk; a gateway makes one when its addresses change. */
const ANNOUNCEMENTS = { perSecond: 1, burst: 64 }
/** A session that reads so slowly is cut; it gets the latest of everything when it comes back. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024
const MAX_ANNOUNCEMENTS = 20_000

type Gateway = { readonly frames: Bucket; readonly announcements: Bucket; greeted: boolean }

export async function runSignalServer(options: SignalOptions, signal: AbortSignal): Promise<SignalServer> {
  const { relay, mayReach, log } = options
  const files = openAnnouncements(options.stateDir, log)
  const announcements = new Map<string, SignedAnnouncement>(await files.load())
  const gateways = new Map<Session, Gateway>()

  const send = ({ socket }: Session, frame: Buffer): void => {
    if (socket.bufferedAmount > MAX_BUFFERED_BYTES) socket.terminate()
    else socket.send(frame, { binary: false })
  }
  const broadcast = (from: string, frame: SignalFrame): void => {
    const bytes = encode(frame)
    for (const [session, gateway] of gateways)
      if (gateway.greeted && session.node !== from && mayReach(from, session.node)) send(session, bytes)
  }

  const greet = (session: Session): void => {
    send(session, encode({ kind: 'welcome', version: 1, relay, observedAddress: session.address }))
    for (const [node, announcement] of announcements)
      if (node !== session.node && mayReach(node, session.node))
        send(session, encode({ kind: 'announce', node, announcement }))
  }

  const announce = (session: Session, node: string, announcement: SignedAnnouncement): void => {
    if (node !== session.node) throw new ProtocolError(`announces ${node}, but its certificate is of ${session.node}`)
    if (!announcements.has(node) && announcements.size >= MAX_ANNOUNCEMENTS)
      return log.warn(
        { node, path: options.stateDir },
        'too many nodes have announced themselves, this one is left out; remove announcements of nodes that are gone',
      )
    // A gateway that comes back says what all others know: with hundreds of them after an outage, that adds up.
    const known = announcements.get(node)
    if (known?.payload === announcement.payload && known.signature === announcement.signature) return
    announcements.set(node, announcement)
    files.save(node, announcement)
    broadcast(node, { kind: 'announce', node, announcement })
  }

  const pass = (session: Session, frame: SignalFrame & { kind: 'ready' | 'call' }): void => {
    const callee = sessions.byNode.get(frame.node)
    const from = session.node
    if (callee !== undefined && gateways.get(callee)?.greeted === true && mayReach(from, frame.node))
      send(callee, encode({ ...frame, node: from }))
    // The sender learns at once that nobody will answer.
    else send(session, encode({ kind: 'gone', node: frame.node }))
  }

  const tell = (node: string, frame: SignalFrame): void => {
    const session = sessions.byNode.get(node)
    if (session !== undefined && gateways.get(session)?.greeted === true) send(session, encode(frame))
  }
  const requestUdp = ({ node: from }: Session, to: string): void => {
    if (options.onUdpRequest === undefined)
      return tell(from, { kind: 'udp-end', node: to, reason: 'this relay forwards nothing over UDP' })
    const callee = sessions.byNode.get(to)
    if (callee !== undefined && gateways.get(callee)?.greeted === true) options.onUdpRequest(from, to)
    else tell(from, { kind: 'udp-end', node: to, reason: 'the peer has no session with this relay' })
  }

  const sessions = runSessions(
    {
      kind: 'signal',
      maxPayloadBytes: MAX_SIGNAL_BYTES,
      log,
      ...(options.heartbeatMs && { heartbeatMs: options.heartbeatMs }),
    },
    {
      open(session) {
        const nowMs = performance.now()
        const [frames, announced] = [createBucket(FRAMES, nowMs), createBucket(ANNOUNCEMENTS, nowMs)]
        gateways.set(session, { frames, announcements: announced, greeted: false })
      },
      close(session, replaced) {
        gateways.delete(session)
        if (replaced) return
        broadcast(session.node, { kind: 'gone', node: session.node })
      },
      message(session, data, isBinary) {
        const gateway = gateways.get(session)
        if (gateway === undefined) return
        if (isBinary) throw new ProtocolError('binary frame on the signal session')
        if (!gateway.frames.take(performance.now()))
          throw new ProtocolError(`more than ${FRAMES.perSecond} frames per second`)
        const frame = decodeSignal(data.toString('utf8'))
        if (frame === undefined) return
        if (!gateway.greeted) {
          if (frame.kind !== 'hello') throw new ProtocolError(`${frame.kind} before hello`)
          gateway.greeted = true
          greet(session)
          return options.onGreeted?.(session.node)
        }
        switch (frame.kind) {
          case 'announce':
            if (!gateway.announcements.take(performance.now()))
              throw new ProtocolError(`more than ${ANNOUNCEMENTS.burst} announcements at once`)
            return announce(session, frame.node, frame.announcement)
          case 'ready':
          case 'call':
            return pass(session, frame)
          case 'udp-request':
            return requestUdp(session, frame.node)
          case 'hello':
          case 'welcome':
          case 'gone':
          case 'udp-session':
          case 'udp-end':
            throw new ProtocolError(`${frame.kind} is not for the relay`)
        }
      },
    },
    signal,
  )
  return { sessions, tell, closed: sessions.closed.then(files.flushed) }
}

const encode = (frame: SignalFrame): Buffer => Buffer.from(encodeSignal(frame))
