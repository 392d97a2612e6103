// What runs in a pod of the lab: HTTP on every TCP port and echo on every UDP port, in both families, each answer naming
// the pod and the client as the pod sees it. One argument: JSON of PodServer. Says `listening` on descriptor 3.
//
//   GET /            who answers whom
//   GET /bytes?n=N   a body of N zero bytes
//   GET /slow?ms=N   the same as / after N milliseconds
//   GET /headers     what arrived

import { createSocket } from 'node:dgram'
import { closeSync, writeSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { flushCompileCache } from 'node:module'
import { pipeline, Readable } from 'node:stream'

export type PodServer = {
  readonly pod: string
  readonly namespace: string
  readonly node: string
  readonly tcp: readonly number[]
  readonly udp: readonly number[]
}

const BYTES_MAX = 1024 ** 4
const SLOW_MAX_MS = 600_000
const BLOCK = Buffer.alloc(64 * 1024)

const self = JSON.parse(process.argv[2] ?? '{}') as PodServer
const { pod, namespace, node } = self
const plain = (address = '') => address.replace(/^::ffff:/, '')

function answer(request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url ?? '/', 'http://pod')
  const { remoteAddress, remotePort, localAddress, localPort } = request.socket
  const body = {
    pod,
    namespace,
    node,
    client: plain(remoteAddress),
    clientPort: remotePort,
    server: plain(localAddress),
    port: localPort,
    host: request.headers.host,
    path: url.pathname,
  }
  const json = (value: object) =>
    response.setHeader('content-type', 'application/json').end(`${JSON.stringify(value)}\n`)
  request.resume()
  switch (url.pathname) {
    case '/bytes': {
      const n = bounded(url, 'n', BYTES_MAX)
      response.setHeader('content-type', 'application/octet-stream').setHeader('content-length', n)
      return void pipeline(Readable.from(blocks(n), { objectMode: false }), response, () => {})
    }
    case '/slow':
      return void setTimeout(() => json(body), bounded(url, 'ms', SLOW_MAX_MS))
    case '/headers':
      return void json({ ...body, headers: request.headers })
    default:
      json(body)
  }
}

function* blocks(n: number): Generator<Buffer> {
  for (let left = n; left > 0; left -= BLOCK.length) yield left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK
}

function bounded(url: URL, name: string, max: number): number {
  const value = Number(url.searchParams.get(name) ?? 0)
  return Number.isInteger(value) && value >= 0 ? Math.min(value, max) : 0
}

const listenTcp = (port: number): Promise<unknown> =>
  new Promise((resolve, reject) =>
    createServer(answer)
      .once('error', reject)
      .listen({ port, host: '::' }, () => resolve(undefined)),
  )

const listenUdp = (port: number): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const socket = createSocket('udp6').once('error', reject)
    socket.on('message', (message, from) => {
      const line = JSON.stringify({
        pod,
        namespace,
        node,
        client: plain(from.address),
        clientPort: from.port,
        echo: message.toString(),
      })
      socket.send(`${line}\n`, from.port, from.address, () => {})
    })
    socket.bind({ port, address: '::' }, () => resolve(undefined))
  })

// A pod without ports waits all the same, as a client that people exec into.
setInterval(() => {}, 2 ** 30)
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0))
const ports = await Promise.allSettled([...self.tcp.map(listenTcp), ...self.udp.map(listenUdp)])
// On the host network a port may be the node's already; the others serve all the same.
for (const port of ports)
  if (port.status === 'rejected') console.error(JSON.stringify({ msg: 'port left out', err: String(port.reason) }))
console.log(JSON.stringify({ msg: 'listening', ...self }))
try {
  writeSync(3, 'listening\n')
  closeSync(3)
} catch {
  // Started by hand, without anybody who waits.
}
// Node would do it at the end, and pods do not end; the next ones then start in half the time.
flushCompileCache()
