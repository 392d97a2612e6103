// The HTTPS server of a node's kubelet, with the real one's paths: only who shows a certificate of system:masters, as a
// kube-apiserver does, is let in.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { createWebSocketStream, WebSocketServer, type WebSocket } from 'ws'
import type { KeyPair } from '../../../lib/certificates.ts'
import { GROUP_MASTERS, identityOf, type Identity } from '../../../lib/identity.ts'
import { CHANNEL_PROTOCOLS, channelStreams } from './channels.ts'
import type { Container } from './container.ts'
import type { LogQuery } from './container-log.ts'
import type { KubeletPod } from './pods.ts'
import { PORT_FORWARD_PROTOCOL, servePortForward, TUNNELLED_PROTOCOL } from './port-forward.ts'
import { failure, serveExec, SUCCESS, type ClientStreams, type CommandOptions } from './remote-command.ts'
import { SPDY_PROTOCOLS, spdyStreams } from './spdy-streams.ts'
import { resourceMetrics, summary, type NodeStats } from './stats.ts'

export type KubeletOptions = {
  readonly node: string
  readonly pods: readonly KubeletPod[]
  readonly stats: () => NodeStats
  readonly serving: KeyPair
  /** PEM: who issued the certificates of clients. */
  readonly clientCa: string
  /** Kubelets before Kubernetes 1.36 speak SPDY only. */
  readonly webSockets: boolean
}

const WEBSOCKET_MAX_BYTES = 1 << 20
/** Of output that somebody attached to a container does not read. */
const ATTACHED_MAX_BYTES = 4 << 20

/** To be told where to listen. */
export function createKubelet(options: KubeletOptions): Server {
  const server = createServer({
    key: options.serving.keyPem,
    cert: options.serving.certificatePem,
    ca: options.clientCa,
    requestCert: true,
    rejectUnauthorized: false,
    allowHalfOpen: true,
    requestTimeout: 0,
  })
  server.on('request', (request, response) => {
    answer(options, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      else text(response, 500, `${(error as Error).message}\n`)
    })
  })
  server.on('upgrade', (request, stream, head) => {
    upgrade(options, request, stream, head).catch((error: unknown) => refuse(stream, 500, (error as Error).message))
  })
  return server
}

class Refused extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

async function answer(options: KubeletOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'https://kubelet')
  if (url.pathname === '/healthz') return text(response, 200, 'ok')
  try {
    authorize(request)
    const [verb, ...names] = url.pathname
      .split('/')
      .filter((part) => part !== '')
      .map(decodeURIComponent)
    switch (`/${[verb, names[0]].filter(Boolean).join('/')}`) {
      case '/pods':
        return json(response, {
          kind: 'PodList',
          apiVersion: 'v1',
          metadata: {},
          items: options.pods.map(({ object }) => object),
        })
      case '/metrics':
        return text(response, 200, ownMetrics(options))
      case '/metrics/resource':
        return text(response, 200, resourceMetrics(options.stats()))
      case '/stats/summary':
        return json(response, summary(options.stats()))
      default:
    }
    if (verb === 'containerLogs') return await logs(containerOf(options, names).container, url.searchParams, response)
    if (verb === 'exec' || verb === 'attach' || verb === 'portForward')
      throw new Refused(400, 'Upgrade request required')
    throw new Refused(404, '404 page not found')
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    text(response, error.status, `${error.message}\n`)
  }
}

function authorize({ socket }: IncomingMessage): void {
  const tls = socket as TLSSocket
  const identity: Identity = tls.authorized ? identityOf(tls.getPeerCertificate().subject) : { kind: 'anonymous' }
  if (identity.kind === 'anonymous') throw new Refused(401, 'Unauthorized')
  if (identity.kind !== 'user' || !identity.groups.includes(GROUP_MASTERS))
    throw new Refused(
      403,
      `Forbidden (user=${identity.kind === 'user' ? identity.user : `system:node:${identity.node}`}, resource=nodes, subresource(s)=[proxy])`,
    )
}

function podOf({ pods }: KubeletOptions, namespace = '', name = ''): KubeletPod {
  const pod = pods.find((pod) => pod.namespace === namespace && pod.name === name)
  if (pod === undefined) throw new Refused(404, `pod "${name}" not found in namespace "${namespace}"`)
  return pod
}

