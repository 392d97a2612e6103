import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { createApiClient, type ApiClientOptions } from '../../../lib/k8s/api-client.ts'
import { LEASES, NODES } from '../../../lib/k8s/objects.ts'

const never = new AbortController().signal
type Handler = (request: IncomingMessage, response: ServerResponse) => void

async function client(
  t: { teardown(fn: () => unknown): unknown },
  handler: Handler,
  options: Partial<ApiClientOptions> = {},
) {
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const api = createApiClient({ server: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ...options })
  t.teardown(() => {
    api.close()
    server.closeAllConnections()
    server.close()
  })
  return api
}
const json = (response: ServerResponse, body: object, status = 200) =>
  response.writeHead(status).end(JSON.stringify(body))
const watching =
  (...lines: readonly (object | string)[]): Handler =>
  (_request, response) => {
    response.writeHead(200)
    for (const line of lines) response.write(typeof line === 'string' ? line : `${JSON.stringify(line)}\n`)
  }
const node = (name: string, resourceVersion: string) => ({ metadata: { name, resourceVersion } })

t.test('a list is read page by page, its items get their type', async (t) => {
  const asked: string[] = []
  const api = await client(t, (request, response) => {
    asked.push(request.url ?? '')
    const second = request.url?.includes('continue=next')
    json(
      response,
      second
        ? { metadata: { resourceVersion: '7' }, items: [node('b', '2')] }
        : { metadata: { resourceVersion: '7', continue: 'next' }, items: [node('a', '1')] },
    )
  })
  const { items, resourceVersion } = await api.list(NODES, never, { labelSelector: 'a in (b,c)' })
  t.strictSame(
    items.map(({ kind, apiVersion, metadata }) => `${apiVersion} ${kind} ${metadata?.name}`),
    ['v1 Node a', 'v1 Node b'],
  )
  t.equal(resourceVersion, '7')
  t.match(asked, [/^\/api\/v1\/nodes\?labelSelector=a\+in\+%28b%2Cc%29&limit=500$/, /&limit=500&continue=next$/])
})

t.test('a watch: lines in pieces, bookmarks, an empty line, the end', async (t) => {
  const line = `${JSON.stringify({ type: 'ADDED', object: node('ä', '5') })}\n`
  const bytes = Buffer.from(line)
  const api = await client(t, (request, response) => {
    t.match(request.url, /watch=1&allowWatchBookmarks=true&resourceVersion=4&timeoutSeconds=9/)
    response.write(bytes.subarray(0, 45))
    setTimeout(
      () =>
        response.end(
          Buffer.concat([
            bytes.subarray(45),
            Buffer.from(`\n${JSON.stringify({ type: 'BOOKMARK', object: node('', '6') })}\n`),
          ]),
        ),
      20,
    )
  })
  const events = []
  for await (const event of await api.watch(NODES, never, { resourceVersion: '4', timeoutSeconds: 9 }))
    events.push(event)
  t.match(events, [
    { type: 'ADDED', resourceVersion: '5', object: { metadata: { name: 'ä' } } },
    { type: 'BOOKMARK', resourceVersion: '6' },
  ])
})

const broken: readonly {
  name: string
  handler: Handler
  error: { code: string; status?: number; message?: RegExp }
}[] = [
  {
    name: 'too old',
    handler: watching({
      type: 'ERROR',
      object: { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' },
    }),
    error: { status: 410, code: 'Expired', message: /GET http.*\/nodes: 410 too old/ },
  },
  {
    name: 'nothing, not even a bookmark',
    handler: watching({ type: 'ADDED', object: node('a', '1') }),
    error: { code: 'Unreachable', message: /nothing was read|connection was lost/ },
  },
  { name: 'no JSON', handler: watching('<html>\n'), error: { code: 'BadResponse', message: /<html>/ } },
  { name: 'a type that is none', handler: watching({ type: 'HELLO' }), error: { code: 'BadResponse' } },
  {
    name: 'a line without end',
    handler: watching('x'.repeat(9 << 20)),
    error: { code: 'BadResponse', message: /more than/ },
  },
  {
    name: 'a connection that is cut',
    handler: (_request, response) => (response.write(' '), setTimeout(() => response.destroy(), 10)),
    error: { code: 'Unreachable' },
  },
]
for (const { name, handler, error } of broken)
  t.test(`a watch ends with an error: ${name}`, async (t) => {
    const api = await client(t, handler, { watchIdleMs: 100 })
    const events = await api.watch(NODES, never, { resourceVersion: '1' })
    const drain = async () => {
      while (!(await events.next()).done);
    }
    await t.rejects(drain(), error)
  })

t.test('errors carry the status and the words of the server', async (t) => {
  const api = await client(t, (request, response) => {
    if (request.method === 'GET') response.writeHead(503, { 'retry-after': '3' }).end('no JSON')
    else json(response, { kind: 'Status', message: 'nodes "a" is forbidden: because', reason: 'Forbidden' }, 403)
  })
  await t.rejects(api.list(NODES, never), {
    status: 503,
    code: 'BadResponse',
    retryAfterMs: 3000,
    message: /GET .*\/api\/v1\/nodes: 503 no JSON/,
  })
  await t.rejects(api.patch(NODES, { name: 'a' }, {}, { subresource: 'status' }), {
    status: 403,
    code: 'Forbidden',
    message: /PATCH .*\/nodes\/a\/status: 403 nodes "a" is forbidden: because/,
  })
  const nobody = createApiClient({ server: 'http://127.0.0.1:1' })
  await t.rejects(nobody.list(NODES, never), {
    code: 'Unreachable',
    message: /^GET http:\/\/127\.0\.0\.1:1\/api\/v1\/nodes: .*ECONNREFUSED/,
  })
  const aborted = new AbortController()
  aborted.abort()
  await t.rejects(api.list(NODES, aborted.signal), { code: 'Unreachable' })
})

t.test('writes: method, path, type and token', async (t) => {
  const seen: string[] = []
  let token = 'one\n'
  const api = await client(
    t,
    (request, response) => {
      seen.push([request.method, request.url, request.headers['content-type'], request.headers.authorization].join(' '))
      json(response, {})
    },
    { token: () => token },
  )
  const lease = { metadata: { namespace: 'n', name: 'l' } }
  await api.create(LEASES, lease)
  token = 'two'
  await api.update(LEASES, lease)
  await api.patch(NODES, { name: 'a/b' }, {}, { subresource: 'status' })
  t.strictSame(seen, [
    'POST /apis/coordination.k8s.io/v1/namespaces/n/leases application/json Bearer one',
    'PUT /apis/coordination.k8s.io/v1/namespaces/n/leases/l application/json Bearer two',
    'PATCH /api/v1/nodes/a%2Fb/status application/merge-patch+json Bearer two',
  ])
})

t.test('a kept connection that the server has closed meanwhile is replaced', async (t) => {
  let requests = 0
  const api = await client(t, (request, response) => {
    // The second request meets a reset, as after an idle time-out on the server's side.
    if (++requests === 2) request.socket.resetAndDestroy()
    else json(response, { metadata: { name: String(requests) } })
  })
  await api.get(NODES, { name: 'a' })
  t.match(await api.get(NODES, { name: 'a' }), { metadata: { name: '3' } })
})
