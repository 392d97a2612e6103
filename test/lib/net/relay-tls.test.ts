// A relay as a node sees it whose clock is behind, or that shows its own certificate alone: the certificates are real, and
// OpenSSL's own judgement is left out.

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import tls, { type TLSSocket } from 'node:tls'
import t from 'tap'
import { createClient, issueServer, validFor, type KeyPair } from '../../../lib/certificates.ts'
import { createClock, type Clock } from '../../../lib/clock.ts'
import { connectTls } from '../../../lib/net/relay-tls.ts'
import { runTlsServer } from '../../../relay/tls-server.ts'
import { anotherAuthority, createMesh, echoIdentity, log } from '../../relay/mesh.ts'

const DAY_MS = 86_400_000
const FLOOR = Date.now()
const behind = createClock(
  FLOOR,
  () => undefined,
  () => 30_000,
)
const right = createClock(FLOOR, () => undefined, Date.now)

t.test('what is let in', async (t) => {
  const mesh = await createMesh(t)
  const ca = mesh.authority
  const now = validFor(FLOOR, 1)
  const past = validFor(FLOOR - 3 * DAY_MS, 1)
  const future = validFor(FLOOR + 3 * DAY_MS, 1)
  const client = { commonName: 'system:node:h1', organization: 'system:nodes' }
  type Row = readonly [
    name: string,
    pair: KeyPair,
    clock: Clock | undefined,
    error: RegExp | undefined,
    shown?: 'alone',
  ]
  const local = ['127.0.0.1']
  const rows: readonly Row[] = [
    ['valid, no clock', await issueServer(ca, local, now), undefined, undefined],
    ['valid, a clock that is right', await issueServer(ca, local, now), right, undefined],
    ['ended, a clock that is right', await issueServer(ca, local, past), right, /expired/],
    ['of the future, a clock that is right', await issueServer(ca, local, future), right, /not yet valid/],
    ['valid', await issueServer(ca, local, now), behind, undefined],
    ['made while the node was off', await issueServer(ca, local, future), behind, undefined],
    ['ended before the floor', await issueServer(ca, local, past), behind, /ended at/],
    ['another CA', await issueServer(await anotherAuthority(), local, now), behind, /not issued by our CA/],
    ['another name', await issueServer(ca, ['192.0.2.1', 'relay'], now), behind, /not for this name/],
    ['a node’s', await createClient(ca, client, now), behind, /not a server/],
    ['the CA’s own', ca, behind, /not issued by our CA|not a server/],
    ['alone: valid, no clock', await issueServer(ca, local, now), undefined, undefined, 'alone'],
    ['alone: valid', await issueServer(ca, local, now), right, undefined, 'alone'],
    ['alone: ended', await issueServer(ca, local, past), right, /ended at/, 'alone'],
    ['alone: of the future', await issueServer(ca, local, future), right, /not yet valid/, 'alone'],
    ['alone: of the future, behind', await issueServer(ca, local, future), behind, undefined, 'alone'],
    [
      'alone: another CA',
      await issueServer(await anotherAuthority(), local, now),
      right,
      /not issued by our CA/,
      'alone',
    ],
    ['alone: another name', await issueServer(ca, ['192.0.2.1'], now), right, /not for this name/, 'alone'],
    ['alone: a node’s', await createClient(ca, client, now), right, /not a server/, 'alone'],
    ['alone: the CA’s own', ca, right, /not issued by our CA|not a server/, 'alone'],
  ]
  for (const [name, certificate, clock, error, shown] of rows) {
    const unused = (): never => {
      throw new Error('not in this test')
    }
    const life = new AbortController()
    const server = await runTlsServer(
      {
        listen: [{ address: '127.0.0.1', port: 0 }],
        certificate,
        authorityPem: ca.certificatePem,
        routes: { join: unused, signal: unused, packets: unused, api: echoIdentity },
        log,
      },
      life.signal,
    )
    const to = { host: '127.0.0.1', port: server.addresses[0]!.port, ca: ca.certificatePem }
    const socket = connectTls(to, clock, shown)
    const [event] = await Promise.race([
      once(socket, 'secureConnect').then(() => (socket.destroyed ? once(socket, 'error') : ['connected'])),
      once(socket, 'error'),
    ])
    if (error === undefined) t.equal(event, 'connected', name)
    else t.match((event as Error).message, error, name)
    socket.destroy()
    life.abort()
    await server.closed
  }
})

t.test('what a node shows of itself, to a server that does not know the CA', async (t) => {
  const { authority } = await createMesh(t)
  const validity = validFor(FLOOR, 1)
  const pair = await createClient(authority, { commonName: 'h1', organization: undefined }, validity)
  const own = await issueServer(authority, ['127.0.0.1'], validity)
  const knows = { cert: own.certificatePem, key: own.keyPem, ca: (await anotherAuthority()).certificatePem }
  const server = tls.createServer({ ...knows, requestCert: true, rejectUnauthorized: false })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  for (const shown of ['with the CA', 'alone'] as const) {
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>
    const to = { host: '127.0.0.1', port, ca: authority.certificatePem, cert: pair.certificatePem, key: pair.keyPem }
    const socket = connectTls(to, undefined, shown)
    const [far] = await accepted
    const { subject, issuerCertificate } = far.getPeerCertificate(true)
    t.equal(subject.CN, 'h1', shown)
    t.equal(issuerCertificate !== undefined, shown === 'with the CA', `${shown}: and the CA`)
    socket.destroy()
    far.destroy()
  }
  await new Promise<void>((resolve) => server.close(() => resolve()))
})