/** @param names namespace, pod, perhaps its UID, container. */
function containerOf(options: KubeletOptions, names: readonly string[]): { pod: KubeletPod; container: Container } {
  const pod = podOf(options, names[0], names[1])
  const container = pod.containers.find(({ spec }) => spec.name === names.at(-1))
  if (container === undefined || names.length < 3)
    throw new Refused(400, `container ${names.at(-1)} is not valid for pod ${pod.name}`)
  return { pod, container }
}

async function logs(container: Container, query: URLSearchParams, response: ServerResponse): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  const asked = logQuery(query, Date.now())
  const lines = container.log.read(asked, gone.signal)
  if (lines === undefined)
    throw new Refused(
      400,
      `${asked.previous ? 'previous terminated ' : ''}container "${container.spec.name}" not found`,
    )
  response.writeHead(200, { 'content-type': 'text/plain' })
  response.flushHeaders()
  for await (const line of lines) {
    if (gone.signal.aborted) return
    if (!response.write(line))
      await new Promise<void>((resolve) => void response.once('drain', resolve).once('close', resolve))
  }
  response.end()
}

function logQuery(query: URLSearchParams, nowMs: number): LogQuery {
  const number = (name: string): number | undefined => {
    const value = query.get(name)
    if (value === null || value === '') return undefined
    if (!/^\d{1,15}$/.test(value)) throw new Refused(400, `${name}: ${JSON.stringify(value)} is no number`)
    return Number(value)
  }
  const sinceSeconds = number('sinceSeconds')
  const sinceTime = query.get('sinceTime')
  return {
    follow: isTrue(query.get('follow')),
    previous: isTrue(query.get('previous')),
    timestamps: isTrue(query.get('timestamps')),
    tailLines: number('tailLines'),
    limitBytes: number('limitBytes'),
    since:
      sinceSeconds === undefined
        ? sinceTime === null
          ? undefined
          : Date.parse(sinceTime)
        : nowMs - sinceSeconds * 1000,
  }
}

async function upgrade(options: KubeletOptions, request: IncomingMessage, stream: Duplex, head: Buffer): Promise<void> {
  stream.on('error', () => {})
  try {
    authorize(request)
    const url = new URL(request.url ?? '/', 'https://kubelet')
    const [verb, ...names] = url.pathname
      .split('/')
      .filter((part) => part !== '')
      .map(decodeURIComponent)
    const asked: Asked = { options, request, stream, head }
    if (verb === 'portForward') return await portForward(asked, podOf(options, names[0], names[1]))
    if (verb !== 'exec' && verb !== 'attach') throw new Refused(404, '404 page not found')
    const { pod, container } = containerOf(options, names)
    await remoteCommand(asked, verb, pod, container, url.searchParams)
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    refuse(stream, error.status, error.message)
  }
}

type Asked = {
  readonly options: KubeletOptions
  readonly request: IncomingMessage
  readonly stream: Duplex
  readonly head: Buffer
}

async function remoteCommand(
  asked: Asked,
  verb: 'exec' | 'attach',
  pod: KubeletPod,
  container: Container,
  query: URLSearchParams,
): Promise<void> {
  const command = query.getAll('command')
  const tty = isTrue(query.get('tty'))
  const wanted: CommandOptions = {
    stdin: isTrue(query.get('input')),
    stdout: isTrue(query.get('output')),
    stderr: isTrue(query.get('error')) && !tty,
    tty,
  }
  if (!wanted.stdin && !wanted.stdout && !wanted.stderr)
    throw new Refused(400, 'you must specify at least 1 of stdin, stdout, stderr')
  if (verb === 'exec' && command.length === 0) throw new Refused(400, 'you must specify a command')
  const client = await streamsOf(asked, wanted)
  if (client === undefined) return
  if (verb === 'attach') return attach(container, client, wanted)
  let process
  try {
    process = pod.sandbox.start({ command, tty, stdin: wanted.stdin, env: container.spec.env })
  } catch (error) {
    return client.finish(failure(`error executing command in container: ${(error as Error).message}`))
  }
  await serveExec(process, client)
}

async function streamsOf(
  { options, request, stream, head }: Asked,
  wanted: CommandOptions,
): Promise<ClientStreams | undefined> {
  if (isSpdy(request)) {
    acceptSpdy(request, stream, head, SPDY_PROTOCOLS)
    return spdyStreams(stream, wanted)
  }
  if (!options.webSockets) throw new Refused(400, 'unable to upgrade: this kubelet speaks SPDY only')
  return channelStreams(await acceptWebSocket(request, stream, head, CHANNEL_PROTOCOLS), wanted)
}

