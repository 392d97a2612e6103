import { Agent } from 'node:https'
import { connect, type TLSSocket } from 'node:tls'
import t from 'tap'
import { createClient, validFor, type KeyPair } from '../../lib/certificates.ts'
import { openServerCertificate } from '../../lib/net/authority.ts'
import { SIGNAL_PATH } from '../../lib/wire/signal.ts'
import { runTlsServer } from '../../relay/tls-server.ts'
import { runSessions } from '../../relay/websocket-server.ts'
import { anotherAuthority, closeCode, createMesh, echoIdentity, log, nodeOf } from './mesh.ts'
import { ask } from './asking.ts'

const DAY_MS = 86_400_000
const text = async (port: number, caPem: string, path: string, client?: KeyPair, agent?: Agent): Promise<string> => {
  const { status, text } = await ask({ port, path, caPem, client, ...(agent && { agent }) })
  return `${status} ${text.trim()}`
}

t.test('who may open a session, and whom the API sees', async (t) => {
  const mesh = await createMesh(t)
  const upgraded: string[] = []
  const { port } = await mesh.listen({
    api: echoIdentity,
    signal: (_request, stream, _head, caller) => {
      upgraded.push(caller.node)
      stream.end('HTTP/1.1 418 Upgraded\r\nconnection: close\r\n\r\n')
    },
  })
  const past = validFor(Date.now() - 3 * DAY_MS, 1)
  const future = validFor(Date.now() + 3 * DAY_MS, 1)
  const user = (commonName: string, organization?: string) =>
    createClient(mesh.authority, { commonName, organization }, validFor(Date.now(), 1))
  const anonymous = { kind: 'anonymous' }
  const rows: readonly [name: string, client: KeyPair | undefined, upgrade: RegExp, identity: unknown][] = [
    ['a node', await mesh.node('h1'), /^418/, { kind: 'node', node: 'h1' }],
    ['nobody', undefined, /^401 no client certificate was presented; run fulmar join/, anonymous],
    [
      'a node of another CA',
      await nodeOf(await anotherAuthority(), 'h1', validFor(Date.now(), 1)),
      /^401 .*issued by another relay/,
      anonymous,
    ],
    ['a node whose certificate expired', await mesh.node('h1', past), /^401 .*expired/, anonymous],
    ['a node whose certificate is of tomorrow', await mesh.node('h1', future), /^401 .*not valid yet/, anonymous],
    [
      'a user',
      await user('admin', 'system:masters'),
      /^401 .*not a node/,
      { kind: 'user', user: 'admin', groups: ['system:masters'] },
    ],
    ['a node without its group', await user('system:node:h1'), /^401/, anonymous],
    ['the relay itself', mesh.server, /^401/, anonymous],
  ]
  for (const [name, client, upgrade, identity] of rows) {
    await t.rejects(mesh.dial(port, '/fulmar/v1/signal', client), { message: upgrade }, `${name}: session`)
    t.same(
      JSON.parse((await text(port, mesh.authority.certificatePem, '/api', client)).slice(4)),
      identity,
      `${name}: API`,
    )
  }
  t.same(upgraded, ['h1'])
  await t.rejects(mesh.dial(port, '/fulmar/v2/signal', await mesh.node('h1')), { message: /^404/ }, 'no such WebSocket')
  t.match(
    await text(port, mesh.authority.certificatePem, '/fulmar/v1/signal'),
    /^426/,
    'a WebSocket asked for as a page',
  )
})

t.test('TLS sessions are not resumed, and each connection shows its certificate', async (t) => {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({
    api: (request, response, caller) => {
      response.end(`${caller.kind} ${(request.socket as TLSSocket).isSessionReused() ? 'resumed' : 'first'}`)
    },
  })
  for (const [client, kind] of [
    [undefined, 'anonymous'],
    [await mesh.node('h1'), 'node'],
  ] as const) {
    const agent = new Agent({ keepAlive: false })
    for (let i = 0; i < 2; i++)
      t.equal(await text(port, mesh.authority.certificatePem, '/api', client, agent), `200 ${kind} first`)
    agent.destroy()
  }
})

t.test('a port in use is named, with what to do', async (t) => {
  const mesh = await createMesh(t)
  const { port } = await mesh.listen({})
  const other = { join: () => {}, signal: () => {}, packets: () => {}, api: () => {} }
  const listen = (address: string, atPort: number) =>
    runTlsServer(
      {
        listen: [{ address, port: atPort }],
        certificate: mesh.server,
        authorityPem: mesh.authority.certificatePem,
        routes: other,
        log,
      },
      mesh.signal,
    )
  await t.rejects(listen('127.0.0.1', port), {
    code: 'FULMAR_USAGE',
    message: new RegExp(`127.0.0.1:${port}: another process has it.*--listen`),
  })
  await t.rejects(listen('192.0.2.77', port), { code: 'FULMAR_USAGE', message: /does not have the address/ })
})

t.test('a new certificate is used from the next connection on', async (t) => {
  const mesh = await createMesh(t)
  const server = await mesh.listen({ api: echoIdentity })
  const names = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port: server.port, ca: mesh.authority.certificatePem }, () => {
        resolve(socket.getPeerCertificate().subjectaltname ?? '')
        socket.destroy()
      }).on('error', reject)
    })
  t.match(await names(), /192\.0\.2\.1/)
  server.setCertificate(await openServerCertificate(mesh.stateDir, mesh.authority, ['192.0.2.2'], Date.now()))
  t.match(await names(), /192\.0\.2\.2/)
})

t.test('a node that was deleted', async (t) => {
  const mesh = await createMesh(t)
  const before = await mesh.node('h1')
  const other = await mesh.node('h2')
  let deletedMs = -Infinity
  const refusal = (node: string, issuedMs: number): string | undefined =>
    node === 'h1' && issuedMs <= deletedMs ? 'h1 was deleted' : undefined
  const sessions = runSessions(
    { kind: 'signal', maxPayloadBytes: 1024, log },
    { open: () => undefined, message: () => undefined, close: () => undefined },
    mesh.signal,
  )
  mesh.holds(sessions.closed)
  const tls = await mesh.listen({ signal: sessions.upgrade, api: echoIdentity }, { refusal })
  const [h1, h2] = [await mesh.dial(tls.port, SIGNAL_PATH, before), await mesh.dial(tls.port, SIGNAL_PATH, other)]
  const ended = closeCode(h1)
  deletedMs = Date.now()
  tls.endNode('h1')
  t.equal(await ended, 1006, 'its session ends at once')
  t.equal(h2.readyState, h2.OPEN, 'and nobody else’s')
  await t.rejects(mesh.dial(tls.port, SIGNAL_PATH, before), { message: /^401 h1 was deleted; run fulmar join/ })
  const again = await mesh.node('h1', validFor(deletedMs + 2_000, 1))
  const joined = await mesh.dial(tls.port, SIGNAL_PATH, again)
  t.equal(joined.readyState, joined.OPEN, 'joined again')
})
