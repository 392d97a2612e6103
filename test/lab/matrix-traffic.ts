// One end of all streams of a pod in the matrix: numbered UDP packets at an even rate to each peer that it is told to
// send to, and what arrived of each trial. Orders come over IPC, a report goes back when a trial ends.
//
//   packet   0: number   4: trial   … padding

import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'

/** A trial is one pair in one round; its number is used once. */
export type Order =
  | {
      readonly kind: 'start'
      readonly trial: number
      readonly peer: string
      readonly bytes: number
      readonly perSecond: number
    }
  /** No more is sent. */
  | { readonly kind: 'hush'; readonly trial: number }
  /** Reports, and forgets the trial. */
  | { readonly kind: 'end'; readonly trial: number }

export type StreamEnd = {
  readonly trial: number
  /** Unix milliseconds at which each packet left, by its number. */
  readonly sentAt: readonly number[]
  /** Number and Unix milliseconds of each packet of the peer, as they came. */
  readonly arrived: readonly (readonly [number, number])[]
}

export const TRAFFIC_PORT = 41_001
const TICK_MS = 10

type Stream = {
  readonly peer: string
  readonly startedMs: number
  readonly packet: Buffer
  readonly perSecond: number
  sending: boolean
  readonly sentAt: number[]
}

if (import.meta.main) {
  const own = process.argv[2] ?? ''
  const socket = createSocket(isIPv6(own) ? 'udp6' : 'udp4')
  const streams = new Map<number, Stream>()
  const arrived = new Map<number, [number, number][]>()
  const ended = new Set<number>()
  let timer: NodeJS.Timeout | undefined

  const send = (): void => {
    const nowMs = performance.now()
    for (const { peer, startedMs, packet, perSecond, sending, sentAt } of streams.values()) {
      // By the clock and not by the timer: a late timer sends what is due.
      const due = sending ? Math.floor(((nowMs - startedMs) * perSecond) / 1000) + 1 : 0
      while (sentAt.length < due) {
        packet.writeUInt32BE(sentAt.length)
        sentAt.push(Date.now())
        // Copied, since the next number is written while this one may still wait.
        socket.send(Buffer.from(packet), TRAFFIC_PORT, peer, () => {})
      }
    }
  }

  socket.on('error', () => {})
  socket.on('message', (packet) => {
    const [number, trial] = [packet.readUInt32BE(0), packet.readUInt32BE(4)]
    if (ended.has(trial)) return
    const list = arrived.get(trial)
    if (list === undefined) arrived.set(trial, [[number, Date.now()]])
    else list.push([number, Date.now()])
  })
  process.on('message', (order: Order) => {
    const { trial } = order
    switch (order.kind) {
      case 'start': {
        const packet = Buffer.alloc(order.bytes)
        packet.writeUInt32BE(trial, 4)
        const { peer, perSecond } = order
        streams.set(trial, { peer, startedMs: performance.now(), packet, perSecond, sending: true, sentAt: [] })
        timer ??= setInterval(send, TICK_MS)
        return send()
      }
      case 'hush': {
        const stream = streams.get(trial)
        if (stream !== undefined) stream.sending = false
        return
      }
      case 'end': {
        const report: StreamEnd = { trial, sentAt: streams.get(trial)?.sentAt ?? [], arrived: arrived.get(trial) ?? [] }
        streams.delete(trial)
        arrived.delete(trial)
        ended.add(trial)
        if (streams.size === 0) {
          clearInterval(timer)
          timer = undefined
        }
        process.send!(report)
      }
    }
  })
  process.on('disconnect', () => process.exit())
  socket.bind(TRAFFIC_PORT, own, () => process.send!('ready'))
}
