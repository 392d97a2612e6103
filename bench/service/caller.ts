// Calls from a process of its own, in whatever namespace and group it was started in; the bench asks for them by name
// (caller-client.ts). What is timed has no event loop in it and makes little garbage.

import { serve } from '../../test/lib/netns.ts'
import type { Connects, Count, Proof, Target } from './caller-client.ts'
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
const CHUNK_BYTES = 256 << 10
const ANSWER_TIMEOUT_MS = 2_000
const CHUNKS_IN_PIECE = PIECE_BYTES / CHUNK_BYTES

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

  requests(targets: readonly Target[], connections: number, ms: number): Count {
    const waiting = new Waiting()
    const fds = Array.from({ length: connections }, () => connected(targets))
    for (const fd of fds) {
      exchange(fd)
      waiting.add(fd)
    }
    const startMs = performance.now()
    for (const fd of fds) sendAll(fd, message, BigInt(MESSAGE_BYTES))
    let [count, underWay, nowMs] = [0, connections, startMs]
    while (underWay > 0) {
      const ready = waiting.wait(ANSWER_TIMEOUT_MS)
      if (ready <= 0) throw new Error(`no answer within ${ANSWER_TIMEOUT_MS} ms`)
      nowMs = performance.now()
      for (let i = 0; i < ready; i++) {
        const fd = waiting.ready(i)
        for (let got = 0; got < MESSAGE_BYTES;) got += receive(fd, buffer)
        count++
        if (nowMs - startMs < ms) sendAll(fd, message, BigInt(MESSAGE_BYTES))
        else underWay--
      }
    }
    waiting.close()
    fds.forEach(closeSocket)
    return { count, seconds: (nowMs - startMs) / 1000 }
  },

  bulk(targets: readonly Target[], ms: number): Count {
    const fd = connected(targets)
    const startMs = performance.now()
    let pieces = 0
    do {
      for (let i = 0; i < CHUNKS_IN_PIECE; i++) sendAll(fd, chunk, BigInt(CHUNK_BYTES))
      pieces++
    } while (performance.now() - startMs < ms)
    for (let got = 0; got < pieces;) got += receive(fd, buffer)
    const seconds = (performance.now() - startMs) / 1000
    closeSocket(fd)
    return { count: pieces * PIECE_BYTES, seconds }
  },
})
