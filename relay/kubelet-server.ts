// A port that stands for the kubelets of all nodes: who connects names the node by TLS (SNI), or dials its address, which
// leads here by a route or a rule of this host; and gets a stream to its kubelet with that very handshake. TLS passes
// through; the kubelet decides who may do what.

import { randomBytes } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { formatSocketAddress } from '../lib/address.ts'
import type { Log } from '../lib/log.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { originalDestination } from '../lib/net/original-destination.ts'
import { breakOff, splice } from '../lib/net/splice.ts'
import { nameInHello } from '../lib/wire/client-hello.ts'
import { addressOf, listen, type ListenAddress } from './listen-server.ts'
import { KUBELET_PORT, NodeDialError, type DialNode } from './node-dial.ts'
import { createPrefixLimit } from './prefix-limit.ts'

export type KubeletServerOptions = {
  readonly listen: readonly ListenAddress[]
  /** The node that a name or an address stands for; undefined for none. */
  readonly nodeOf: (name: string) => string | undefined
  readonly dial: DialNode
  readonly log: Log
  readonly helloMs?: number
}

export type KubeletServer = {
  /** Where it listens; port 0 has become a real one. */
  readonly addresses: readonly ListenAddress[]
  /** Resolves when the signal aborted and the last connection ended. */
  readonly closed: Promise<void>
}

const MAX_CONNECTIONS = 10_000
const HELLO_MS = 5_000
/** A hello comes in one segment, or a few. */
const MAX_SEGMENTS = 64
const KEEP_ALIVE_MS = 60_000

/** A TLS alert record (RFC 8446 §6), fatal. */
const alert = (description: number): Buffer => Buffer.from([21, 3, 3, 0, 2, 2, description])
const UNRECOGNIZED_NAME = alert(112)
const INTERNAL_ERROR = alert(80)
const DECODE_ERROR = alert(50)

/** @throws UsageError naming the address and port that cannot be had. */
export async function runKubeletServer(options: KubeletServerOptions, signal: AbortSignal): Promise<KubeletServer> {
  const { log } = options
  const sockets = new Set<Socket>()
  const servers: Server[] = []
  try {
    for (const where of options.listen) {
      const server = createServer(
        { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS },
        (socket) => {
          sockets.add(socket)
          socket.once('close', () => sockets.delete(socket))
          accept(options, socket)
        },
      )
      server.maxConnections = MAX_CONNECTIONS
      await listen(server, where, '--kubelet-listen', log)
      servers.push(server)
    }
  } catch (error) {
    for (const server of servers) server.close()
    throw error
  }
  const closed = Promise.all(servers.map((server) => new Promise<void>((resolve) => server.once('close', resolve))))
  const stop = (): void => {
    for (const server of servers) server.close()
    for (const socket of sockets) socket.destroy()
  }
  onAbort(signal, stop)
  const addresses = servers.map(addressOf)
  log.info({ addresses: addresses.map(formatSocketAddress) }, 'relay listens for kubelets')
  return { addresses, closed: closed.then(() => undefined) }
}

function accept({ nodeOf, dial, log, helloMs = HELLO_MS }: KubeletServerOptions, socket: Socket): void {
  const addr = socket.remoteAddress
  let bytes: Buffer = Buffer.alloc(0)
  let segments = 0
  const refuse = (reason: string, answer?: Buffer): void => {
    settle()
    log[mayLog(addr ?? '', performance.now()) ? 'info' : 'debug']({ addr, reason }, 'connection for a kubelet refused')
    if (answer === undefined) socket.destroy()
    else socket.end(answer, () => socket.destroy())
  }
  const late = setTimeout(() => refuse('it did not say hello in time'), helloMs)
  const onEnd = (): void => refuse('it left without a word')
  const onData = (chunk: Buffer): void => {
    bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
    const hello = ++segments > MAX_SEGMENTS ? TOO_MANY : nameInHello(bytes)
    if (hello.kind === 'partial') return
    if (hello.kind === 'no hello') return refuse(hello.reason, DECODE_ERROR)
    const dialled = hello.name ?? originalDestination(socket) ?? ''
    const node = nodeOf(dialled)
    if (node === undefined)
      return refuse(
        hello.name === undefined
          ? `it names no node, and ${dialled}, which it dialled, is the address of none, or of several`
          : `there is no node ${dialled}`,
        UNRECOGNIZED_NAME,
      )
    settle()
    socket.pause()
    void join(node)
  }
  const settle = (): void => {
    clearTimeout(late)
    socket.off('data', onData)
    socket.off('end', onEnd)
  }
  const gone = new AbortController()
  const join = async (node: string): Promise<void> => {
    try {
      const stream = await dial(node, { host: node, port: KUBELET_PORT }, gone.signal)
      if (socket.destroyed) return breakOff(stream)
      stream.write(bytes)
      splice(socket, stream)
    } catch (error) {
      if (!(error instanceof NodeDialError)) log.error({ err: error, node }, 'cannot dial a kubelet')
      refuse((error as Error).message, INTERNAL_ERROR)
    }
  }
  socket.on('error', () => {})
  socket.once('close', () => {
    clearTimeout(late)
    gone.abort()
  })
  socket.on('data', onData)
  socket.on('end', onEnd)
}

/** Of each network: whoever gets here has shown nothing yet. */
const mayLog = createPrefixLimit({ perSecond: 5, burst: 64 }, randomBytes(4).readInt32BE())

const TOO_MANY = {
  kind: 'no hello',
  reason: `its ClientHello came in over ${MAX_SEGMENTS} pieces`,
} as const
