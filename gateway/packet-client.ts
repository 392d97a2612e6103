// The rung relay-tcp: WireGuard packets of the device fm-tcp, carried over one WebSocket to the relay
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
import type { Log } from '../lib/log.ts'
import type { NodeIdentity } from '../lib/net/identity.ts'
import { openPacketOutbox, type PacketOutbox } from '../lib/net/packet-outbox.ts'
import { openRelaySession, type RelaySession } from '../lib/net/relay-session.ts'
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

export type PacketClient = Pick<RelaySession, 'state' | 'address' | 'check' | 'closed'> & {
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
}

export function openPacketClient(
  options: {
    readonly identity: NodeIdentity
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
  const inbound = new Map<number, string>()
  let nextIndex = 0
  let outbox: PacketOutbox<Peer> | undefined
  let dropped = 0

  const session = openRelaySession(
    {
      identity: options.identity,
      path: PACKETS_PATH,
      maxPayloadBytes: MAX_PACKET_FRAME_BYTES,
      log: options.log,
      onOpen: (socket, stream) => {
        inbound.clear()
        outbox?.close()
        outbox = openPacketOutbox(socket, stream, { sent: () => {}, dropped: () => void dropped++ })
        for (const peer of peers.values()) outbox.sendNow(bindFrame(peer.index, peer.node))
      },
      onMessage: (data, binary) => {
        if (binary) receive(data as Buffer)
      },
      onChange: options.onChange,
    },
    signal,
  )

  /** Per packet: one lookup and one send, no allocation of ours but a view. */
  const receive = (frame: Buffer): void => {
    switch (kindOf(frame)) {
      case 'data': {
        const node = inbound.get(indexOf(frame))
        const peer = node === undefined ? undefined : peers.get(node)
        if (peer === undefined || !peer.handshakes.mayEnter(packetOf(frame), performance.now())) dropped++
        else peer.socket.send(packetOf(frame), options.wireguardPort, LOOPBACK)
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

  const transmit = (peer: Peer, packet: Buffer): void => {
    const usable = session.socket() !== undefined && packet.length <= MAX_PACKET_FRAME_BYTES - PACKET_HEADER_BYTES
    if (usable) outbox!.send(dataFrame(peer.index, packet), peer)
    else dropped++
  }

  const closed = session.closed.then(() => {
    outbox?.close()
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
      const peer: Peer = { node, index: nextIndex++, socket, handshakes, wireguardKey, awake: false, timer: undefined }
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
      if (session.socket() !== undefined) outbox!.sendNow(bindFrame(peer.index, node))
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
    state: session.state,
    address: session.address,
    check: session.check,
    dropped: () => dropped,
    closed,
  }
}

const LOOPBACK = '127.0.0.1'
const endpointOf = (socket: Socket): string => `${LOOPBACK}:${socket.address().port}`
