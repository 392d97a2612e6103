// What `fulmar join` says of relays that cannot be trusted now: the certificates are real, the clock is this machine's.

import { X509Certificate } from 'node:crypto'
import t from 'tap'
import { findAuthority, postJoin } from '../../../lib/net/issuer-client.ts'
import { issueServer, spkiHash, validFor, type Validity } from '../../../lib/certificates.ts'
import { runTlsServer } from '../../../relay/tls-server.ts'
import { anotherAuthority, createMesh, log } from '../../relay/mesh.ts'

const DAY_MS = 86_400_000
const REQUEST = { version: 1, secret: 'A'.repeat(32), csr: 'x' } as const

t.test('a relay is dialled only if it proves itself', async (t) => {
  const mesh = await createMesh(t)
  const caPem = mesh.authority.certificatePem
  const caHash = spkiHash(new X509Certificate(caPem))
  const bodies: string[] = []
  const relay = async (names: readonly string[], validity: Validity, authority = mesh.authority) => {
    const server = await runTlsServer(
      {
        listen: [{ address: '127.0.0.1', port: 0 }],
        certificate: await issueServer(authority, names, validity),
        // Someone in between may show any CA beside its own certificate.
        authorityPem: caPem,
        routes: {
          join: (request, response) => {
            bodies.push(request.url ?? '')
            response.writeHead(418).end('{}')
          },
          signal: () => {},
          packets: () => {},
          api: () => {},
        },
        log,
      },
      mesh.signal,
    )
    mesh.holds(server.closed)
    return new URL(`https://127.0.0.1:${server.addresses[0]!.port}`)
  }
  const now = validFor(Date.now(), 1)
  const rows: readonly [name: string, relay: URL, error: RegExp][] = [
    [
      'not valid yet',
      await relay(['127.0.0.1'], validFor(Date.now() + DAY_MS, 1)),
      /clock of this machine .* not valid yet; set the clock/,
    ],
    [
      'expired',
      await relay(['127.0.0.1'], validFor(Date.now() - 2 * DAY_MS, 1)),
      /clock of this machine .* has expired/,
    ],
    ['another name', await relay(['relay.example.com'], now), /not for this name; add 127\.0\.0\.1 to --public/],
    [
      'the CA beside a stranger',
      await relay(['127.0.0.1'], now, await anotherAuthority()),
      /someone is in between; nothing was sent/,
    ],
  ]
  for (const [name, url, error] of rows) {
    await findAuthority(url, caHash)
    await t.rejects(postJoin(url, caPem, REQUEST), { message: error }, name)
  }
  t.same(bodies, [], 'none of them was sent anything')
  const good = await relay(['127.0.0.1'], now)
  t.equal(await findAuthority(good, caHash), new X509Certificate(caPem).toString())
  await t.rejects(postJoin(good, caPem, REQUEST), { message: /answered 418; is it a Fulmar relay/ })
  await t.rejects(findAuthority(good, caHash.replace(/^./, '_')), { message: /someone is in between/ })
})
