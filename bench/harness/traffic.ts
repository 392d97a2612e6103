// Traffic from a process of its own, in whatever namespace it was started in: TCP bulk and its sink, UDP pings and their
// echo, UDP floods and their count. The bench calls these by name (traffic-client.ts).

import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { serve } from '../../test/lib/netns.ts'
import type { Bulk, Flood, Ping, PingReport, Rate } from './traffic-client.ts'

const CHUNK = Buffer.alloc(256 * 1024, 'fulmar')
const FLOOD_BURST = 64
/** Echoes may come so late. */
const LAST_ECHO_MS = 1_000
const SEQUENCE_BYTES = 4
const UDP_BUFFER_BYTES = 4 * 1024 * 1024

let received = 0
let datagrams = 0
const udp = (address: string): UdpSocket =>
  createSocket({ type: address.includes(':') ? 'udp6' : 'udp4', recvBufferSize: UDP_BUFFER_BYTES })

const bound = (socket: UdpSocket, port: number): Promise<void> =>
  new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.bind(port, resolve)
  })

/** What arrived within some time, from a while after the call: a start that is slow is not counted. */
async function rate(count: () => number, { skipMs, ms }: Rate): Promise<number> {
  await pause(skipMs)
  const [before, startMs] = [count(), performance.now()]
  await pause(ms)
  return ((count() - before) * 1000) / (performance.now() - startMs)
}

serve({
  sink: (port: number) =>
    new Promise<void>((resolve, reject) => {
      const server = createServer((socket) => {
        socket.on('data', (chunk) => (received += chunk.length))
        socket.on('error', () => {})
      })
      server.once('error', reject)
      server.listen(port, '::', resolve)
    }),
  bytesPerSecond: (options: Rate) => rate(() => received, options),

  /** Sends as much as TCP takes. */
  async bulk({ address, port, ms }: Bulk) {
    const socket = connect({ host: address, port })
    const ended = AbortSignal.timeout(ms)
    await new Promise<void>((resolve, reject) => {
      const end = (): void => {
        socket.destroy()
        resolve()
      }
      const fill = (): void => {
        while (!ended.aborted && socket.write(CHUNK)) {
          // Until the socket has enough.
        }
      }
      socket.once('error', reject)
      socket.once('connect', fill)
      socket.on('drain', fill)
      ended.addEventListener('abort', end, { once: true })
    })
  },

  async echo(port: number) {
    const socket = udp('::')
    await bound(socket, port)
    socket.on('message', (message, from) => socket.send(message, from.port, from.address))
  },
  /** At a fixed rate, whether or not echoes come. */
  async ping({ address, port, perSecond, ms, bytes }: Ping): Promise<PingReport> {
    const socket = udp(address)
    await bound(socket, 0)
    const sentAt: number[] = []
    const rttsMs: number[] = []
    socket.on('message', (message) => {
      const sequence = message.readUInt32BE()
      const at = sentAt[sequence]
      if (at === undefined || Number.isNaN(at)) return
      rttsMs.push(performance.now() - at)
      sentAt[sequence] = NaN
    })
    const total = Math.round((perSecond * ms) / 1000)
    const startMs = performance.now()
    for (let sequence = 0; sequence < total; sequence++) {
      const message = Buffer.alloc(Math.max(bytes, SEQUENCE_BYTES))
      message.writeUInt32BE(sequence)
      sentAt.push(performance.now())
      socket.send(message, port, address)
      await pause(Math.max(0, startMs + ((sequence + 1) * 1000) / perSecond - performance.now()))
    }
    for (let waited = 0; rttsMs.length < total && waited < LAST_ECHO_MS; waited += 10) await pause(10)
    socket.close()
    return { sent: total, rttsMs }
  },

  async countDatagrams(port: number) {
    const socket = udp('::')
    await bound(socket, port)
    socket.on('message', () => datagrams++)
  },
  datagramsPerSecond: (options: Rate) => rate(() => datagrams, options),
  /** As fast as it can. */
  async flood({ address, port, from, bytes, ms }: Flood) {
    const socket = udp(address)
    await bound(socket, from)
    const message = Buffer.alloc(bytes)
    // WireGuard's type 4, transport data.
    message[0] = 4
    const endMs = performance.now() + ms
    while (performance.now() < endMs) {
      for (let i = 0; i < FLOOD_BURST; i++) socket.send(message, port, address)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await new Promise<void>((resolve) => socket.close(resolve))
  },
})
