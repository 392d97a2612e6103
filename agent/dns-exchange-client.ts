// One question to one resolver: over UDP from a port that is random for each question, and over TCP where the answer does
// not fit.

import { randomInt } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { connect } from 'node:net'
import type { SocketAddress } from '../lib/address.ts'
import type { DnsQuery } from '../lib/wire/dns.ts'
import { encodeQuery } from '../lib/wire/dns-encode.ts'
import { readResponse, type ForeignResponse } from '../lib/wire/dns-foreign.ts'
import { firstMessage, framed } from '../lib/wire/dns-tcp.ts'

type Finish = (response: ForeignResponse | undefined) => void
/** Begins, and returns how to end. */
type Start = (finish: Finish) => () => void

/** The whole answer where there is one within `timeoutMs`; undefined for none that can be believed. Never rejects. */
export async function exchange(
  server: SocketAddress,
  query: DnsQuery,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ForeignResponse | undefined> {
  const startedAt = performance.now()
  const response = await settled(timeoutMs, signal, overUdp(server, query))
  if (response === undefined || !response.truncated) return response
  // Without TCP the client at least hears that there is more.
  return (await settled(timeoutMs - (performance.now() - startedAt), signal, overTcp(server, query))) ?? response
}

/** A connected socket: the kernel drops what others send, and tells of a closed port at once. */
const overUdp =
  (server: SocketAddress, query: DnsQuery): Start =>
  (finish) => {
    const id = randomInt(0x10000)
    const socket = createSocket(server.family === 4 ? 'udp4' : 'udp6')
    socket.on('error', () => finish(undefined))
    socket.on('message', (bytes) => {
      const response = readResponse(bytes, id, query)
      if (response !== undefined) finish(response)
    })
    socket.on('connect', () => socket.send(encodeQuery(id, query)))
    socket.connect(server.port, server.address)
    return () =>
      socket
        .removeAllListeners()
        .on('error', () => undefined)
        .close()
  }

const overTcp =
  (server: SocketAddress, query: DnsQuery): Start =>
  (finish) => {
    const id = randomInt(0x10000)
    const socket = connect(server.port, server.address)
    let received = Buffer.alloc(0)
    socket.on('error', () => finish(undefined))
    socket.on('close', () => finish(undefined))
    socket.on('data', (bytes: Buffer) => {
      received = Buffer.concat([received, bytes])
      // A frame is at most 65535 bytes, so is what is kept.
      const first = firstMessage(received)
      if (first !== undefined) finish(readResponse(first.message, id, query))
    })
    socket.on('connect', () => socket.write(framed(encodeQuery(id, query))))
    return () => socket.destroy()
  }

function settled(timeoutMs: number, signal: AbortSignal, start: Start): Promise<ForeignResponse | undefined> {
  const { promise, resolve } = Promise.withResolvers<ForeignResponse | undefined>()
  const give = (): void => resolve(undefined)
  const timer = setTimeout(give, Math.max(0, timeoutMs))
  signal.addEventListener('abort', give)
  let end = (): void => undefined
  try {
    end = start(resolve)
  } catch {
    // A socket that cannot be made brings no answer.
    give()
  }
  return promise.finally(() => {
    clearTimeout(timer)
    signal.removeEventListener('abort', give)
    end()
  })
}
