// The relay's one port: HTTPS by which nodes join, hold their sessions and read the Kubernetes API, since many sites let
// nothing else out. A client certificate is asked for and never demanded; what the caller may do without one, each path
// decides. Who calls is what a verified certificate says, and nothing else.

import { constants, randomBytes, X509Certificate } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Server } from 'node:https'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { canonicalAddress, formatSocketAddress } from '../lib/address.ts'
import { issuedMs, type KeyPair } from '../lib/certificates.ts'
import { identityOf, type Identity } from '../lib/identity.ts'
import type { Log } from '../lib/log.ts'
import { https } from '../lib/net/http.ts'
import { onAbort } from '../lib/net/lifetime.ts'
import { limitSegments } from '../lib/net/tcp-mss.ts'
import { JOIN_PATH, RENEW_PATH } from '../lib/wire/join.ts'
import { MUX_PATH } from '../lib/wire/mux.ts'
import { PACKETS_PATH } from '../lib/wire/packet-frame.ts'
import { SIGNAL_PATH } from '../lib/wire/signal.ts'
import { mayUpgrade } from './api/request.ts'
import { limitHandshakes } from './handshakes-server.ts'
import { addressOf, listen, type ListenAddress } from './listen-server.ts'
import { createPrefixLimit } from './prefix-limit.ts'
import { isReplica, REPLICA_PATHS } from './replicas.ts'
import { refuseUpgrade, type Caller } from './websocket-server.ts'

export type Upgrade = (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Caller) => void

/** @param stream with allowHalfOpen. */
export type Connect = (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Identity) => void

export type TlsOptions = {
  readonly listen: readonly ListenAddress[]
  readonly certificate: KeyPair
  readonly authorityPem: string
  readonly routes: {
    /** Of joins and renewals; who asks may have no certificate, or one that expired. */
    readonly join: (request: IncomingMessage, response: ServerResponse) => void
    readonly signal: Upgrade
    readonly packets: Upgrade
    readonly ops?: Upgrade
    /** Of other relays of this mesh. */
    readonly replica?: (request: IncomingMessage, stream: Duplex, head: Buffer, address: string) => void
    readonly connect?: Connect
    /** Every other path. */
    readonly api: (request: IncomingMessage, response: ServerResponse, caller: Identity) => void
    /** Of the same paths, for what goes on in another protocol. */
    readonly apiUpgrade?: (request: IncomingMessage, stream: Duplex, head: Buffer, caller: Identity) => void
  }
  /** Why a node's certificate, issued then, counts no more; undefined where it does. */
  readonly refusal?: (node: string, issuedMs: number) => string | undefined
  readonly log: Log
}

export type TlsServer = {
  /** Where it listens, in the order of the options; port 0 has become a real one. */
  readonly addresses: readonly ListenAddress[]
  /** Connections from now on get this certificate. */
  readonly setCertificate: (certificate: KeyPair) => void
  /** Ends all that a node holds: sessions, requests, watches. */
  readonly endNode: (node: string) => void
  /** Resolves when the signal aborted and the last connection ended. */
  readonly closed: Promise<void>
}

const MAX_CONNECTIONS = 40_000
/** As long as clients wait (lib/net/relay-session.ts): where a thousand come back at once, what is cut off is done again. */
const HANDSHAKE_TIMEOUT_MS = 20_000
const HEADERS_TIMEOUT_MS = 10_000
const REQUEST_TIMEOUT_MS = 30_000
/** A time-out of headers or of a request is noticed so late. */
const TIMEOUT_CHECK_MS = 2_000
/** Longer than clients keep idle connections, so that they close first and never meet a reset. */
const KEEP_ALIVE_MS = 120_000
const OUR_PATHS = '/fulmar/'
const WEBSOCKET_PATHS: readonly string[] = [SIGNAL_PATH, PACKETS_PATH, MUX_PATH]

