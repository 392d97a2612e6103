// Calls from a process of its own, in whatever namespace and group it was started in; the bench asks for them by name
// (caller-client.ts). What is timed has no event loop in it and makes little garbage.

import { serve } from '../../test/lib/netns.ts'
import type { Batches, Connects, Proof, Target } from './caller-client.ts'
import { PIECE_BYTES, WHO } from './server.ts'
import {
  closeSocket,
  connectSocket,
  memory,
  openSocket,
  ownName,
  peerName,
  receive,
  sendAll,
  socketName,
  Waiting,
} from './tcp.ts'

const MESSAGE_BYTES = 64
/** The first of each go find cold caches and are left out. */
const WARM_UP = 20
const WARM_UP_MS = 5
const WARM_UP_PIECES = 2
/** Requests in one, or some more. */
const BATCH = 32
const CHUNK_BYTES = 256 << 10
const ANSWER_TIMEOUT_MS = 2_000
const CHUNKS_IN_PIECE = PIECE_BYTES / CHUNK_BYTES
const PIECE_MEGABYTES = PIECE_BYTES / 1e6

const message = memory(MESSAGE_BYTES).fill('x')
const chunk = memory(CHUNK_BYTES).fill('x')
const buffer = memory(64 << 10)
let turn = 0
const nextOf = (targets: readonly Target[]): Buffer => {
  const { address, port } = targets[turn++ % targets.length]!
  return socketName(address, port)
}

function connected(targets: readonly Target[]): number {
  const fd = openSocket()
  connectSocket(fd, nextOf(targets))
  return fd
}

/** A message to its answer, which comes in one piece for all that is seen of TCP here. */
function exchange(fd: number): void {
  sendAll(fd, message, BigInt(MESSAGE_BYTES))
  for (let got = 0; got < MESSAGE_BYTES;) got += receive(fd, buffer)
}

type Held = { readonly fds: readonly number[]; readonly waiting: Waiting }
let held: Held | undefined

/** One message under way on each. */
function exchangeAll({ fds, waiting }: Held, ms: number): Batches {
  const each: number[] = []
  const startMs = performance.now()
  let [count, underWay] = [0, fds.length]
  let batch = { count, ms: startMs }
  for (const fd of fds) sendAll(fd, message, BigInt(MESSAGE_BYTES))
  while (underWay > 0) {
    const ready = waiting.wait(ANSWER_TIMEOUT_MS)
    if (ready <= 0) throw new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)
    const nowMs = performance.now()
    if (count - batch.count >= BATCH && underWay === fds.length) {
      each.push(hundredths(((nowMs - batch.ms) * 1000) / (count - batch.count)))
      batch = { count, ms: nowMs }
    }
    for (let i = 0; i < ready; i++) {
      const fd = waiting.ready(i)
      for (let got = 0; got < MESSAGE_BYTES;) got += receive(fd, buffer)
      count++
      if (nowMs - startMs < ms) sendAll(fd, message, BigInt(MESSAGE_BYTES))
      else underWay--
    }
  }
  return { count, each }
}

const hundredths = (us: number): number => Math.round(us * 100) / 100

serve({
  prove(target: Target): Proof {
    const fd = connected([target])
    sendAll(fd, memory(1).fill(WHO), 1n)
    const seen = buffer.toString('latin1', 0, receive(fd, buffer))
    const proof = { own: ownName(fd), peer: peerName(fd), seen }
    closeSocket(fd)
    return proof
  },

  roundTrips(targets: readonly Target[], ms: number): readonly number[] {
    const fd = connected(targets)
    for (let i = 0; i < WARM_UP; i++) exchange(fd)
    const found: number[] = []
    for (const endMs = performance.now() + ms; performance.now() < endMs;) {
      const atMs = performance.now()
      exchange(fd)
      found.push(hundredths((performance.now() - atMs) * 1000))
    }
    closeSocket(fd)
    return found
  },

  connects(targets: readonly Target[], ms: number): Connects {
    const names = targets.map(({ address, port }) => socketName(address, port))
    const found = { connected: [] as number[], answered: [] as number[] }
    let endMs = Infinity
    for (let i = 0; performance.now() < endMs; i++) {
      if (i === WARM_UP) endMs = performance.now() + ms
      const fd = openSocket()
      const name = names[i % names.length]!
      const atMs = performance.now()
      connectSocket(fd, name)
      const connectedMs = performance.now()
      exchange(fd)
      const answeredMs = performance.now()
      closeSocket(fd)
      if (i < WARM_UP) continue
      found.connected.push(hundredths((connectedMs - atMs) * 1000))
      found.answered.push(hundredths((answeredMs - atMs) * 1000))
    }
    return found
  },

  open(targets: readonly Target[], connections: number): void {
    held = { fds: Array.from({ length: connections }, () => connected(targets)), waiting: new Waiting() }
    for (const fd of held.fds) held.waiting.add(fd)
    exchangeAll(held, WARM_UP_MS)
  },
  requests: (ms: number): Batches => exchangeAll(held!, ms),
  close(): void {
    held!.waiting.close()
    held!.fds.forEach(closeSocket)
    held = undefined
  },

  bulk(targets: readonly Target[], ms: number): Batches {
    const fd = connected(targets)
    const each: number[] = []
    let endMs = Infinity
    for (let pieces = 0; performance.now() < endMs; pieces++) {
      if (pieces === WARM_UP_PIECES) endMs = performance.now() + ms
      const atMs = performance.now()
      for (let i = 0; i < CHUNKS_IN_PIECE; i++) sendAll(fd, chunk, BigInt(CHUNK_BYTES))
      receive(fd, buffer)
      if (pieces >= WARM_UP_PIECES) each.push(hundredths(((performance.now() - atMs) * 1000) / PIECE_MEGABYTES))
    }
    closeSocket(fd)
    return { count: each.length * PIECE_MEGABYTES, each }
  },
})
