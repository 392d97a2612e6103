// A UDP stream with numbered packets, sent and counted in one process. Argument: JSON of Stream. Starts at once, ends
// with SIGTERM, and then prints a StreamReport. Two of them, one per side, count the losses of both directions.

import { createSocket } from 'node:dgram'
import { isIPv6 } from 'node:net'

export type Stream = { readonly peer: string; readonly port: number; readonly perSecond: number }

export type StreamReport = {
  readonly sent: number
  /** Of the peer's packets, between the first and the last that arrived. */
  readonly received: number
  readonly lost: number
  readonly doubled: number
  /** Unix milliseconds of the first arrival; 0 for none. */
  readonly firstAt: number
  /** The longest time between two arrivals. */
  readonly longestGapMs: number
  /** Numbers of the first few that were lost. */
  readonly lostNumbers: readonly number[]
}

const MAX_LOST_SHOWN = 20

if (import.meta.main) {
  const { peer, port, perSecond } = JSON.parse(process.argv[2] ?? '{}') as Stream
  const socket = createSocket(isIPv6(peer) ? 'udp6' : 'udp4')
  const seen = new Set<number>()
  let sent = 0
  let doubled = 0
  let firstAt = 0
  let lastAt = 0
  let longestGapMs = 0

  socket.on('error', () => {})
  socket.on('message', (packet) => {
    const now = Date.now()
    const number = packet.readUInt32BE(0)
    if (seen.has(number)) doubled++
    seen.add(number)
    if (firstAt === 0) firstAt = now
    else longestGapMs = Math.max(longestGapMs, now - lastAt)
    lastAt = now
  })
  socket.bind(port, () => {
    const startedMs = performance.now()
    // By the clock and not by the timer: a late timer sends what is due.
    setInterval(() => {
      const due = Math.floor(((performance.now() - startedMs) * perSecond) / 1000)
      for (; sent < due; sent++) {
        const packet = Buffer.alloc(64)
        packet.writeUInt32BE(sent)
        socket.send(packet, port, peer, () => {})
      }
    }, 1000 / perSecond)
  })
  process.on('SIGTERM', () => {
    const numbers = [...seen].sort((a, b) => a - b)
    const lostNumbers: number[] = []
    for (let number = numbers[0] ?? 0; number < (numbers.at(-1) ?? 0); number++)
      if (!seen.has(number)) lostNumbers.push(number)
    const report: StreamReport = {
      sent,
      received: seen.size,
      lost: lostNumbers.length,
      doubled,
      firstAt,
      longestGapMs,
      lostNumbers: lostNumbers.slice(0, MAX_LOST_SHOWN),
    }
    process.stdout.write(JSON.stringify(report), () => process.exit(0))
  })
}