/** @throws UsageError naming the address and port that cannot be had. */
export async function runTlsServer(options: TlsOptions, signal: AbortSignal): Promise<TlsServer> {
  const { log, authorityPem } = options
  const servers: Server[] = []
  const byNode = new Map<string, Set<TLSSocket>>()
  const remember = (socket: TLSSocket): void => {
    const { identity } = presentedBy(socket)
    if (identity.kind !== 'node') return
    const { node } = identity
    const sockets = byNode.get(node) ?? new Set()
    byNode.set(node, sockets.add(socket))
    socket.once('close', () => {
      sockets.delete(socket)
      if (sockets.size === 0 && byNode.get(node) === sockets) byNode.delete(node)
    })
  }
  try {
    for (const where of options.listen) {
      const server = https.createServer({
        ...contextOf(options.certificate, authorityPem),
        requestCert: true,
        rejectUnauthorized: false,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
        headersTimeout: HEADERS_TIMEOUT_MS,
        requestTimeout: REQUEST_TIMEOUT_MS,
        connectionsCheckingInterval: TIMEOUT_CHECK_MS,
        keepAliveTimeout: KEEP_ALIVE_MS,
        shouldUpgradeCallback: (request) => pathOf(request).startsWith(OUR_PATHS) || mayUpgrade(pathOf(request)),
      })
      server.maxConnections = MAX_CONNECTIONS
      limitHandshakes(server, HANDSHAKE_TIMEOUT_MS)
      server.on('request', (request, response) => dispatch(options, request, response))
      server.on('upgrade', (request, stream, head) => dispatchUpgrade(options, request, stream, head))
      server.on('connect', (request: IncomingMessage, stream, head) => dispatchConnect(options, request, stream, head))
      server.on('secureConnection', remember)
      server.on('tlsClientError', (err) => log.debug({ err }, 'TLS handshake failed'))
      if (await listenIfPossible(server, where, options.listen.length > 1, log)) servers.push(server)
    }
  } catch (error) {
    for (const server of servers) server.close()
    throw error
  }
  const addresses = servers.map(addressOf)
  const ended = Promise.all(
    servers.map((server) => new Promise<void>((resolve) => server.once('close', () => resolve()))),
  )
  const stop = (): void => {
    for (const server of servers) {
      server.close()
      server.closeAllConnections()
    }
  }
  onAbort(signal, stop)
  log.info({ addresses: addresses.map(formatSocketAddress) }, 'relay listens')
  return {
    addresses,
    setCertificate(pair) {
      for (const server of servers) server.setSecureContext(contextOf(pair, authorityPem))
    },
    endNode(node) {
      for (const socket of byNode.get(node) ?? []) socket.destroy()
    },
    closed: ended.then(() => undefined),
  }
}

/** What the relay shows, and by whom it lets callers show who they are. */
export const contextOf = (pair: KeyPair, authorityPem: string) => ({
  key: pair.keyPem,
  // Whoever joins finds the CA in the chain, by its hash.
  cert: pair.certificatePem + authorityPem,
  ca: authorityPem,
  minVersion: 'TLSv1.2' as const,
  // None of our clients resumes sessions, and what it took to make tickets, OpenSSL would keep for each connection.
  secureOptions: constants.SSL_OP_NO_TICKET,
})

function dispatch(options: TlsOptions, request: IncomingMessage, response: ServerResponse): void {
  const { routes } = options
  const path = pathOf(request)
  if (path === JOIN_PATH || path === RENEW_PATH) return routes.join(request, response)
  if (path.startsWith(OUR_PATHS)) {
    response.writeHead(WEBSOCKET_PATHS.includes(path) ? 426 : 404, {
      'content-type': 'text/plain',
      connection: 'close',
    })
    return void response.end(
      `${path}: there is ${JOIN_PATH}, ${RENEW_PATH}, and for WebSockets ${WEBSOCKET_PATHS.join(' and ')}\n`,
    )
  }
  routes.api(request, response, certificateOf(options, request.socket as TLSSocket).identity)
}

function dispatchUpgrade(options: TlsOptions, request: IncomingMessage, stream: Duplex, head: Buffer): void {
  const { routes, log } = options
  const path = pathOf(request)
  if (routes.apiUpgrade !== undefined && !path.startsWith(OUR_PATHS))
    return routes.apiUpgrade(
      request,
      halfOpen(stream),
      head,
      certificateOf(options, request.socket as TLSSocket).identity,
    )
  const socket = request.socket as TLSSocket
  const { identity, reason, expiresAtMs } = certificateOf(options, socket)
  const address = callerAddress(socket)
  if (REPLICA_PATHS.includes(path) && routes.replica !== undefined && isReplica(identity))
    return routes.replica(request, stream, head, address)
  const upgrade = { [SIGNAL_PATH]: routes.signal, [PACKETS_PATH]: routes.packets, [MUX_PATH]: routes.ops }[path]
  if (upgrade === undefined) return refuseUpgrade(stream, 404, `${path}: there is no such WebSocket`)
  if (identity.kind !== 'node') {
    const told = mayLog(socket.remoteAddress ?? '', performance.now())
    log[told ? 'warn' : 'debug']({ addr: address, path, reason }, 'session refused')
    return refuseUpgrade(stream, 401, `${reason}; run fulmar join on the node`)
  }
  upgrade(request, stream, head, { node: identity.node, address, expiresAtMs })
}

