// The rung relay-tcp: WireGuard packets of the device fm-tcp, carried over a WebSocket to the relay, or one to each of two
// (lib/wire/packet-frame.ts). Each peer has a loopback socket of its own, which WireGuard takes for the peer's endpoint.
//
//   fm-tcp ⇄ 127.0.0.1:N (one per peer) ⇄ wss://relay/fulmar/v1/packets ⇄ the peer's gateway
//
// A handshake that is lost costs WireGuard 5 s, and so do two that cross; here, where handshakes can be seen, both are
// prevented (handshakes.ts). And here a cold pair is woken: its first packets pass in any case.
//
// TCP turns loss into delay, so what waits here is short and the oldest goes first (lib/net/packet-outbox.ts): WireGuard
// and the TCP inside it take a loss better than a second in a queue.

import { createSocket, type Socket } from 'node:dgram'
import type { WebSocket } from 'ws'
import type { Log } from '../lib/log.ts'
import { openPacketOutbox, type PacketOutbox } from '../lib/net/packet-outbox.ts'
import type { RelaySession } from '../lib/net/relay-session.ts'
import { openRelaySessions, type RelaySessions, type RelaySessionsOptions } from '../lib/net/relay-sessions.ts'
import { addressLookup, bindUdp } from '../lib/net/udp-socket.ts'
import {
  bindFrame,
  boundNode,
  dataFrame,
  indexOf,
  kindOf,
  MAX_PACKET_FRAME_BYTES,
  PACKET_HEADER_BYTES,
  PACKETS_PATH,
  packetOf,
} from '../lib/wire/packet-frame.ts'
import { ProtocolError } from '../lib/wire/signal.ts'
import { MAX_PEERS } from './announcement.ts'
import { Handshakes, isInitiation, isTraffic } from './handshakes.ts'

export type PacketClient = Pick<RelaySession, 'state' | 'check' | 'closed'> &
  Pick<RelaySessions, 'addresses'> & {
    /**
     * Makes a peer reachable through the relay. @param wireguardKey of the peer. @returns the endpoint to give to
     * WireGuard, on loopback. @throws where there is no socket left.
     */
    readonly add: (node: string, wireguardKey: string) => Promise<string>
    /** The peer's devices know our key: what waited for that goes now. */
    readonly ready: (node: string) => void
    /** Whether the path to a peer is kept up; the next packet for one that is not tells `onTraffic`. */
    readonly setAwake: (node: string, awake: boolean) => void
    readonly remove: (node: string) => void
    /** Packets thrown away: the relay was unreachable, or the queue full. */
    readonly dropped: () => number
  }

type Peer = {
  readonly node: string
  readonly index: number
  readonly socket: Socket
  handshakes: Handshakes
  wireguardKey: string
  awake: boolean
  /** Of the initiation that is to be sent, for the first time or again. */
  timer: NodeJS.Timeout | undefined
  /** By which relay it was last heard. */
  relay: string | undefined
  /** Its last initiation that was let in: it comes by each relay, and once is enough. */
  entered: Buffer | undefined
}
/** A relay's session: what is sent there, and the peers that it has numbered. */
type Link = { readonly socket: WebSocket; readonly outbox: PacketOutbox<Peer>; readonly inbound: Map<number, string> }

