import { createServer } from 'node:net'
import t from 'tap'
import { serveHealthNodePorts } from '../../agent/health-node-port-server.ts'
import type { HealthCheck } from '../../agent/balance.ts'
import { createLog } from '../../lib/log.ts'
import { freeTcpPorts } from '../lib/free-ports.ts'

const log = createLog('test', 'silent')
const check = (port: number, localEndpoints: number, name = 'web'): HealthCheck => ({
  namespace: 'shop',
  name,
  port,
  localEndpoints,
})

t.test('what load balancers are told', async (t) => {
  const [port] = (await freeTcpPorts(1)) as [number]
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  let checks: readonly HealthCheck[] = []
  let healthy = true
  const server = serveHealthNodePorts(
    { checks: () => checks, addresses: () => ['127.0.0.1', '::1'], healthy: () => healthy, log },
    controller.signal,
  )
  const ask = async (host: string) => {
    const response = await fetch(`http://${host}:${port}/healthz`).catch(() => undefined)
    if (response === undefined) return undefined
    const weight = response.headers.get('x-load-balancing-endpoint-weight')
    return { status: response.status, weight, body: (await response.json()) as unknown }
  }
  const rows: readonly (readonly [
    name: string,
    localEndpoints: number | undefined,
    healthy: boolean,
    status: number | undefined,
  ])[] = [
    ['no service', undefined, true, undefined],
    ['endpoints', 2, true, 200],
    ['none here', 0, true, 503],
    ['services are not carried', 2, false, 503],
    ['the service is gone', undefined, true, undefined],
  ]
  for (const [name, localEndpoints, isHealthy, status] of rows) {
    checks = localEndpoints === undefined ? [] : [check(port, localEndpoints)]
    healthy = isHealthy
    server.trigger()
    await server.idle()
    for (const host of ['127.0.0.1', '[::1]'])
      t.strictSame(
        await ask(host),
        status === undefined
          ? undefined
          : {
              status,
              weight: `${localEndpoints}`,
              body: { service: { namespace: 'shop', name: 'web' }, localEndpoints, serviceProxyHealthy: isHealthy },
            },
        `${name}: ${host}`,
      )
  }
  t.strictSame(server.problems(), [])
})

t.test('a port that is taken is told, and tried again', async (t) => {
  const [port] = (await freeTcpPorts(1)) as [number]
  const blocker = createServer().listen(port, '127.0.0.1')
  await new Promise((resolve) => blocker.once('listening', resolve))
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  let beside = false
  const server = serveHealthNodePorts(
    {
      checks: () => [check(port, 1), check(port, 1, 'twin')],
      addresses: () => ['127.0.0.1'],
      healthy: () => true,
      answered: () => beside,
      log,
    },
    controller.signal,
  )
  server.trigger()
  for (let i = 0; i < 100 && server.problems().length === 0; i++)
    await new Promise((resolve) => setTimeout(resolve, 10))
  t.match(server.problems(), [
    /healthCheckNodePort \d+ is claimed by services shop\/web and shop\/twin/,
    /service shop\/web: cannot listen on healthCheckNodePort \d+ of 127.0.0.1: .*EADDRINUSE/,
  ])
  beside = true
  server.trigger()
  for (let i = 0; i < 100 && server.problems().length > 1; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  t.equal(server.problems().length, 1, 'another proxy answers there')
  await new Promise((resolve) => blocker.close(resolve))
  await server.idle()
  t.equal(server.problems().length, 1)
  t.equal((await fetch(`http://127.0.0.1:${port}`)).status, 200)
})
