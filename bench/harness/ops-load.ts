// Both ends of streams through a tunnel, in a process of its own: who dials in by a Unix socket, and the target that is dialled
// at the far end. The bench calls these by name (ops-load-client.ts).

import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { serve } from '../../test/lib/netns.ts'
import type { Churn, Dial, Rate, Target, Trips } from './ops-load-client.ts'

const CHUNK = Buffer.alloc(256 * 1024, 'fulmar')
const WORD = Buffer.from('k')
const OPEN_TIMEOUT_MS = 60_000
const TRIP_TIMEOUT_MS = 60_000
const HEAD_END = Buffer.from('\r\n\r\n')

let received = 0
const groups = new Map<number, readonly Socket[]>()
let lastGroup = 0
const accepted = new Set<Socket>()

function pour(socket: Socket): void {
  const fill = (): void => {
    while (socket.writable && socket.write(CHUNK)) {
      // Until the socket has enough.
    }
  }
  socket.on('drain', fill)
  fill()
}

const TARGETS: Readonly<Record<Target, (socket: Socket) => void>> = {
  pour: (socket) => {
    socket.once('data', () => pour(socket))
  },
  sink: (socket) => {
    socket.on('data', (chunk) => (received += chunk.length))
  },
  echo: (socket) => {
    socket.pipe(socket)
  },
  deaf: (socket) => {
    socket.pause()
  },
}

/** One buffer for all that is read: what it holds is counted and forgotten. */
const buffer = Buffer.allocUnsafe(256 * 1024)

/** Dials, and where the socket wants a CONNECT, waits for its answer. @param onData after that. */
function open({ path, connect: target }: Dial, onData: (bytes: number, socket: Socket) => void): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  let head = target === undefined ? undefined : Buffer.alloc(0)
  const socket = connect({
    path,
    onread: {
      buffer,
      callback: (bytes, view) => {
        if (head === undefined) {
          onData(bytes, socket)
          return true
        }
        head = Buffer.concat([head, view.subarray(0, bytes)])
        const end = head.indexOf(HEAD_END)
        if (end === -1) return true
        const [, status, reason] = /^HTTP\/1\.1 (\d+) (.*)\r\n/.exec(head.toString('latin1')) ?? []
        const rest = head.length - end - HEAD_END.length
        head = undefined
        if (status === '200') resolve(socket)
        else reject(new Error(`CONNECT ${target}: ${status} ${reason}`))
        if (rest > 0) onData(rest, socket)
        return true
      },
    },
  })
  socket.on('error', (error) => reject(error))
  socket.once('close', () => reject(new Error(`${path}: closed before it was open`)))
  socket.once('connect', () => {
    if (target === undefined) resolve(socket)
    else socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
  })
  const late = setTimeout(() => reject(new Error(`${path}: not open in time`)), OPEN_TIMEOUT_MS)
  return promise.finally(() => clearTimeout(late))
}

const USES: Readonly<Record<Dial['use'], (socket: Socket) => void>> = {
  read: (socket) => void socket.write(WORD),
  write: pour,
  stall: (socket) => {
    socket.write(WORD)
    socket.pause()
  },
}

serve({
  async listen(kind: Target, port: number, address: string) {
    const server = createServer({ noDelay: true }, (socket) => {
      accepted.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => accepted.delete(socket))
      TARGETS[kind](socket)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(port, address, 1024, resolve)
    })
  },
  accepted: () => accepted.size,
  hangUp() {
    for (const socket of accepted) socket.destroy()
  },

  /** @returns a number to close them by. */
  async dial(dial: Dial) {
    const dials = Array.from({ length: dial.count }, () => open(dial, (bytes) => (received += bytes)))
    const sockets = await Promise.all(dials)
    for (const socket of sockets) {
      socket.on('error', () => {})
      USES[dial.use](socket)
    }
    groups.set(++lastGroup, sockets)
    return lastGroup
  },
  close(group: number) {
    for (const socket of groups.get(group) ?? []) socket.destroy()
    groups.delete(group)
  },

  /** What arrived within some time, from a while after the call. */
  async bytesPerSecond({ skipMs, ms }: Rate) {
    await pause(skipMs)
    const [before, startMs] = [received, performance.now()]
    await pause(ms)
    return ((received - before) * 1000) / (performance.now() - startMs)
  },

  /** Round trips of a byte on one stream, one after the other, with pauses as of a hand that types fast. */
  async trips({ count, gapMs, ...dial }: Trips) {
    let answered = (): void => {}
    const socket = await open({ ...dial, count: 1, use: 'read' }, () => answered())
    const times: number[] = []
    try {
      for (let i = 0; i < count; i++) {
        const { promise, resolve, reject } = Promise.withResolvers<void>()
        answered = resolve
        const late = setTimeout(() => reject(new Error('an echo did not come back')), TRIP_TIMEOUT_MS)
        const startMs = performance.now()
        socket.write(WORD)
        await promise
        clearTimeout(late)
        times.push(performance.now() - startMs)
        if (gapMs > 0) await pause(gapMs)
      }
    } finally {
      socket.destroy()
    }
    return times
  },

  /** Opens streams, sends a byte through each and closes it: so many in all, so many at a time. @returns how many failed. */
  async churn({ paths, path, count, atOnce }: Churn) {
    let next = 0
    const failures: string[] = []
    const one = async (): Promise<void> => {
      for (let i = next++; i < count; i = next++) {
        const { promise, resolve } = Promise.withResolvers<void>()
        const target = paths[i % paths.length]!
        try {
          const socket = await open({ path, connect: target, count: 1, use: 'read' }, () => resolve())
          socket.write(WORD)
          await Promise.race([promise, pause(TRIP_TIMEOUT_MS, undefined, { ref: false })])
          socket.destroy()
        } catch (error) {
          failures.push((error as Error).message)
        }
      }
    }
    await Promise.all(Array.from({ length: atOnce }, one))
    return { failed: failures.length, why: failures[0] }
  },
})
