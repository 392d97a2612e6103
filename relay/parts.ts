// TEMPORARY until api-server.ts is there.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Identity } from '../lib/identity.ts'
import type { Log } from '../lib/log.ts'
import type { RelayStatus } from '../lib/status.ts'

export type Api = {
  handle(request: IncomingMessage, response: ServerResponse, caller: Identity): void
  run(signal: AbortSignal): Promise<void>
  status(): RelayStatus['manifests']
}

export async function loadApi(options: { directory: string; stateDir: string; log: Log }): Promise<Api | undefined> {
  const file: string = './api/api-server.ts'
  try {
    return ((await import(file)) as { createApi: (o: typeof options) => Api }).createApi(options)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    return undefined
  }
}
