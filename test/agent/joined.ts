// A node that has joined a cluster, as an agent finds it: its state directory, and an API server on loopback whose objects do
// not change.

import { mkdirSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { join } from 'node:path'

const PORT = 8001

/** @param lists the objects by the path of their collection; of others the API knows nothing. */
export const serveApi = (lists: Readonly<Record<string, readonly object[]>>, port = PORT): Promise<Server> =>
  new Promise((resolve) => {
    const server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://api')
      const items = lists[pathname]
      response.writeHead(items === undefined ? 404 : 200, { 'content-type': 'application/json' })
      if (items === undefined) response.end(JSON.stringify({ kind: 'Status', code: 404, reason: 'NotFound' }))
      else if (searchParams.get('watch') === null)
        response.end(JSON.stringify({ kind: 'List', metadata: { resourceVersion: '1' }, items }))
      else response.flushHeaders()
    }).listen(port, '127.0.0.1', () => resolve(server))
  })

/** Writes into a state directory what `fulmar join` would, for that API. */
export function writeIdentity(stateDir: string, node: string): void {
  mkdirSync(join(stateDir, 'identity'))
  for (const file of ['node.crt', 'node.key', 'ca.crt']) writeFileSync(join(stateDir, 'identity', file), '')
  const joined = { node, relays: ['https://127.0.0.1'], stun: [], server: `http://127.0.0.1:${PORT}` }
  writeFileSync(join(stateDir, 'node.json'), JSON.stringify(joined))
}
