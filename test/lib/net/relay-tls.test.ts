// A relay as a node sees it whose clock is behind: the certificates are real, and OpenSSL's own judgement is left out.

import { once } from 'node:events'
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

t.test('what a clock that is behind lets in', async (t) => {
  const mesh = await createMesh(t)
  const ca = mesh.authority
  const now = validFor(FLOOR, 1)
  const past = validFor(FLOOR - 3 * DAY_MS, 1)
  const future = validFor(FLOOR + 3 * DAY_MS, 1)
  const client = { commonName: 'system:node:h1', organization: 'system:nodes' }
  type Row = readonly [name: string, pair: KeyPair, clock: Clock | undefined, error: RegExp | undefined]
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
  ]
  for (const [name, certificate, clock, error] of rows) {
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
    const socket = connectTls(to, clock)
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
