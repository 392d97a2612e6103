// CONNECT as kube-apiserver sends it, over a Unix socket and over TLS, byte for byte; and the proxy on the relay's port.

import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { stat, writeFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { createClient, validFor } from '../../lib/certificates.ts'
import { runEgressServer } from '../../relay/egress-server.ts'
import { runOpsServer, type OpsServer } from '../../relay/ops-server.ts'
import { createMesh, log } from './mesh.ts'
import { createOps, echo, listen, textOf } from './ops.ts'
import { until } from '../lib/until.ts'

/** As client-go writes it. */
const request = (target: string): string => `CONNECT ${target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`

async function create(t: Parameters<typeof createOps>[0]) {
  const world = await createOps(t, { dialMs: 1_000 })
  const { mesh, relay } = world
  const path = join(mesh.stateDir, 'egress.sock')
  const proxyUsers = join(mesh.stateDir, 'users')
  await writeFile(proxyUsers, `prometheus ${createHash('sha256').update('secret').digest('hex')} edge-* *\n`)
  const nodes = [
    { metadata: { name: 'edge-7' }, status: { addresses: [{ type: 'InternalIP', address: '192.168.1.7' }] } },
    { metadata: { name: 'edge-9' }, status: { addresses: [{ type: 'InternalIP', address: '192.168.1.9' }] } },
  ]
  const certificate = mesh.server
  const authorityPem = mesh.authority.certificatePem
  const config = {
    egressSocket: path,
    egressListen: [],
    egressUsers: ['kube-apiserver'],
    cloudNodes: [],
    kubeletListen: [],
    proxyUsers,
  }
  const ops: OpsServer = await runOpsServer(
    {
      config,
      certificate,
      authorityPem,
      sessions: { ...relay, lostAt: (node) => relay.lost.get(node) },
      nodes: () => nodes,
      log,
    },
    mesh.signal,
  )
  mesh.holds(ops.closed)
  const tls = await mesh.listen({ ops: relay.upgrade, connect: ops.connect })
  const dialSocket = async (): Promise<Socket> => {
    const socket = connect({ path, allowHalfOpen: true })
    await once(socket, 'connect')
    return socket
  }
  return { ...world, ops, path, dialSocket, proxyPort: tls.port }
}

/** Reads up to the end of the headers. */
async function answerOf(socket: Socket): Promise<{ head: string; rest: Buffer }> {
  let bytes = Buffer.alloc(0)
  for (;;) {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    bytes = Buffer.concat([bytes, chunk])
    const end = bytes.indexOf('\r\n\r\n')
    if (end === -1) continue
    socket.pause()
    return { head: bytes.subarray(0, end + 4).toString(), rest: bytes.subarray(end + 4) }
  }
}

t.test('a stream through the socket: exactly 200, then bytes, each half to its end', async (t) => {
  const { agent, dialSocket, path } = await create(t)
  const kubelet = await listen(t, (socket) => {
    let asked = 0
    socket.on('data', (chunk) => (asked += chunk.length))
    socket.once('end', () => socket.end(`got ${asked}`))
  })
  await agent('edge-7', kubelet.port)
  t.equal((await stat(path)).mode & 0o777, 0o660)
  for (const target of [`edge-7:${kubelet.port}`, 'edge-7:10250', '192.168.1.7:10250']) {
    const socket = await dialSocket()
    socket.write(request(target))
    const { head, rest } = await answerOf(socket)
    t.equal(head, 'HTTP/1.1 200 Connection established\r\n\r\n', target)
    t.equal(rest.length, 0)
    socket.end(randomBytes(3_000_000))
    t.equal(await textOf(socket), 'got 3000000', 'the answer comes after the question has ended')
  }
})

t.test('nothing comes with the 200, even from a target that speaks first', async (t) => {
  const { agent, dialSocket } = await create(t)
  const eager = await listen(t, (socket) => {
    socket.write('banner')
    socket.pipe(socket)
  })
  await agent('edge-7', eager.port)
  const socket = await dialSocket()
  socket.write(request(`edge-7:${eager.port}`))
  const { rest } = await answerOf(socket)
  t.equal(rest.length, 0)
  let text = ''
  socket.on('data', (chunk) => (text += chunk))
  socket.resume()
  await wait(100)
  t.equal(text, '', 'not before the client spoke')
  socket.write('hello')
  await until(() => text === 'bannerhello')
  socket.destroy()
})

t.test('bytes that come with the request are not lost', async (t) => {
  const { agent, dialSocket } = await create(t)
  const echoing = await listen(t, echo)
  await agent('edge-7', echoing.port)
  const socket = await dialSocket()
  socket.write(`${request(`edge-7:${echoing.port}`)}early`)
  let text = ''
  socket.on('data', (chunk) => (text += chunk))
  await until(() => text.endsWith('early'))
  t.equal(text, 'HTTP/1.1 200 Connection established\r\n\r\nearly')
  socket.destroy()
})

t.test('the reason phrase says what is wrong', async (t) => {
  const { agent, dialSocket, relay } = await create(t)
  const kubelet = await listen(t, () => {})
  const edge = await agent('edge-7', kubelet.port)
  kubelet.close()
  const rows: readonly [target: string, status: RegExp][] = [
    ['edge-9:10250', /^503 edge-9 has not connected since this relay started .+ ago$/],
    [`edge-7:${kubelet.port}`, /^502 edge-7: nothing listens on 127\.0\.0\.1:\d+$/],
    ['edge-7:22', /^403 edge-7: edge-7:22 is not open to the cloud here; --ops-targets of its agent declares what is$/],
    ['169.254.169.254:80', /^503 169\.254\.169\.254 is never dialled from here$/],
    ['no-such-name.invalid:443', /^502 there is no no-such-name\.invalid: /],
    ['edge-7', /^400 /],
    ['edge-7:0', /^400 /],
  ]
  const statusOf = async (target: string): Promise<string> => {
    const socket = await dialSocket()
    socket.write(request(target))
    const { head } = await answerOf(socket)
    socket.destroy()
    return head.split('\r\n')[0]!.replace('HTTP/1.1 ', '')
  }
  for (const [target, status] of rows) t.match(await statusOf(target), status, target)
  await edge.stop()
  await until(() => relay.absence('edge-7') !== undefined)
  t.match(await statusOf('edge-7:10250'), /^503 edge-7 offline \d+\.\ds$/)
})

t.test('a client that leaves while the dial is under way, and one that says nothing', async (t) => {
  const { agent, dialSocket, relay } = await create(t)
  let dials = 0
  await agent('edge-7', 10250, { dial: () => new Promise(() => dials++) })
  const socket = await dialSocket()
  socket.write(request('edge-7:10250'))
  await until(() => dials === 1)
  socket.destroy()
  await until(() => relay.list()[0]!.streams === 0)
  const slow = await dialSocket()
  slow.write(request('edge-7:10250'))
  const { head } = await answerOf(slow)
  t.match(head, /^HTTP\/1\.1 504 edge-7 did not reach edge-7:10250 within 1 s\r\n/)
})

t.test('a client that is gone takes its stream with it, and a target its client', async (t) => {
  const { agent, dialSocket, relay } = await create(t)
  const sockets = new Set<Socket>()
  const kubelet = await listen(t, (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.resume()
  })
  await agent('edge-7', kubelet.port)
  const open = async (): Promise<Socket> => {
    const socket = await dialSocket()
    socket.on('error', () => {})
    socket.write(request(`edge-7:${kubelet.port}`))
    await answerOf(socket)
    socket.write('x')
    socket.resume()
    await until(() => sockets.size === 1)
    return socket
  }
  const gone = await open()
  gone.destroy()
  await until(() => relay.list()[0]!.streams <= 1)
  for (const socket of sockets) socket.end()
  await until(() => sockets.size === 0 && relay.list()[0]!.streams === 0)
  const left = await open()
  for (const socket of sockets) socket.resetAndDestroy()
  // A Unix socket knows no reset.
  await once(left, 'end')
  left.destroy()
  await until(() => relay.list()[0]!.streams === 0)
})

t.test('the proxy on the port of the relay asks who it is', async (t) => {
  const { agent, mesh, proxyPort } = await create(t)
  const echoing = await listen(t, echo)
  await agent('edge-7', echoing.port)
  const admin = await createClient(
    mesh.authority,
    { commonName: 'admin', organization: 'system:masters' },
    validFor(Date.now(), 1),
  )
  const basic = Buffer.from('prometheus:secret').toString('base64')
  const rows: readonly [
    name: string,
    header: string,
    client: typeof admin | undefined,
    target: string,
    status: RegExp,
  ][] = [
    ['Bearer', 'Bearer secret', undefined, 'edge-7', /^200 /],
    ['Basic', `Basic ${basic}`, undefined, '192.168.1.7', /^200 /],
    ['a certificate', '', admin, 'edge-7', /^200 /],
    ['nobody', '', undefined, 'edge-7', /^407 /],
    ['a wrong token', 'Bearer public', undefined, 'edge-7', /^407 /],
    ['a node', '', await mesh.node('edge-7'), 'edge-7', /^407 /],
    ['elsewhere', 'Bearer secret', undefined, '10.96.0.1', /^403 prometheus may not reach 10\.96\.0\.1:/],
    ['elsewhere, with all rights', '', admin, 'example.com', /^503 the relay knows no node example\.com\r/],
  ]
  for (const [name, header, client, target, status] of rows) {
    const socket = connectTls({
      ...{ host: '127.0.0.1', port: proxyPort, ca: mesh.authority.certificatePem, allowHalfOpen: true },
      ...(client && { cert: client.certificatePem, key: client.keyPem }),
    })
    await once(socket, 'secureConnect')
    const line = header === '' ? '' : `Proxy-Authorization: ${header}\r\n`
    socket.write(`CONNECT ${target}:${echoing.port} HTTP/1.1\r\nHost: x\r\n${line}\r\n`)
    const { head } = await answerOf(socket)
    t.match(head.replace('HTTP/1.1 ', ''), status, name)
    if (head.includes(' 407 ')) t.match(head, /proxy-authenticate: Bearer\r\n/, name)
    if (head.includes(' 200 ')) {
      socket.end('late answers pass')
      t.equal(await textOf(socket), 'late answers pass', name)
    }
    socket.destroy()
  }
})

t.test('over TLS, for the certificates that may', async (t) => {
  const mesh = await createMesh(t)
  const echoing = await listen(t, echo)
  const server = await runEgressServer(
    {
      ...{ socket: undefined, listen: [{ address: '127.0.0.1', port: 0 }], users: ['kube-apiserver'], log },
      ...{ certificate: mesh.server, authorityPem: mesh.authority.certificatePem, requestMs: 300 },
      dial: async () => {
        const socket = connect({ host: '127.0.0.1', port: echoing.port, allowHalfOpen: true })
        await once(socket, 'connect')
        return socket
      },
    },
    mesh.signal,
  )
  mesh.holds(server.closed)
  const client = (commonName: string, organization?: string) =>
    createClient(mesh.authority, { commonName, organization }, validFor(Date.now(), 1))
  const answer = async (pair: { certificatePem: string; keyPem: string } | undefined): Promise<string> => {
    const socket = connectTls({
      ...{ host: '127.0.0.1', port: server.addresses[0]!.port, ca: mesh.authority.certificatePem, allowHalfOpen: true },
      ...(pair && { cert: pair.certificatePem, key: pair.keyPem }),
    })
    socket.write(request('edge-7:10250'))
    const { head } = await answerOf(socket)
    if (!head.startsWith('HTTP/1.1 200 ')) return head.split('\r\n')[0]!
    socket.end('late answers pass')
    return textOf(socket)
  }
  t.equal(await answer(await client('kube-apiserver')), 'late answers pass')
  t.equal(await answer(await client('someone', 'system:masters')), 'late answers pass')
  const refusal = 'HTTP/1.1 403 the client certificate is of none of kube-apiserver'
  t.equal(await answer(await client('someone')), refusal)
  t.equal(await answer(await mesh.node('edge-7')), refusal)
  await t.rejects(answer(undefined), 'without one there is no connection')

  const { certificatePem: cert, keyPem: key } = await client('kube-apiserver')
  const idle = connectTls({
    ...{ host: '127.0.0.1', port: server.addresses[0]!.port, ca: mesh.authority.certificatePem, cert, key },
  })
  idle.write(request('edge-7:10250'))
  await answerOf(idle)
  await wait(1_500)
  idle.write('still here')
  idle.resume()
  t.equal(String((await once(idle, 'data'))[0]), 'still here', 'a stream may be silent for longer than any time limit')
  idle.destroy()
  const slow = connect({ host: '127.0.0.1', port: server.addresses[0]!.port })
  await once(slow, 'close')
  t.pass('who sends no request is not waited for')
})
