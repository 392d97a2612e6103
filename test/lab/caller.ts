// HTTP calls from inside a pod until told otherwise. Argument: JSON of Calls. Prints a JSON line per call as it ends.

import { request } from 'node:http'

export type Calls = {
  readonly url: string
  readonly family: 4 | 6
  /** Time from the start of one call to the start of the next. */
  readonly intervalMs: number
  readonly timeoutMs: number
  /** Ends after so many successes; 0 for never. */
  readonly successes: number
}

export type Call = {
  /** Unix milliseconds of its start. */
  readonly at: number
  readonly ms: number
  readonly status: number
  readonly body: string
  readonly error?: string
}

if (import.meta.main) {
  const { url, family, intervalMs, timeoutMs, successes } = JSON.parse(process.argv[2] ?? '{}') as Calls
  let left = successes
  for (;;) {
    const call = await callOnce(url, family, timeoutMs)
    process.stdout.write(`${JSON.stringify(call)}\n`)
    if (call.status === 200 && --left === 0) break
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, call.at + intervalMs - Date.now())))
  }
}

/** One call over a connection of its own. */
export function callOnce(url: string, family: 4 | 6, timeoutMs: number): Promise<Call> {
  const at = Date.now()
  const startedMs = performance.now()
  return new Promise((resolve) => {
    const end = (status: number, body: string, error?: string): void =>
      resolve({ at, ms: performance.now() - startedMs, status, body, ...(error === undefined ? {} : { error }) })
    const call = request(url, { agent: false, family, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => end(response.statusCode ?? 0, Buffer.concat(chunks).toString()))
      response.on('error', (error) => end(0, '', error.message))
    })
    call.on('error', (error: NodeJS.ErrnoException) => end(0, '', error.code ?? error.message))
    call.end()
  })
}
