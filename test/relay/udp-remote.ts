// A host of the tests of sessions over UDP: the relay, or a gateway's WireGuard port with the real client on it. Control
// frames are collected here and carried by the test.

import { execFileSync } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import type { SignalFrame } from '../../lib/wire/signal.ts'
import { decodeStun, encodeStun, METHOD_BINDING } from '../../lib/wire/stun.ts'
import { encodeBindRequest } from '../../lib/wire/udp-bind.ts'
import { openUdpRelay, type UdpRelay as UdpRelayClient } from '../../gateway/udp-relay-client.ts'
import { runUdpRelay, type UdpRelay, type UdpRelayOptions } from '../../relay/udp-relay-server.ts'
import { serve } from '../lib/netns.ts'

const log = createLog('test', process.env['TEST_LOG_LEVEL'] ?? 'silent')
let life = new AbortController()
let relay: UdpRelay
const told: { readonly node: string; readonly frame: SignalFrame }[] = []

let sockets: readonly Socket[] = []
let client: UdpRelayClient
const requests: string[] = []
let endpoint: SocketAddress | undefined
const received: { readonly bytes: number; readonly first: number; readonly from: string }[] = []
const answers: ReturnType<typeof decodeStun>[] = []
let packets = 0

const packet = (type: number, length: number): Buffer => {
  const bytes = Buffer.alloc(length, 7)
  bytes.writeUInt32BE(type * 0x1000000, 0)
  return bytes
}
const sendTo = (datagram: Uint8Array, to: SocketAddress): void =>
  sockets[to.family === 4 ? 0 : 1]?.send(datagram, to.port, to.address, () => {})

async function open(port: number): Promise<void> {
  const opened = await Promise.all(
    ([4, 6] as const).map(async (family) => {
      const socket = createSocket({ type: `udp${family}`, ipv6Only: family === 6 })
      await new Promise<void>((done) => socket.bind(port, done))
      socket.on('error', () => {})
      socket.on('message', (datagram, info) => {
        packets++
        if (datagram[0] === 4 && datagram.length > 200) return
        const from = socketAddress(info.address, info.port)!
        const message = decodeStun(datagram)
        if (message === undefined)
          received.push({ bytes: datagram.length, first: datagram[0]!, from: `${from.address} ${from.port}` })
        else {
          answers.push(message)
          client?.onStun(message, datagram, from)
        }
      })
      return socket
    }),
  )
  for (const socket of sockets) socket.close()
  sockets = opened
}

serve({
  async startRelay(options: Pick<UdpRelayOptions, 'stateDir' | 'places' | 'ports' | 'userspace'>) {
    life = new AbortController()
    relay = await runUdpRelay(
      { ...options, mayReach: () => true, tell: (node, frame) => told.push({ node, frame }), log },
      life.signal,
    )
  },
  async stopRelay() {
    life.abort()
    await relay.closed
  },
  request: (from: string, to: string) => relay.request(from, to),
  greet: (node: string) => relay.greet(node),
  take: () => told.splice(0),
  status: () => relay.status(),

  async openGateway(port: number) {
    await open(port)
    client = openUdpRelay(
      {
        send: sendTo,
        request: (node) => requests.push(node) > 0,
        onBound: (_node, to) => (endpoint = to),
        onLost: () => (endpoint = undefined),
        log,
      },
      life.signal,
    )
  },
  /** The same gateway behind another port, as after a NAT's rebinding. */
  async move(port: number, node: string) {
    await open(port)
    client.refresh(node)
  },
  want: (nodes: string[]) => client.want(nodes),
  deliver(frame: SignalFrame) {
    if (frame.kind === 'udp-session') client.onSession(frame)
    if (frame.kind === 'udp-end') client.onEnd(frame.node, frame.reason)
  },
  refresh: (node: string) => client.refresh(node),
  reask: () => client.reask(),
  takeRequests: () => requests.splice(0),
  endpoint: () => endpoint,
  send: (type: number, length: number, to: SocketAddress) => sendTo(packet(type, length), to),
  received: () => received.splice(0),

  /** A socket without a client: what an intruder has. */
  openBare: open,
  bind: (to: SocketAddress, username: string, cookie: string, nonce: string | null) =>
    sendTo(
      encodeBindRequest(Buffer.alloc(12, 1), { username, cookie: Buffer.from(cookie, 'base64') }, nonce ?? undefined),
      to,
    ),
  /** From an address put on lo, to which nothing is routed. */
  async bindFrom(address: string, to: SocketAddress, username: string, cookie: string, nonce: string) {
    const socket = createSocket(to.family === 4 ? 'udp4' : 'udp6')
    execFileSync('ip', ['addr', 'replace', address, 'dev', 'lo', ...(to.family === 6 ? ['nodad'] : [])])
    await new Promise<void>((done) => socket.bind(5004, address, done))
    const datagram = encodeBindRequest(Buffer.alloc(12, 3), { username, cookie: Buffer.from(cookie, 'base64') }, nonce)
    await new Promise((done) => socket.send(datagram, to.port, to.address, done))
    socket.close()
  },
  plainStun: (to: SocketAddress) =>
    sendTo(
      encodeStun({
        class: 'request',
        method: METHOD_BINDING,
        transactionId: Buffer.alloc(12, 2),
        classic: false,
        unknownAttributes: [],
      }),
      to,
    ),
  answers: () => answers.splice(0).map((message) => ({ code: message!.errorCode?.code, nonce: message!.nonce })),

  /** Sends as fast as it can for so long. @returns packets sent. */
  async flood(to: SocketAddress, bytes: number, ms: number) {
    const data = packet(4, bytes)
    const socket = sockets[to.family === 4 ? 0 : 1]!
    let sent = 0
    const end = performance.now() + ms
    while (performance.now() < end) {
      for (let i = 0; i < 64; i++) socket.send(data, to.port, to.address)
      sent += 64
      await new Promise((resolve) => setImmediate(resolve))
    }
    return sent
  },
  count() {
    const count = packets
    packets = 0
    return count
  },
})
