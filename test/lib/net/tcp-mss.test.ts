import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import t from 'tap'
import { run } from '../../../lib/net/exec.ts'
import { limitSegments } from '../../../lib/net/tcp-mss.ts'

for (const host of ['127.0.0.1', '::1'])
  t.test(`both ends of a connection to ${host} send segments of 1220 bytes at the most`, async (t) => {
    const server = createServer((socket) => socket.pipe(socket))
    t.teardown(() => server.close())
    server.listen(0, host)
    await once(server, 'listening')
    t.ok(limitSegments(server))
    const { port } = server.address() as AddressInfo
    const client = connect(port, host)
    t.teardown(() => client.destroy())
    client.write(Buffer.alloc(100_000))
    for (let left = 100_000; left > 0;) left -= ((await once(client, 'data')) as [Buffer])[0].length
    const shown = await run('ss', ['-Htin', 'state', 'established', `( sport = :${port} or dport = :${port} )`])
    const sizes = [...shown.matchAll(/\bmss:(\d+)/g)].map(([, bytes]) => Number(bytes))
    t.equal(sizes.length, 2, shown)
    for (const bytes of sizes) t.ok(bytes > 1000 && bytes <= 1220, `${bytes} bytes`)
  })

t.test('of a server that does not listen there is nothing to limit', async (t) => {
  const server = createServer()
  t.notOk(limitSegments(server))
})
