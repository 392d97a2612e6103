// A mesh for tests of the relay: a CA in a temporary folder, certificates of any kind, a relay's TLS port on loopback,
// and WebSocket clients of it.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { WebSocket } from 'ws'
import { createAuthority, createClient, validFor, type KeyPair, type Validity } from '../../lib/certificates.ts'
import type { Identity } from '../../lib/identity.ts'
import { createLog } from '../../lib/log.ts'
import { openAuthority, openServerCertificate } from '../../lib/net/authority.ts'
import { runTlsServer, type TlsOptions, type TlsServer } from '../../relay/tls-server.ts'

export const log = createLog('test', 'silent')

export type Mesh = {
  readonly stateDir: string
  readonly authority: KeyPair
  readonly server: KeyPair
  readonly signal: AbortSignal
  /** The test ends after this. */
  readonly holds: (closed: Promise<void>) => void
  readonly node: (name: string, validity?: Validity) => Promise<KeyPair>
  readonly listen: (
    routes: Partial<TlsOptions['routes']>,
    more?: Pick<TlsOptions, 'refusal'>,
  ) => Promise<TlsServer & { readonly port: number }>
  readonly dial: (port: number, path: string, client?: KeyPair) => Promise<WebSocket>
}

/** Everything ends with the test. */
export async function createMesh(t: { teardown(fn: () => unknown): unknown }): Promise<Mesh> {
  const stateDir = await mkdtemp(join(tmpdir(), 'fulmar-relay-'))
  const life = new AbortController()
  const closed: Promise<void>[] = []
  t.teardown(async () => {
    life.abort()
    await Promise.all(closed)
    await rm(stateDir, { recursive: true })
  })
  const authority = await openAuthority(stateDir, Date.now())
  const server = await openServerCertificate(stateDir, authority, ['192.0.2.1'], Date.now())
  return {
    stateDir,
    authority,
    server,
    signal: life.signal,
    holds: (promise) => void closed.push(promise),
    node: (name, validity = validFor(Date.now(), 1)) => nodeOf(authority, name, validity),
    async listen(routes, more = {}) {
      const unused = (): never => {
        throw new Error('not in this test')
      }
      const tls = await runTlsServer(
        {
          listen: [{ address: '127.0.0.1', port: 0 }],
          certificate: server,
          authorityPem: authority.certificatePem,
          routes: { join: unused, signal: unused, packets: unused, api: unused, ...routes },
          ...more,
          log,
        },
        life.signal,
      )
      closed.push(tls.closed)
      return { ...tls, port: tls.addresses[0]!.port }
    },
    dial: (port, path, client) => dial(port, path, authority.certificatePem, client),
  }
}

export const nodeOf = (authority: KeyPair, name: string, validity: Validity): Promise<KeyPair> =>
  createClient(authority, { commonName: `system:node:${name}`, organization: 'system:nodes' }, validity)

export const anotherAuthority = (): Promise<KeyPair> => createAuthority('another', validFor(Date.now(), 1))

/** Answers with the identity that the TLS port saw. */
export const echoIdentity: TlsOptions['routes']['api'] = (_request, response, caller: Identity) => {
  response.end(JSON.stringify(caller))
}

/** @throws Error with the status and the body of an HTTP answer instead of an upgrade. */
export async function dial(port: number, path: string, caPem: string, client?: KeyPair): Promise<WebSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<WebSocket>()
  const socket = new WebSocket(`wss://127.0.0.1:${port}${path}`, {
    ca: caPem,
    perMessageDeflate: false,
    generateMask: (mask) => void mask.fill(0),
    ...(client && { cert: client.certificatePem, key: client.keyPem }),
  })
  socket.once('open', () => resolve(socket))
  socket.once('error', reject)
  socket.once('unexpected-response', (_request, response) => {
    let body = ''
    response.setEncoding('utf8')
    response.on('data', (chunk: string) => (body += chunk))
    response.on('end', () => reject(new Error(`${response.statusCode} ${body.trim()}`)))
  })
  return promise
}

/** Reads messages one by one, those that came before included. */
export function reader(socket: WebSocket): { readonly next: () => Promise<Buffer>; readonly waiting: () => number } {
  const arrived: Buffer[] = []
  const wanted: ((message: Buffer) => void)[] = []
  socket.on('message', (data) => {
    const want = wanted.shift()
    if (want === undefined) arrived.push(data as Buffer)
    else want(data as Buffer)
  })
  return {
    next: () => {
      const message = arrived.shift()
      return message === undefined ? new Promise((resolve) => wanted.push(resolve)) : Promise.resolve(message)
    },
    waiting: () => arrived.length,
  }
}

export const closeCode = (socket: WebSocket): Promise<number> => new Promise((resolve) => socket.once('close', resolve))