export function openPacketClient(
  options: {
    readonly identity: RelaySessionsOptions['identity']
    readonly relays: RelaySessionsOptions['relays']
    /** The listen port of fm-tcp. */
    readonly wireguardPort: number
    /** Our own, base64. */
    readonly wireguardKey: string
    readonly log: Log
    /** Someone wants to reach a peer whose path is not kept up. */
    readonly onTraffic: (node: string) => void
    readonly onChange: () => void
  },
  signal: AbortSignal,
): PacketClient {
  const peers = new Map<string, Peer>()
  const links = new Map<string, Link>()
  /** Relays whose sessions are open, the first of the list first. */
  let open: readonly string[] = []
  let nextIndex = 0
  let dropped = 0

  const sessions = openRelaySessions(
    {
      identity: options.identity,
      relays: options.relays,
      path: PACKETS_PATH,
      maxPayloadBytes: MAX_PACKET_FRAME_BYTES,
      log: options.log,
      onOpen: (relay, socket, stream) => {
        links.get(relay)?.outbox.close()
        const outbox = openPacketOutbox<Peer>(socket, stream, { sent: () => {}, dropped: () => void dropped++ })
        links.set(relay, { socket, outbox, inbound: new Map() })
        for (const peer of peers.values()) outbox.sendNow(bindFrame(peer.index, peer.node))
        look()
      },
      onMessage: (relay, data, binary) => {
        if (binary) receive(relay, data as Buffer)
      },
      onChange: () => {
        look()
        options.onChange()
      },
    },
    signal,
  )
  const look = (): void => {
    open = sessions.open().flatMap(([relay, socket]) => (links.get(relay)?.socket === socket ? [relay] : []))
  }

  /** Per packet: one lookup and one send, no allocation of ours but a view. */
  const receive = (relay: string, frame: Buffer): void => {
    const { inbound } = links.get(relay)!
    switch (kindOf(frame)) {
      case 'data': {
        const node = inbound.get(indexOf(frame))
        const peer = node === undefined ? undefined : peers.get(node)
        if (peer === undefined) return void dropped++
        const packet = packetOf(frame)
        const initiates = isInitiation(packet)
        if (initiates && peer.entered?.equals(packet) === true) return
        peer.relay = relay
        if (!peer.handshakes.mayEnter(packet, performance.now())) return void dropped++
        if (initiates) peer.entered = Buffer.from(packet)
        peer.socket.send(packet, options.wireguardPort, LOOPBACK)
        return
      }
      case 'bind':
        if (inbound.size >= MAX_PEERS) throw new ProtocolError(`relay binds over ${MAX_PEERS} peers`)
        inbound.set(indexOf(frame), boundNode(frame))
        return
      case 'unknown':
        return
    }
  }

  const leave = (peer: Peer, packet: Buffer): void => {
    if (!peer.awake && isTraffic(packet)) {
      peer.awake = true
      options.onTraffic(peer.node)
    }
    if (peer.handshakes.mayLeave(packet, performance.now())) transmit(peer, packet)
    if (isInitiation(packet)) sendWhenDue(peer)
  }

  /** WireGuard itself would repeat a lost initiation after 5 s only; one that arrived is known to the peer and ignored. */
  const sendWhenDue = (peer: Peer): void => {
    clearTimeout(peer.timer)
    const { dueMs } = peer.handshakes
    if (dueMs === Infinity) return
    const send = (): void => {
      if (peers.get(peer.node) !== peer) return
      const initiation = peer.handshakes.due(performance.now())
      if (initiation !== undefined) transmit(peer, Buffer.from(initiation))
      sendWhenDue(peer)
    }
    peer.timer = setTimeout(send, Math.max(1, dueMs - performance.now() + 1))
    peer.timer.unref()
  }

  /** By the relay that the peer was last heard by; a handshake by all, since that one may have lost it meanwhile. */
  const transmit = (peer: Peer, packet: Buffer): void => {
    const usable = open.length > 0 && packet.length <= MAX_PACKET_FRAME_BYTES - PACKET_HEADER_BYTES
    if (!usable) dropped++
    else if (isInitiation(packet)) for (const relay of open) sendBy(relay, peer, packet)
    else sendBy(peer.relay !== undefined && open.includes(peer.relay) ? peer.relay : open[0]!, peer, packet)
  }
  const sendBy = (relay: string, peer: Peer, packet: Buffer): void =>
    links.get(relay)!.outbox.send(dataFrame(peer.index, packet), peer)

  const closed = sessions.closed.then(() => {
    for (const { outbox } of links.values()) outbox.close()
    for (const { socket } of peers.values()) socket.close()
  })

  return {
    add: async (node, wireguardKey) => {
      const known = peers.get(node)
      const handshakes = new Handshakes(options.wireguardKey < wireguardKey)
      if (known !== undefined) {
        if (known.wireguardKey !== wireguardKey) Object.assign(known, { wireguardKey, handshakes })
        return endpointOf(known.socket)
      }
      const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20, lookup: addressLookup })
      const peer: Peer = { node, index: nextIndex++, socket, handshakes, wireguardKey, awake: false, ...QUIET }
      peers.set(node, peer)
      socket.on('message', (packet, from) => {
        if (from.port === options.wireguardPort) leave(peer, packet)
      })
      try {
        await bindUdp(socket, 0, LOOPBACK)
      } catch (error) {
        peers.delete(node)
        throw error
      }
      // A refused send (the device is being made anew) is a lost packet, which WireGuard expects.
      socket.on('error', () => void dropped++)
      for (const relay of open) links.get(relay)!.outbox.sendNow(bindFrame(peer.index, node))
      return endpointOf(socket)
    },
    ready: (node) => {
      const peer = peers.get(node)
      const initiation = peer?.handshakes.peerIsReady(performance.now())
      if (peer === undefined || initiation === undefined) return
      transmit(peer, Buffer.from(initiation))
      sendWhenDue(peer)
    },
    setAwake: (node, awake) => {
      const peer = peers.get(node)
      if (peer !== undefined) peer.awake = awake
    },
    remove: (node) => {
      peers.get(node)?.socket.close()
      peers.delete(node)
    },
    state: sessions.state,
    addresses: sessions.addresses,
    check: sessions.check,
    dropped: () => dropped,
    closed,
  }
}

const QUIET = { timer: undefined, relay: undefined, entered: undefined }
const LOOPBACK = '127.0.0.1'
const endpointOf = (socket: Socket): string => `${LOOPBACK}:${socket.address().port}`
