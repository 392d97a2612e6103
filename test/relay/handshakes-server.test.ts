// A listener that takes handshakes in turn.

import { once } from 'node:events'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import { https } from '../../lib/net/http.ts'
import { limitHandshakes } from '../../relay/handshakes-server.ts'
import { contextOf } from '../../relay/tls-server.ts'
import { createMesh } from './mesh.ts'

/** Answers each request, and takes handshakes in turn. */
async function start(t: Test, silentMs: number) {
  const mesh = await createMesh(t)
  const server = https.createServer(contextOf(mesh.server, mesh.authority.certificatePem), (_request, response) =>
    response.end('here'),
  )
  limitHandshakes(server, silentMs)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { mesh, server, port: (server.address() as AddressInfo).port }
}

t.test('many come at once, some of them say nothing or half of what they should', async (t) => {
  const { mesh, server, port } = await start(t, 300)
  const sockets: Socket[] = []
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
    server.closeAllConnections()
  })
  const silent = Array.from({ length: 200 }, () => connectTcp(port, '127.0.0.1'))
  const halves = Array.from({ length: 100 }, () => connectTcp(port, '127.0.0.1'))
  const gone = Array.from({ length: 100 }, () => connectTcp(port, '127.0.0.1'))
  sockets.push(...silent, ...halves, ...gone)
  for (const socket of sockets) socket.on('error', () => {})
  // The start of a ClientHello, and no more of it.
  for (const socket of [...halves, ...gone]) socket.write(Buffer.from('16030100c8010000c40303', 'hex'))
  // These leave by a reset while they wait for a place, which the others have.
  setTimeout(() => gone.forEach((socket) => socket.resetAndDestroy()), 200)
  const answers = await Promise.all(
    Array.from({ length: 150 }, async () => {
      const socket = connect({ port, host: '127.0.0.1', ca: mesh.authority.certificatePem })
      sockets.push(socket)
      socket.end('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
      let text = ''
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
      await once(socket, 'end')
      return text.endsWith('here')
    }),
  )
  t.ok(answers.every(Boolean))
  for (const socket of silent) if (!socket.closed) await once(socket, 'close')
  t.pass('who says nothing is sent away')
})

t.test('a network that comes without end delays its own, and no other', async (t) => {
  const { mesh, server, port } = await start(t, 10_000)
  const flood = Array.from({ length: 200 }, () => connectTcp(port, '127.0.0.1'))
  t.teardown(() => {
    for (const socket of flood) socket.destroy()
    server.close()
    server.closeAllConnections()
  })
  await Promise.all(
    flood.map(async (socket) => {
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.write(Buffer.from('16030100c8010000c40303', 'hex'))
    }),
  )
  const served: string[] = []
  const ask = async (from: string): Promise<void> => {
    const below = connectTcp({ port, host: '127.0.0.1', localAddress: from })
    const socket = connect({ socket: below, host: '127.0.0.1', ca: mesh.authority.certificatePem })
    await once(socket, 'secureConnect')
    served.push(from)
    socket.destroy()
  }
  const own = ask('127.0.0.2')
  // It is there before the other comes.
  await pause(50)
  await Promise.all([own, ask('127.1.0.1')])
  t.same(served, ['127.1.0.1', '127.0.0.2'])
})
