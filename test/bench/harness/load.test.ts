import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { resolve } from 'node:path'
import t from 'tap'
import { processCpuMs } from '../../../bench/harness/cpu.ts'
import { driveLoad } from '../../../bench/harness/load-client.ts'

const LOAD = resolve(import.meta.dirname, '../../../bench/harness/http-load.ts')

t.test('a load process calls, times and accounts', async (t) => {
  let connections = 0
  const server = createServer(
    (request, response) => void response.writeHead(request.url === '/' ? 200 : 500).end('x'),
  ).listen(0)
  server.on('connection', () => connections++)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const start = (path: string) => spawn(process.execPath, [LOAD, `http://127.0.0.1:${port}${path}`])

  const child = start('/')
  const load = driveLoad(child)
  t.equal((await load.run(20)).length, 20)
  const latencies = await load.run(5)
  t.ok(latencies.length === 5 && latencies.every((ms) => ms > 0 && ms < 1000), 'milliseconds')
  t.equal(connections, 25, 'each call has a connection of its own')
  t.ok(processCpuMs(child.pid!) > 0, 'the kernel accounts for it')
  load.close()
  t.same(await once(child, 'exit'), [0, null], 'it ends with its stdin')

  await t.rejects(driveLoad(start('/broken')).run(1), /the load ended: [\s\S]*answered 500/)
})
