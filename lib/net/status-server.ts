// How a daemon answers people and Prometheus: GET /status on a Unix socket of its own, /metrics and /healthz on
// loopback TCP. The socket is root's alone; a socket file that a killed daemon left behind is replaced.

import { mkdirSync, rmSync } from 'node:fs'
import type { RequestListener, Server } from 'node:http'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import type { Log } from '../log.ts'
import type { Registry } from '../metrics.ts'
import type { DaemonStatus } from '../status.ts'
import { http } from './http.ts'
import { onAbort, UsageError } from './lifetime.ts'
import { addProcessMetrics } from './process-metrics.ts'

export type StatusOptions = {
  /** Path of the Unix socket. */
  readonly socket: string
  readonly metrics?: { readonly host: string; readonly port: number } | undefined
  readonly registry?: Registry | undefined
  readonly status: () => DaemonStatus
  readonly healthy: () => boolean
  readonly log: Log
}

type Answer = { readonly status: number; readonly type: string; readonly body: string }
type Routes = { readonly [path: string]: () => Answer | Promise<Answer> }

/** Connections that one of the two servers serves at a time; more wait in the kernel's backlog. */
const MAX_CONNECTIONS = 32
/** sockaddr_un has room for so many bytes and a zero. */
const MAX_SOCKET_PATH = 107

/**
 * Resolves once both listen; both close when the signal aborts.
 * @throws UsageError naming the socket or the port in use and the flag that moves it.
 */
export async function serveStatus(options: StatusOptions, signal: AbortSignal): Promise<void> {
  const { socket, metrics, registry, log } = options
  const servers: Server[] = []
  const close = (): void => {
    for (const server of servers) {
      server.close()
      server.closeAllConnections()
    }
  }
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH)
    throw new UsageError(
      `${socket}: is longer than the ${MAX_SOCKET_PATH} bytes of a Unix socket; choose a shorter --run-dir`,
    )
  try {
    mkdirSync(dirname(socket), { recursive: true, mode: 0o755 })
    await removeStale(socket)
    servers.push(await listen(serve({ '/status': () => json(options.status()) }, log), socket, log))
    if (metrics !== undefined) {
      if (registry !== undefined) addProcessMetrics(registry)
      const routes: Routes = {
        '/healthz': () => (options.healthy() ? text(200, 'ok\n') : text(503, 'unhealthy; see fulmar status\n')),
        '/metrics': async () => ({
          status: 200,
          type: registry?.contentType ?? 'text/plain',
          body: (await registry?.text()) ?? '',
        }),
      }
      servers.push(await listen(serve(routes, log), metrics, log))
    }
  } catch (error) {
    close()
    throw error
  }
  onAbort(signal, close)
}

function serve(routes: Routes, log: Log): RequestListener {
  const answer = async (method: string, path: string): Promise<Answer> => {
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined
    if (route === undefined) return text(404, `no such page; there is ${Object.keys(routes).join(' and ')}\n`)
    if (method !== 'GET' && method !== 'HEAD') return text(405, 'only GET\n')
    try {
      return await route()
    } catch (err) {
      log.error({ err, path }, 'cannot answer a status request')
      return text(500, `${(err as Error).message}\n`)
    }
  }
  return (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0]!
    void answer(request.method ?? '', path).then(({ status, type, body }) => {
      response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(body) })
      response.end(request.method === 'HEAD' ? undefined : body)
    })
  }
}

const text = (status: number, body: string): Answer => ({ status, type: 'text/plain; charset=utf-8', body })
const json = (value: unknown): Answer => ({
  status: 200,
  type: 'application/json',
  body: `${JSON.stringify(value)}\n`,
})

function listen(listener: RequestListener, where: string | { host: string; port: number }, log: Log): Promise<Server> {
  const server = http.createServer({ requestTimeout: 5_000, headersTimeout: 5_000 }, listener)
  server.maxConnections = MAX_CONNECTIONS
  return new Promise((resolve, reject) => {
    const refused = (cause: NodeJS.ErrnoException): void => reject(cannotListen(where, cause))
    server.once('error', refused)
    server.once('listening', () => {
      server.off('error', refused)
      // Out of file descriptors, most likely; that must not end the daemon.
      server.on('error', (err) => log.error({ err }, 'cannot accept a status connection'))
      resolve(server)
    })
    if (typeof where !== 'string') return void server.listen(where)
    // bind() happens inside listen(), so there is no moment in which others may connect.
    const umask = process.umask(0o177)
    try {
      server.listen(where)
    } finally {
      process.umask(umask)
    }
  })
}

function cannotListen(where: string | { host: string; port: number }, cause: NodeJS.ErrnoException): Error {
  if (typeof where === 'string') return new UsageError(`${where}: ${cause.message}; --run-dir moves it`, { cause })
  const reason = cause.code === 'EADDRINUSE' ? 'is in use by another process' : cause.message
  return new UsageError(
    `metrics address ${where.host}:${where.port} ${reason}; choose another by --metrics ADDRESS:PORT`,
    { cause },
  )
}

/**
 * For the very start of a daemon, before it touches what another one on this machine uses.
 * @throws UsageError where another one answers
 */
export async function refuseSecond(runDir: string, daemon: 'agent' | 'gateway' | 'relay'): Promise<void> {
  const socket = join(runDir, `${daemon}.sock`)
  if (await isAlive(socket))
    throw new UsageError(
      `another fulmar ${daemon} answers on ${socket}; stop it first, or give this one another --run-dir`,
    )
}

/** Removes a socket file that nobody listens on. @throws UsageError if somebody does. */
async function removeStale(path: string): Promise<void> {
  if (await isAlive(path))
    throw new UsageError(`${path}: another daemon answers there; stop it, or choose another --run-dir`)
  rmSync(path, { force: true })
}

/** Whether a daemon answers on its socket. */
export function isAlive(path: string): Promise<boolean> {
  return new Promise<boolean>((resolve) => {
    const socket = connect(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