/** Somebody more who reads a container's output, from now on, and perhaps writes to its input. */
function attach(container: Container, client: ClientStreams, { stdin, tty }: CommandOptions): void {
  const stopOutput = container.onOutput((name, chunk) => {
    const to = name === 'stdout' || tty ? client.stdout : client.stderr
    if (to === undefined) return
    if (to.writableLength > ATTACHED_MAX_BYTES) to.destroy()
    else if (!to.destroyed) to.write(chunk)
  })
  const stopEnd = container.onEnd(() => {
    stopOutput()
    client.finish(SUCCESS)
  })
  client.onResize((size) => container.resize(size))
  const input = container.spec.stdin || container.spec.tty ? container.stdin : undefined
  if (stdin && input !== undefined) client.stdin?.pipe(input, { end: false })
  else client.stdin?.resume()
  client.signal.addEventListener(
    'abort',
    () => {
      stopOutput()
      stopEnd()
      if (input !== undefined) client.stdin?.unpipe(input)
    },
    { once: true },
  )
}

async function portForward({ options, request, stream, head }: Asked, pod: KubeletPod): Promise<void> {
  if (isSpdy(request)) {
    acceptSpdy(request, stream, head, [PORT_FORWARD_PROTOCOL])
    return servePortForward(stream, pod)
  }
  if (!options.webSockets) throw new Refused(400, 'unable to upgrade: this kubelet speaks SPDY only')
  const socket = await acceptWebSocket(request, stream, head, [TUNNELLED_PROTOCOL])
  servePortForward(createWebSocketStream(socket), pod)
}

const isSpdy = ({ headers }: IncomingMessage) => headers.upgrade?.toLowerCase() === 'spdy/3.1'

/** @throws Refused where client and server have no protocol in common. */
function acceptSpdy(request: IncomingMessage, stream: Duplex, head: Buffer, protocols: readonly string[]): void {
  const offered = (request.headersDistinct['x-stream-protocol-version'] ?? []).flatMap((value) => value.split(/, */))
  const chosen = protocols.find((protocol) => offered.includes(protocol))
  if (chosen === undefined)
    throw new Refused(
      403,
      `unable to upgrade: unable to negotiate protocol: client supports [${offered.join(' ')}], server supports [${protocols.join(' ')}]`,
    )
  stream.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: ${chosen}\r\n\r\n`,
  )
  if (head.length > 0) stream.unshift(head)
}

function acceptWebSocket(
  request: IncomingMessage,
  stream: Duplex,
  head: Buffer,
  protocols: readonly string[],
): Promise<WebSocket> {
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(/, */)
  const chosen = protocols.find((protocol) => offered.includes(protocol))
  if (chosen === undefined)
    throw new Refused(
      400,
      `unable to upgrade: none of the protocols ${offered.join(', ')} is served; there are ${protocols.join(', ')}`,
    )
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: WEBSOCKET_MAX_BYTES,
    handleProtocols: () => chosen,
  })
  return new Promise((resolve) => server.handleUpgrade(request, stream, head, resolve))
}

function ownMetrics({ node, pods }: KubeletOptions): string {
  const containers = pods.reduce((sum, pod) => sum + pod.containers.length, 0)
  return [
    '# TYPE kubelet_node_name gauge',
    `kubelet_node_name{node="${node}"} 1`,
    '# TYPE kubelet_running_pods gauge',
    `kubelet_running_pods ${pods.length}`,
    '# TYPE kubelet_running_containers gauge',
    `kubelet_running_containers{container_state="running"} ${containers}`,
    '',
  ].join('\n')
}

const isTrue = (value: string | null): boolean => value === '1' || value === 'true'

function text(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', 'content-length': Buffer.byteLength(body) })
  response.end(body)
}

function json(response: ServerResponse, body: object): void {
  const payload = Buffer.from(JSON.stringify(body))
  response.writeHead(200, { 'content-type': 'application/json', 'content-length': payload.length })
  response.end(payload)
}

function refuse(stream: Duplex, status: number, message: string): void {
  const body = `${message}\n`
  stream.end(
    `HTTP/1.1 ${status} Refused\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    () => stream.destroy(),
  )
}
