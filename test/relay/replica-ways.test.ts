// Every way in, at a relay that holds no session with the node that is asked for: no rule of a load balancer or of a host's
// firewall has to know which relay a node is with.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { connect as connectTls, createServer } from 'node:tls'
import t from 'tap'
import { issueServer, validFor } from '../../lib/certificates.ts'
import { runOpsServer } from '../../relay/ops-server.ts'
import { freeTcpPorts } from '../lib/free-ports.ts'
import { until } from '../lib/until.ts'
import { log } from './mesh.ts'
import { connected, createWorld } from './replica-world.ts'

/** A TLS client of the kubelet over a stream to it, or to what stands for it. @returns what it says of itself. */
async function greetingOf(stream: Duplex, ca: string): Promise<string> {
  const socket = connectTls({ socket: stream, servername: 'edge-7', ca })
  const [text] = (await once(socket, 'data')) as [Buffer]
  socket.destroy()
  stream.destroy()
  return text.toString()
}

/** @param headers each with its line's end. */
async function byConnect(stream: Duplex, headers = ''): Promise<Duplex> {
  stream.write(`CONNECT edge-7:10250 HTTP/1.1\r\nHost: x\r\n${headers}\r\n`)
  const [answer] = (await once(stream, 'data')) as [Buffer]
  stream.pause()
  if (!answer.toString().startsWith('HTTP/1.1 200 ')) throw new Error(answer.toString())
  return stream
}

t.test('whichever relay is asked, by each way in, twenty times', async (t) => {
  const { mesh, relays, agent } = await createWorld(t, 3)
  const ca = mesh.authority.certificatePem
  const { certificatePem: cert, keyPem: key } = await issueServer(mesh.authority, ['edge-7'], validFor(Date.now(), 1))
  const kubelet = createServer({ cert, key }, (socket) => {
    socket.on('error', () => {})
    socket.write('the kubelet')
  }).listen(0, '127.0.0.1')
  await once(kubelet, 'listening')
  t.teardown(() => kubelet.close())
  const client = await agent('edge-7', (kubelet.address() as { port: number }).port)
  await until(() => relays.every(({ absence }) => absence('edge-7') === undefined), 'all know of it')
  const holders = connected(client)
  t.ok(relays.some(({ url }) => !holders.includes(url)))
  const proxyUsers = join(mesh.stateDir, 'users')
  await writeFile(proxyUsers, `prometheus ${createHash('sha256').update('secret').digest('hex')} edge-* 10250\n`)

  for (const [index, relay] of relays.entries()) {
    const [port] = (await freeTcpPorts(1)) as [number]
    const egressSocket = join(mesh.stateDir, `egress-${index}.sock`)
    const ops = await runOpsServer(
      {
        config: {
          ...{ egressSocket, egressListen: [], egressUsers: [], cloudNodes: [], proxyUsers },
          kubeletListen: [{ address: '127.0.0.1', port, family: 4 }],
        },
        ...{ certificate: mesh.server, authorityPem: ca, sessions: relay, nodes: () => [], log },
      },
      mesh.signal,
    )
    mesh.holds(ops.closed)
    const proxy = await mesh.listen({ connect: ops.connect })
    const ways: Readonly<Record<string, () => Promise<Duplex>>> = {
      EgressSelector: () => byConnect(connect({ path: egressSocket, allowHalfOpen: true })),
      'the name in TLS': async () => connect({ host: '127.0.0.1', port, allowHalfOpen: true }),
      'the proxy': () =>
        byConnect(connectTls({ host: '127.0.0.1', port: proxy.port, ca }), 'Proxy-Authorization: Bearer secret\r\n'),
    }
    for (const [name, open] of Object.entries(ways)) {
      const said = await Promise.all(Array.from({ length: 20 }, async () => greetingOf(await open(), ca)))
      const which = holders.includes(relay.url) ? 'a relay that holds it' : 'a relay that does not'
      t.same(new Set(said), new Set(['the kubelet']), `${name}, at ${which}`)
    }
  }
  await until(() => relays.every(({ streams }) => streams() === 0), 'streams are left')
})
