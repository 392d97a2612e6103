import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { once } from 'node:events'
import t from 'tap'
import { createApiClient } from '../../../lib/k8s/api-client.ts'
import { NODES } from '../../../lib/k8s/objects.ts'
import { apiClientOptions } from '../../../lib/net/api-access.ts'

const IDENTITY = { certificatePem: 'certificate', keyPem: 'key', caPem: 'mesh' }
const folder = mkdtempSync(join(tmpdir(), 'fulmar-'))
t.teardown(() => rmSync(folder, { recursive: true }))
const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

t.test('what is shown to the API and what it is verified by', (t) => {
  const server = 'https://api:6443'
  const of = (access: { serverToken?: string; serverCa?: string }) =>
    apiClientOptions(server, IDENTITY, { serverToken: undefined, serverCa: undefined, ...access })
  const byCertificate = { server, cert: 'certificate', key: 'key', connect: Function }
  t.match(of({}), { ...byCertificate, ca: 'mesh' }, 'the certificate of the node')
  t.match(of({ serverCa: file('ca', 'cluster') }), { ...byCertificate, ca: 'cluster' })
  const { token, ...rest } = of({ serverToken: file('token', 'one'), serverCa: join(folder, 'ca') })
  t.strictSame(rest, { server, ca: 'cluster' }, 'no certificate beside a token')
  t.equal(token?.(), 'one')
  t.throws(() => of({ serverCa: join(folder, 'none') }), { message: /--server-ca .*none: ENOENT.*\(PEM\)/ })
  t.end()
})

t.test('a token that is replaced counts from the next request on', async (t) => {
  const seen: (string | undefined)[] = []
  const server = createServer((request, response) => {
    seen.push(request.headers.authorization)
    response.end(JSON.stringify({ items: [], metadata: { resourceVersion: '1' } }))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const serverToken = file('rotating', 'first\n')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const client = createApiClient(apiClientOptions(url, IDENTITY, { serverToken, serverCa: undefined }))
  t.teardown(() => client.close())
  const { signal } = new AbortController()
  await client.list(NODES, signal)
  file('rotating', 'second\n')
  await client.list(NODES, signal)
  rmSync(serverToken)
  await t.rejects(client.list(NODES, signal), {
    ...{ name: 'ApiError', code: 'Unreachable', cause: { code: 'ENOENT' } },
    message: /^GET http.*nodes: ENOENT.*rotating/,
  })
  t.strictSame(seen, ['Bearer first', 'Bearer second'])
})
