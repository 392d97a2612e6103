import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createLog } from '../../../lib/log.ts'
import { counter, createRegistry } from '../../../lib/metrics.ts'
import { fetchAll, fetchStatus } from '../../../lib/net/status-client.ts'
import { refuseSecond, serveStatus, type StatusOptions } from '../../../lib/net/status-server.ts'
import type { RelayStatus } from '../../../lib/status.ts'

const STATUS: RelayStatus = {
  kind: 'relay',
  version: '0.1.0',
  startedAt: 1,
  stun: { addresses: ['203.0.113.10:3478'], requests: 3 },
  sessions: [],
  packets: { forwarded: 0, bytes: 0, overKeepalive: 0, dropped: 0, pairs: [] },
  udpRelay: undefined,
  manifests: undefined,
}

/** A folder whose path leaves room for a socket's name. */
const shortDir = (t: Test): string => {
  const dir = mkdtempSync(join(tmpdir(), 'fulmar-'))
  t.teardown(() => rmSync(dir, { recursive: true }))
  return dir
}
const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}
const options = (socket: string, more: Partial<StatusOptions> = {}): StatusOptions => ({
  socket,
  status: () => STATUS,
  healthy: () => true,
  log: createLog('test', 'silent'),
  ...more,
})

t.test('a daemon answers people and Prometheus until it is stopped', async (t) => {
  const socket = join(shortDir(t), 'run', 'relay.sock')
  const controller = new AbortController()
  const port = await freePort()
  const registry = createRegistry('relay')
  counter(registry, 'fulmar_test_total', 'Test').add(4)
  let healthy = true
  const metrics = { host: '127.0.0.1', port }
  await serveStatus(options(socket, { metrics, registry, healthy: () => healthy }), controller.signal)

  t.equal(statSync(socket).mode & 0o777, 0o600, 'the socket is its owner’s alone')
  t.same(await fetchStatus(socket), JSON.parse(JSON.stringify(STATUS)))
  const get = async (path: string, method = 'GET'): Promise<[number, string]> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method })
    return [response.status, await response.text()]
  }
  const [status, text] = await get('/metrics')
  t.equal(status, 200)
  t.match(text, 'fulmar_test_total 4\n')
  t.match(text, /process_cpu_seconds_total \d+\.\d+\n/)
  t.match(text, /process_open_fds \d\d+\n/)
  t.same(await get('/healthz'), [200, 'ok\n'])
  healthy = false
  t.equal((await get('/healthz'))[0], 503)
  t.equal((await get('/metrics', 'POST'))[0], 405)
  t.equal((await get('/status'))[0], 404, 'status is on the socket only')
  t.equal((await get('/constructor'))[0], 404)

  controller.abort()
  await sleep(10)
  t.notOk(existsSync(socket), 'the socket is gone')
  await t.rejects(fetch(`http://127.0.0.1:${port}/healthz`))
})

t.test('the socket of a killed daemon is replaced, that of a living one is not', async (t) => {
  const socket = join(shortDir(t), 'agent.sock')
  const child = spawn(process.execPath, ['-e', `require('net').createServer().listen(${JSON.stringify(socket)})`])
  while (!existsSync(socket)) await sleep(10)
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  await t.rejects(serveStatus(options(socket), controller.signal), { code: 'FULMAR_USAGE', message: /--run-dir/ })
  await t.rejects(refuseSecond(dirname(socket), 'agent'), {
    code: 'FULMAR_USAGE',
    message: `another fulmar agent answers on ${socket}; stop it first, or give this one another --run-dir`,
  })
  child.kill('SIGKILL')
  await once(child, 'exit')
  t.ok(existsSync(socket), 'left behind')
  await refuseSecond(dirname(socket), 'agent')
  await serveStatus(options(socket), controller.signal)
  t.match(await fetchStatus(socket), { kind: 'relay' })

  await t.rejects(serveStatus(options(join(socket, 'x'.repeat(90))), controller.signal), {
    message: /longer than the 107/,
  })
})

t.test('a port in use is named with its flag', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  t.teardown(() => taken.close())
  const { port } = taken.address() as AddressInfo
  const socket = join(shortDir(t), 'agent.sock')
  const metrics = { host: '127.0.0.1', port }
  await t.rejects(serveStatus(options(socket, { metrics }), new AbortController().signal), {
    code: 'FULMAR_USAGE',
    message: `metrics address 127.0.0.1:${port} is in use by another process; choose another by --metrics ADDRESS:PORT`,
  })
  t.notOk(existsSync(socket), 'nothing is left half open')
})

t.test('what the client makes of daemons that do not answer', async (t) => {
  const dir = shortDir(t)
  const silent = createServer(() => {}).listen(join(dir, 'gateway.sock'))
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  const controller = new AbortController()
  t.teardown(() => controller.abort())
  const failing = (): never => {
    throw new Error('half started')
  }
  await serveStatus(options(join(dir, 'relay.sock'), { status: failing }), controller.signal)
  t.match(await fetchAll(dir), [
    { kind: 'absent', daemon: 'agent' },
    { kind: 'dead', daemon: 'gateway', reason: /no answer within 1000 ms/ },
    { kind: 'dead', daemon: 'relay', reason: /answered 500: half started/ },
  ])
})
