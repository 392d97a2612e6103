// The port that stands for all kubelets: a real TLS client through it to a real TLS server, and clients that are none.

import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { createServer as createTlsServer, connect as connectTls } from 'node:tls'
import t from 'tap'
import { issueServer, validFor } from '../../lib/certificates.ts'
import { NodeDialError, type DialNode } from '../../relay/node-dial.ts'
import { runKubeletServer } from '../../relay/kubelet-server.ts'
import { createMesh, log } from './mesh.ts'
import { until } from '../lib/until.ts'

const mesh = await createMesh(t)
const pair = await issueServer(mesh.authority, ['edge-7'], validFor(Date.now(), 1))
const kubelet = createTlsServer({ key: pair.keyPem, cert: pair.certificatePem }, (socket) => {
  socket.on('error', () => {})
  socket.write(`kubelet of ${socket.servername} `)
  socket.pipe(socket)
}).listen(0, '127.0.0.1')
await once(kubelet, 'listening')
t.teardown(() => kubelet.close())

const dials: string[] = []
const dial: DialNode = async (node, { host, port }) => {
  dials.push(`${node} ${host}:${port}`)
  if (node !== 'edge-7') throw new NodeDialError('offline', `${node} offline 14m`)
  const socket = connect({ ...(kubelet.address() as { port: number }), host: '127.0.0.1', allowHalfOpen: true })
  await once(socket, 'connect')
  return socket
}
const server = await runKubeletServer(
  {
    listen: [{ address: '127.0.0.1', port: 0 }],
    nodeOf: (name) => (name.startsWith('edge-') ? name : undefined),
    ...{ dial, log, helloMs: 300 },
  },
  mesh.signal,
)
mesh.holds(server.closed)
const { port } = server.addresses[0]!

/** @returns the code of the error that a TLS client meets. */
async function failure(servername: string): Promise<string | undefined> {
  const socket = connectTls({ host: '127.0.0.1', port, servername, ca: mesh.authority.certificatePem })
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
  return error.code
}

t.test('TLS passes through to the kubelet of the name, and its certificate is verified', async (t) => {
  const socket = connectTls({ host: '127.0.0.1', port, servername: 'edge-7', ca: mesh.authority.certificatePem })
  await once(socket, 'secureConnect')
  t.ok(socket.authorized)
  socket.write('hello')
  let text = ''
  socket.on('data', (chunk) => (text += chunk))
  await until(() => text === 'kubelet of edge-7 hello')
  socket.destroy()
  t.same(dials, ['edge-7 edge-7:10250'])
})

t.test('a hello that spans segments', async (t) => {
  const front = connect({ host: '127.0.0.1', port })
  await once(front, 'connect')
  front.setNoDelay(true)
  const slow = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      const send = (at: number): void => {
        if (at >= chunk.length) return done()
        front.write(chunk.subarray(at, at + 40))
        setTimeout(send, 1, at + 40)
      }
      send(0)
    },
  })
  front.on('data', (chunk) => slow.push(chunk))
  const socket = connectTls({ socket: slow, servername: 'edge-7', ca: mesh.authority.certificatePem })
  await once(socket, 'secureConnect')
  t.ok(socket.authorized)
  front.destroy()
})

t.test('what a client learns', async (t) => {
  t.equal(await failure('cloud-1'), 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME', 'no such node')
  t.equal(await failure(''), 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME', 'no name')
  t.equal(await failure('edge-9'), 'ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR', 'offline')
})

t.test('clients that are none', async (t) => {
  const rows: readonly [name: string, act: (socket: Socket) => void][] = [
    ['HTTP', (socket) => void socket.write('GET / HTTP/1.1\r\n\r\n')],
    ['silence', () => {}],
    ['one byte at a time', (socket) => void socket.write('\x16')],
    ['a farewell', (socket) => void socket.end()],
  ]
  const before = dials.length
  for (const [name, act] of rows) {
    const socket = connect({ host: '127.0.0.1', port })
    socket.on('error', () => {})
    socket.resume()
    await once(socket, 'connect')
    act(socket)
    const startMs = performance.now()
    await once(socket, 'close')
    t.ok(performance.now() - startMs < 2_000, name)
  }
  t.equal(dials.length, before)
})
