// In a network of its own, whose first address drops all that comes.

import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import t from 'tap'
import { connectTcpToAny } from '../../../lib/net/tcp-connect.ts'
import { enterCage } from '../../agent/cage.ts'
import { isRoot } from '../netns.ts'

const SILENT = '127.0.0.2'
const REFUSING = '127.0.0.3'
const LISTENING = '127.0.0.4'
const NO_ROUTE = '2001:db8::1'

const cage = isRoot ? enterCage('fmt-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const drop = `add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in ip daddr ${SILENT} drop`
  execFileSync('nft', [drop])
  const server = createServer((socket) => socket.end())
  server.listen(0, LISTENING)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  const connecting = async (addresses: readonly string[], ms: number) => {
    const socket = await connectTcpToAny(addresses, port, AbortSignal.timeout(ms))
    const { remoteAddress } = socket
    socket.destroy()
    return remoteAddress
  }

  t.test('the first that answers is taken', async (t) => {
    t.equal(await connecting([LISTENING, SILENT], 4_000), LISTENING, 'the first of all')
    t.equal(await connecting([NO_ROUTE, REFUSING, LISTENING], 4_000), LISTENING, 'after others that answer no')
    const began = performance.now()
    t.equal(await connecting([SILENT, LISTENING], 4_000), LISTENING, 'after a silent one')
    t.ok(performance.now() - began < 3_000, 'well before the deadline')
  })

  t.test('where none answers', async (t) => {
    await t.rejects(connecting([NO_ROUTE, REFUSING], 4_000), { code: 'ECONNREFUSED' }, 'the last tells why')
    const began = performance.now()
    await t.rejects(connecting([SILENT, LISTENING], 300), 'the deadline holds for all of them')
    t.ok(performance.now() - began < 1_200, 'at once')
  })
}
