// Where kube-apiserver sends its CONNECTs (EgressSelectorConfiguration, proxyProtocol HTTPConnect): a Unix socket, whose file
// permissions say who may, or TLS with a client certificate of the mesh's CA. It sends no token and no node's name.

import { existsSync, rmSync } from 'node:fs'
import type { IncomingMessage, Server } from 'node:http'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { formatSocketAddress } from '../lib/address.ts'
import type { KeyPair } from '../lib/certificates.ts'
import { GROUP_MASTERS, identityOf } from '../lib/identity.ts'
import type { Log } from '../lib/log.ts'
import { http, https } from '../lib/net/http.ts'
import { onAbort, UsageError } from '../lib/net/lifetime.ts'
import { answerConnect, refuseConnect, type ConnectDial } from './connect-server.ts'
import { addressOf, listen, type ListenAddress } from './listen-server.ts'
import { contextOf } from './tls-server.ts'

export type EgressServerOptions = {
  readonly socket: string | undefined
  readonly listen: readonly ListenAddress[]
  readonly certificate: KeyPair
  readonly authorityPem: string
  /** Users that may, beside the group system:masters. */
  readonly users: readonly string[]
  readonly dial: ConnectDial
  readonly log: Log
  /** For a request to come; what follows it has all the time that there is. */
  readonly requestMs?: number
}

export type EgressServer = {
  readonly addresses: readonly ListenAddress[]
  readonly setCertificate: (certificate: KeyPair) => void
  /** Resolves when the signal aborted and the listeners are closed. */
  readonly closed: Promise<void>
}

const MAX_CONNECTIONS = 10_000
const REQUEST_MS = 10_000

/** @throws UsageError naming the socket, or the address and port, that cannot be had. */
export async function runEgressServer(options: EgressServerOptions, signal: AbortSignal): Promise<EgressServer> {
  const { socket, log, users, requestMs = REQUEST_MS } = options
  const tlsServers: ReturnType<typeof https.createServer>[] = []
  const addresses: ListenAddress[] = []
  const servers: Server[] = []
  const streams = new Set<Duplex>()
  const serve = (server: Server, callerOf: (request: IncomingMessage) => string | undefined): void => {
    server.maxConnections = MAX_CONNECTIONS
    server.on('connect', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
      streams.add(stream)
      stream.once('close', () => streams.delete(stream))
      const caller = callerOf(request)
      if (caller === undefined)
        return refuseConnect(stream, 403, `the client certificate is of none of ${users.join()}`)
      answerConnect({ caller, dial: options.dial, log, speaksFirst: true }, request, stream, head)
    })
    server.on('request', (_request, response) => {
      response.writeHead(405, { 'content-type': 'text/plain', connection: 'close' })
      response.end('this is the way of kube-apiserver to nodes, by CONNECT\n')
    })
    servers.push(server)
  }
  const times = {
    ...{ headersTimeout: requestMs, requestTimeout: requestMs, requireHostHeader: false },
    connectionsCheckingInterval: Math.ceil(requestMs / 4),
  }
  try {
    if (socket !== undefined) {
      await removeStale(socket)
      // Nothing is read ahead: what a node does not take waits in the kernel.
      const server = http.createServer({ ...times, highWaterMark: 0 })
      serve(server, () => 'egress socket')
      await listen(server, socket, '--egress-socket', log)
    }
    for (const where of options.listen) {
      const server = https.createServer({
        ...times,
        ...contextOf(options.certificate, options.authorityPem),
        requestCert: true,
        rejectUnauthorized: true,
        handshakeTimeout: requestMs,
        // A connection that is half closed goes on in the other direction; Node's default ends it.
        allowHalfOpen: true,
      })
      serve(server, (request) => {
        const identity = identityOf((request.socket as TLSSocket).getPeerCertificate().subject)
        const may =
          identity.kind === 'user' && (identity.groups.includes(GROUP_MASTERS) || users.includes(identity.user))
        return may ? identity.user : undefined
      })
      tlsServers.push(server)
      await listen(server, where, '--egress-listen', log)
      addresses.push(addressOf(server))
    }
  } catch (error) {
    for (const server of servers) server.close()
    throw error
  }
  const ended = servers.map((server) => new Promise<void>((resolve) => server.once('close', () => resolve())))
  const stop = (): void => {
    for (const server of servers) {
      server.close()
      server.closeAllConnections()
    }
    for (const stream of streams) stream.destroy()
  }
  onAbort(signal, stop)
  if (servers.length > 0)
    log.info({ socket, addresses: addresses.map(formatSocketAddress) }, 'relay listens for kube-apiserver')
  return {
    addresses,
    setCertificate(pair) {
      for (const server of tlsServers) server.setSecureContext(contextOf(pair, options.authorityPem))
    },
    closed: Promise.all(ended).then(() => undefined),
  }
}

/** What a killed relay left behind. @throws UsageError where something answers. */
async function removeStale(path: string): Promise<void> {
  if (!existsSync(path)) return
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const probe = connect(path, () => resolve(true))
  probe.once('error', () => resolve(false))
  const alive = await promise
  probe.destroy()
  if (alive) throw new UsageError(`${path}: another process listens there; choose another by --egress-socket`)
  rmSync(path)
}
