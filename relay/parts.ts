// TEMPORARY until api-server.ts and stun-server.ts are there.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Identity } from '../lib/identity.ts'
import type { Log } from '../lib/log.ts'
import type { RelayStatus } from '../lib/status.ts'

export type Api = {
  handle(request: IncomingMessage, response: ServerResponse, caller: Identity): void
  run(signal: AbortSignal): Promise<void>
  status(): RelayStatus['manifests']
}
export type StunServer = { requests: () => number; closed: Promise<void> }

export async function loadApi(options: { directory: string; stateDir: string; log: Log }): Promise<Api | undefined> {
  const file: string = './api/api-server.ts'
  try {
    return ((await import(file)) as { createApi: (o: typeof options) => Api }).createApi(options)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    return undefined
  }
}

export async function loadStun(
  options: { addresses: readonly string[]; ports: readonly [number, number]; log: Log },
  signal: AbortSignal,
): Promise<StunServer | undefined> {
  const file: string = './stun-server.ts'
  try {
    return await ((await import(file)) as { runStunServer: (o: typeof options, s: AbortSignal) => Promise<StunServer> }).runStunServer(options, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    return undefined
  }
}
