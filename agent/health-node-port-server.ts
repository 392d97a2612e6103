// Tells load balancers whether this node has endpoints of a service whose calls from outside stay on the node
// (externalTrafficPolicy: Local, spec.healthCheckNodePort): 200 or 503, with kube-proxy's words, on the node's addresses.

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Log } from '../lib/log.ts'
import { http } from '../lib/net/http.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import type { HealthCheck } from './balance.ts'

export type HealthNodePortOptions = {
  readonly checks: () => readonly HealthCheck[]
  /** This node's addresses that have NodePorts. */
  readonly addresses: () => readonly string[]
  /** Whether services are carried as they are wanted. */
  readonly healthy: () => boolean
  /** Another service proxy is on this node: it answers where it has the port. */
  readonly answered?: () => boolean
  readonly log: Log
}
export type HealthNodePorts = {
  /** Services or addresses may have changed. */
  readonly trigger: () => void
  /** Resolves once everything triggered so far listens. */
  readonly idle: () => Promise<void>
  readonly problems: () => readonly string[]
}

const MAX_CONNECTIONS = 32

export function serveHealthNodePorts(options: HealthNodePortOptions, signal: AbortSignal): HealthNodePorts {
  const { checks, addresses, healthy, answered = () => false, log } = options
  const servers = new Map<string, Server>()
  let byPort = new Map<number, HealthCheck>()
  let problems: readonly string[] = []

  const answer = (port: number) => (_: IncomingMessage, response: ServerResponse) => {
    const check = byPort.get(port)
    if (check === undefined) return void response.writeHead(404).end()
    const isHealthy = healthy()
    const { namespace, name, localEndpoints } = check
    response.writeHead(isHealthy && localEndpoints > 0 ? 200 : 503, {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': `${localEndpoints}`,
    })
    response.end(JSON.stringify({ service: { namespace, name }, localEndpoints, serviceProxyHealthy: isHealthy }))
  }

  const pass = async (): Promise<void> => {
    byPort = new Map()
    const shared: string[] = []
    for (const check of checks()) {
      const first = byPort.get(check.port)
      if (first === undefined) byPort.set(check.port, check)
      else
        shared.push(
          `healthCheckNodePort ${check.port} is claimed by services ${first.namespace}/${first.name} and ` +
            `${check.namespace}/${check.name}: the first gets it; give each its own`,
        )
    }
    const wanted = new Map(
      addresses().flatMap((address) => [...byPort.keys()].map((port) => [`${address} ${port}`, { address, port }])),
    )
    for (const [key, server] of servers)
      if (!wanted.has(key)) {
        servers.delete(key)
        close(server)
      }
    const failed: string[] = []
    let left = 0
    for (const [key, { address, port }] of wanted) {
      if (servers.has(key)) continue
      try {
        servers.set(key, await listen(answer(port), address, port))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE' && answered()) {
          left++
          continue
        }
        const { namespace, name } = byPort.get(port)!
        failed.push(
          `service ${namespace}/${name}: cannot listen on healthCheckNodePort ${port} of ${address}: ${(error as Error).message}; ` +
            'its load balancer does not see this node; free the port',
        )
      }
    }
    problems = [...shared, ...failed]
    if (failed.length > 0) throw new Error(failed[0])
    if (left > 0) throw new Error(`another service proxy listens on ${left} of the healthCheckNodePorts`)
  }

  const upkeep = createUpkeep(
    {
      pass,
      onError: (err, failures) => failures === 1 && log.warn({ err }, 'cannot listen for health checks; tried again'),
      onEnd: () => servers.forEach(close),
    },
    signal,
  )
  return { trigger: upkeep.trigger, idle: upkeep.idle, problems: () => problems }
}

function listen(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  host: string,
  port: number,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = http.createServer({ requestTimeout: 5_000, keepAliveTimeout: 5_000 }, answer)
    server.maxConnections = MAX_CONNECTIONS
    server.once('error', reject)
    server.listen({ host, port, ipv6Only: true }, () => resolve(server))
  })
}

function close(server: Server): void {
  server.close()
  server.closeAllConnections()
}
