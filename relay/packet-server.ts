// WireGuard packets between gateways over WebSockets (lib/wire/packet-frame.ts): the last rung, for sites that let
// nothing out but port 443. The relay sees ciphertext only.
//
// TCP below turns loss into delay, and the TCP inside the tunnel sees neither: queues must be short
// (lib/net/packet-outbox.ts). A receiver that stalls costs nobody else anything. Nothing is allocated per packet that does
// not wait but what ws and the socket need.

import type { Log } from '../lib/log.ts'
import { openPacketOutbox, type PacketOutbox } from '../lib/net/packet-outbox.ts'
import { ProtocolError } from '../lib/wire/signal.ts'
import {
  bindFrame,
  boundNode,
  indexOf,
  KEEPALIVE_BYTES,
  kindOf,
  MAX_PACKET_FRAME_BYTES,
  PACKET_HEADER_BYTES,
  setIndex,
} from '../lib/wire/packet-frame.ts'
import type { PairPolicy } from './signal.ts'
import { runSessions, type Session, type Sessions } from './websocket-server.ts'

export type PacketCounts = { forwarded: number; bytes: number; overKeepalive: number; dropped: number }
/** Packets from one node to another since the relay started. */
export type PairCounts = PacketCounts & { readonly from: string; readonly to: string }

export type PacketOptions = {
  readonly mayReach: PairPolicy
  readonly heartbeatMs?: number
  readonly log: Log
}

export type PacketServer = {
  readonly sessions: Sessions
  readonly totals: Readonly<PacketCounts>
  readonly pairs: () => Iterable<Readonly<PairCounts>>
  readonly closed: Promise<void>
}

/** Peers that one gateway may number, and pairs that are counted apart. */
const MAX_PEERS = 4096
const MAX_PAIRS = 4096

/** What an index of a sender means: a receiver by name, and the receiver's session as last looked up. */
type Route = { readonly to: string; counts: PairCounts | undefined; receiver: Receiver | undefined; index: number }
type Receiver = {
  readonly session: Session
  readonly outbox: PacketOutbox<PairCounts>
  /** Indexes of this session as a sender. */
  readonly routes: Map<number, Route>
  /** Names that were bound for this session as a receiver. */
  readonly bound: Map<string, number>
  closed: boolean
}

export function runPacketServer(options: PacketOptions, signal: AbortSignal): PacketServer {
  const { mayReach, log } = options
  const totals: PacketCounts = { forwarded: 0, bytes: 0, overKeepalive: 0, dropped: 0 }
  const pairs = new Map<string, PairCounts>()
  const ends = new Map<string, Receiver>()

  const countsOf = (from: string, to: string): PairCounts => {
    const full = pairs.size >= MAX_PAIRS
    const key = full && !pairs.has(`${from} ${to}`) ? 'other other' : `${from} ${to}`
    let counts = pairs.get(key)
    if (counts === undefined) {
      const [a, b] = key.split(' ') as [string, string]
      counts = { from: a, to: b, forwarded: 0, bytes: 0, overKeepalive: 0, dropped: 0 }
      pairs.set(key, counts)
    }
    return counts
  }
  const drop = (counts: PairCounts | undefined): void => {
    if (counts !== undefined) counts.dropped++
    totals.dropped++
  }

  const bind = (sender: Receiver, frame: Buffer): void => {
    const index = indexOf(frame)
    if (sender.routes.size >= MAX_PEERS && !sender.routes.has(index))
      throw new ProtocolError(`binds more than ${MAX_PEERS} peers`)
    sender.routes.set(index, { to: boundNode(frame), counts: undefined, receiver: undefined, index: 0 })
  }

  /** Finds the receiver's session and the index by which it knows the sender, telling it of the sender the first time. */
  const connect = (sender: Receiver, route: Route): Receiver | undefined => {
    const receiver = ends.get(route.to)
    const from = sender.session.node
    if (receiver === undefined || receiver === sender || !mayReach(from, route.to)) return undefined
    let index = receiver.bound.get(from)
    if (index === undefined) {
      if (receiver.bound.size >= MAX_PEERS) return undefined
      index = receiver.bound.size
      receiver.bound.set(from, index)
      receiver.outbox.sendNow(bindFrame(index, from))
    }
    route.counts ??= countsOf(from, route.to)
    route.index = index
    route.receiver = receiver
    return receiver
  }

  const forward = (sender: Receiver, frame: Buffer): void => {
    const route = sender.routes.get(indexOf(frame))
    if (route === undefined) return drop(undefined)
    let receiver = route.receiver
    if (receiver === undefined || receiver.closed) {
      route.receiver = undefined
      receiver = connect(sender, route)
      if (receiver === undefined) return drop(route.counts)
    }
    setIndex(frame, route.index)
    receiver.outbox.send(frame, route.counts!)
  }

  const close = (end: Receiver | undefined): void => {
    if (end === undefined) return
    end.closed = true
    end.outbox.close()
    ends.delete(end.session.node)
  }

  const sent = (frame: Buffer, counts: PairCounts): void => {
    const packetBytes = frame.length - PACKET_HEADER_BYTES
    count(counts, packetBytes)
    count(totals, packetBytes)
  }

  const sessions = runSessions(
    {
      kind: 'packets',
      maxPayloadBytes: MAX_PACKET_FRAME_BYTES,
      log,
      ...(options.heartbeatMs && { heartbeatMs: options.heartbeatMs }),
    },
    {
      open(session) {
        // A session that is replaced may take seconds to end; its packets go to the new one now.
        close(ends.get(session.node))
        const outbox = openPacketOutbox(session.socket, session.stream, { sent, dropped: drop })
        ends.set(session.node, { session, outbox, routes: new Map(), bound: new Map(), closed: false })
      },
      close(session) {
        const end = ends.get(session.node)
        if (end?.session === session) close(end)
      },
      message(session, frame, isBinary) {
        const sender = ends.get(session.node)
        if (sender === undefined) return
        if (!isBinary) throw new ProtocolError('text frame on the packet session')
        switch (kindOf(frame)) {
          case 'data':
            return forward(sender, frame)
          case 'bind':
            return bind(sender, frame)
          case 'unknown':
        }
      },
    },
    signal,
  )
  return { sessions, totals, pairs: () => pairs.values(), closed: sessions.closed }
}

function count(counts: PacketCounts, bytes: number): void {
  counts.forwarded++
  counts.bytes += bytes
  if (bytes > KEEPALIVE_BYTES) counts.overKeepalive++
}
