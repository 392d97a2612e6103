// An embedded API over a temporary folder, on plain HTTP on loopback; who calls is who the test says.

import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Identity } from '../../../lib/identity.ts'
import { createApiClient, type ApiClient } from '../../../lib/k8s/api-client.ts'
import { createLog } from '../../../lib/log.ts'
import { createApi, type Api } from '../../../relay/api/api-server.ts'

export const log = createLog('test', 'silent')
export const ADMIN: Identity = { kind: 'user', user: 'admin', groups: ['system:masters'] }
export const nodeCaller = (node: string): Identity => ({ kind: 'node', node })

type Test = { teardown(fn: () => unknown): unknown }

export function temporaryFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-api-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export type Serving = {
  readonly api: Api
  readonly url: string
  readonly client: (caller?: Identity) => ApiClient
  /** `kill` ends it as kill -9 would: connections are cut, nothing is said. */
  readonly kill: () => Promise<void>
}

/** @param port to be had again after a kill. @param before called when the folder was found and is not yet read. */
export async function serve(
  t: Test,
  directory: string,
  stateDir: string,
  { port = 0, before = () => {} }: { readonly port?: number; readonly before?: () => void } = {},
): Promise<Serving> {
  const life = new AbortController()
  const api = createApi({ directory, stateDir, tokenKey: randomBytes(32), log })
  before()
  const running = api.run(life.signal)
  const callers = new Map<string, Identity>()
  const server = createServer((request, response) => {
    // Tests say who they are in the path's first segment, as only a certificate could in the relay.
    const [, who = '', rest = ''] = /^\/~([^/]*)(\/.*)$/.exec(request.url ?? '') ?? []
    request.url = rest
    api.handle(request, response, callers.get(who) ?? { kind: 'anonymous' })
  })
  await listen(server, port)
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const clients: ApiClient[] = []
  let dead = false
  const kill = async (): Promise<void> => {
    if (dead) return
    dead = true
    for (const client of clients) client.close()
    server.closeAllConnections()
    server.close()
    life.abort()
    await running
  }
  t.teardown(kill)
  while (api.status()!.objects === 0 && api.status()!.problems.length === 0)
    await new Promise((resolve) => setTimeout(resolve, 5))
  return {
    api,
    url,
    kill,
    client: (caller = ADMIN) => {
      const who = String(callers.size)
      callers.set(who, caller)
      const client = createApiClient({ server: `${url}/~${who}` })
      clients.push(client)
      return client
    },
  }
}

const listen = (server: Server, port: number) =>
  new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })

export function write(directory: string, files: Readonly<Record<string, string>>): void {
  for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text)
}

export const nodeManifest = (name: string, label = 'x') =>
  `apiVersion: v1\nkind: Node\nmetadata: { name: ${name}, labels: { label: ${label} } }\n`