function dispatchConnect(options: TlsOptions, request: IncomingMessage, stream: Duplex, head: Buffer): void {
  const { connect } = options.routes
  if (connect === undefined) return refuseUpgrade(stream, 405, 'this relay is no proxy')
  connect(request, halfOpen(stream), head, certificateOf(options, request.socket as TLSSocket).identity)
}

/**
 * A connection that is half closed goes on in the other direction, where Node's default for TLS ends it. Not for all from
 * the start: of a handshake that ends halfway nobody would take notice.
 */
function halfOpen(stream: Duplex): Duplex {
  stream.allowHalfOpen = true
  return stream
}

/** Of each network, so that whoever has no certificate cannot fill the log. */
const mayLog = createPrefixLimit({ perSecond: 1, burst: 32 }, randomBytes(4).readInt32BE())

type CallerCertificate = {
  readonly identity: Identity
  readonly reason: string
  readonly expiresAtMs: number
  readonly issuedMs: number
}
/** A connection's certificate does not change; requests on one connection share what it says. */
const certificates = new WeakMap<TLSSocket, CallerCertificate>()

function presentedBy(socket: TLSSocket): CallerCertificate {
  let certificate = certificates.get(socket)
  if (certificate === undefined) {
    certificate = readCertificate(socket)
    certificates.set(socket, certificate)
  }
  return certificate
}

/** As it counts now. */
function certificateOf({ refusal }: TlsOptions, socket: TLSSocket): CallerCertificate {
  const certificate = presentedBy(socket)
  const { identity } = certificate
  if (identity.kind === 'anonymous') return certificate
  if (Date.now() >= certificate.expiresAtMs) return anonymous('the client certificate expired')
  const reason = identity.kind === 'node' ? refusal?.(identity.node, certificate.issuedMs) : undefined
  return reason === undefined ? certificate : anonymous(reason)
}

function readCertificate(socket: TLSSocket): CallerCertificate {
  const presented = socket.getPeerCertificate()
  // A resumed TLS 1.3 session counts as authorized even where no certificate was ever shown.
  if (presented?.raw === undefined) return anonymous('no client certificate was presented')
  if (!socket.authorized)
    return anonymous(`the client certificate is not valid here: ${reasonOf(socket.authorizationError)}`)
  const identity = identityOf(presented.subject)
  const certificate = new X509Certificate(presented.raw)
  return {
    identity,
    reason: `the client certificate of ${presented.subject?.CN} is not a node's`,
    expiresAtMs: certificate.validToDate.getTime(),
    issuedMs: issuedMs(certificate),
  }
}

/** Node types it as an Error; at runtime it is OpenSSL's code as text. */
function reasonOf(error: unknown): string {
  switch (String(error)) {
    case 'CERT_HAS_EXPIRED':
      return 'it expired'
    case 'CERT_NOT_YET_VALID':
      return 'it is not valid yet by the clock of the relay'
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
      return 'it was issued by another relay'
    default:
      return String(error)
  }
}

const anonymous = (reason: string): CallerCertificate => ({
  identity: { kind: 'anonymous' },
  reason,
  expiresAtMs: 0,
  issuedMs: 0,
})

const pathOf = (request: IncomingMessage): string => (request.url ?? '').split('?', 1)[0]!

function callerAddress({ remoteAddress = '', remotePort = 0 }: TLSSocket): string {
  return formatSocketAddress({ address: canonicalAddress(remoteAddress) ?? remoteAddress, port: remotePort })
}

/** @returns false where this machine lacks the address family and there are other addresses to listen on. */
async function listenIfPossible(server: Server, where: ListenAddress, optional: boolean, log: Log): Promise<boolean> {
  try {
    await listen(server, where, '--listen', log)
    if (!limitSegments(server))
      log.warn(
        { addr: formatSocketAddress(where) },
        'TCP segments cannot be limited to 1220 bytes: where a path loses larger packets without a word, sessions stall',
      )
    return true
  } catch (error) {
    const { code } = (error as Error).cause as NodeJS.ErrnoException
    if (code !== 'EAFNOSUPPORT' || !optional) throw error
    log.warn({ addr: formatSocketAddress(where) }, 'this machine has no such address family; not listening there')
    return false
  }
}
