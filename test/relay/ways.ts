// The ways of streams to nodes, each opened as its clients do it: kube-apiserver's Unix socket and TLS port, the proxy on the
// relay's port, and the port of kubelets. Every stream goes to a TCP server beside a real agent, the node edge-7.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { dialTarget } from '../../agent/ops-dial-client.ts'
import { createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import { answerConnect } from '../../relay/connect-server.ts'
import { runEgressServer } from '../../relay/egress-server.ts'
import { runKubeletServer } from '../../relay/kubelet-server.ts'
import { KUBELET_PORT } from '../../relay/node-dial.ts'
import { log, type Mesh } from './mesh.ts'
import { createOps, listen } from './ops.ts'
import { until } from '../lib/until.ts'

/** @param early what leaves with the request, in one write. */
export type Way = { readonly name: string; readonly open: (port: number, early?: string) => Promise<Duplex> }

export type Ways = {
  readonly mesh: Mesh
  readonly ways: readonly Way[]
  /** Starts a target, to whose port a way may lead; a ClientHello that opens a connection is not handed on. */
  readonly target: (t: Test, onSocket: (socket: Socket) => void) => Promise<number>
  /** Whether no stream is left. */
  readonly idle: () => boolean
}

/** How long clients may take for their requests. */
export const SHORT_MS = 300
/** A target that is silent until its client speaks gets this first. */
export const HELLO = 'hello'
const CONNECTED = 'HTTP/1.1 200 Connection established\r\n\r\n'

type Test = Parameters<typeof listen>[0]

export async function openWays(t: Test): Promise<Ways> {
  const { mesh, relay, agent } = await createOps(t, { dialMs: 1_000 })
  /** What a client of kubelets says first; the relay passes it on, and the targets here skip it. */
  const clientHello = await firstWrite('edge-7')
  let kubeletPort = 0
  let accepted = 0
  const { client: agentClient } = await agent('edge-7', 0, {
    dial: (host, port) => {
      const at = port === KUBELET_PORT ? kubeletPort : port
      return dialTarget({ node: 'edge-7', kubeletPort: at, targets: [] }, host, at)
    },
  })
  const dial = (host: string, port: number, signal: AbortSignal) => relay.dial(host, { host, port }, signal)
  const socket = join(mesh.stateDir, 'egress.sock')
  const egress = await runEgressServer(
    {
      ...{ socket, listen: [{ address: '127.0.0.1', port: 0 }], users: ['kube-apiserver'], dial, log },
      ...{ certificate: mesh.server, authorityPem: mesh.authority.certificatePem, requestMs: SHORT_MS },
    },
    mesh.signal,
  )
  const kubelets = await runKubeletServer(
    {
      ...{ listen: [{ address: '127.0.0.1', port: 0 }], dial: relay.dial, log, helloMs: SHORT_MS },
      nodeOf: (name) => name,
    },
    mesh.signal,
  )
  const proxy = await mesh.listen({
    connect: (request, stream, head) => answerConnect({ caller: 'prometheus', dial, log }, request, stream, head),
  })
  mesh.holds(egress.closed)
  mesh.holds(kubelets.closed)
  const apiserver = await createClient(
    mesh.authority,
    { commonName: 'kube-apiserver', organization: undefined },
    validFor(Date.now(), 1),
  )
  const tlsTo = (port: number, client?: KeyPair): Duplex => {
    const stream = connectTls({
      ...{ host: '127.0.0.1', port, ca: mesh.authority.certificatePem, allowHalfOpen: true },
      ...(client && { cert: client.certificatePem, key: client.keyPem }),
    })
    stream.setNoDelay(true)
    return stream
  }

  const ways: readonly Way[] = [
    {
      name: 'Unix socket',
      open: (port, early) => byConnect(connect({ path: socket, allowHalfOpen: true }), port, early),
    },
    { name: 'mTLS', open: (port, early) => byConnect(tlsTo(egress.addresses[0]!.port, apiserver), port, early) },
    { name: 'proxy', open: (port, early) => byConnect(tlsTo(proxy.port), port, early) },
    {
      name: 'TLS name',
      async open(port, early = '') {
        kubeletPort = port
        const { port: relayPort } = kubelets.addresses[0]!
        const stream = connect({ host: '127.0.0.1', port: relayPort, allowHalfOpen: true, noDelay: true })
        stream.write(Buffer.concat([clientHello, Buffer.from(early)]))
        // The target is dialled before the next stream asks for another.
        const before = accepted
        await until(() => accepted > before)
        return stream
      },
    },
  ]

  return {
    mesh,
    ways,
    async target(t, onSocket) {
      const { port } = await listen(t, (stream) => {
        accepted++
        stream.once('data', (first: Buffer) => {
          stream.pause()
          const rest = first.subarray(0, clientHello.length).equals(clientHello)
            ? first.subarray(clientHello.length)
            : first
          if (rest.length > 0) stream.unshift(rest)
          onSocket(stream)
          stream.resume()
        })
      })
      return port
    },
    idle: () => relay.list()[0]!.streams === 0 && agentClient.state().streams === 0,
  }
}

async function byConnect(stream: Duplex, port: number, early = ''): Promise<Duplex> {
  stream.write(`CONNECT edge-7:${port} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n${early}`)
  let bytes = Buffer.alloc(0)
  while (!bytes.includes('\r\n\r\n')) {
    const [chunk] = (await once(stream, 'data')) as [Buffer]
    bytes = Buffer.concat([bytes, chunk])
  }
  stream.pause()
  const head = bytes.subarray(0, bytes.indexOf('\r\n\r\n') + 4)
  if (head.toString() !== CONNECTED) throw new Error(head.toString())
  if (bytes.length > head.length) stream.unshift(bytes.subarray(head.length))
  if (early === '') stream.write(HELLO)
  return stream
}

/** A whole ClientHello for this name. */
async function firstWrite(servername: string): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>()
  const front = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      resolve(chunk)
      done()
    },
  })
  const client = connectTls({ socket: front, servername })
  client.on('error', () => {})
  const bytes = await promise
  client.destroy()
  return bytes
}
