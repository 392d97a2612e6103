// What exec and attach do, whatever carries it: a program's streams become the client's, and its end a Status.

import type { Readable, Writable } from 'node:stream'
import { onAbort } from '../../../lib/net/lifetime.ts'
import type { PodProcess, Size } from './process.ts'

/** The client's ends, as a protocol gives them. */
export type ClientStreams = {
  readonly stdin: Readable | undefined
  readonly stdout: Writable | undefined
  readonly stderr: Writable | undefined
  readonly onResize: (listener: (size: Size) => void) => void
  /** Says how it ended, after all output, and closes. */
  readonly finish: (status: object) => void
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal
}

export type CommandOptions = {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly tty: boolean
}

export const SUCCESS = { metadata: {}, status: 'Success' }
export const failure = (message: string) => ({
  metadata: {},
  status: 'Failure',
  reason: 'InternalError',
  message,
  code: 500,
})
/** As the kubelet says it; kubectl takes the exit code from the causes. */
export const statusOfExit = (code: number): object =>
  code === 0
    ? SUCCESS
    : {
        metadata: {},
        status: 'Failure',
        reason: 'NonZeroExitCode',
        message: `command terminated with non-zero exit code: exit status ${code}`,
        details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
      }

/** A program for one client, which ends with it. */
export async function serveExec(process: PodProcess, client: ClientStreams): Promise<void> {
  client.onResize(process.resize)
  const stop = (): void => {
    process.kill()
    process.stdout.destroy()
    process.stderr?.destroy()
  }
  onAbort(client.signal, stop)
  // A terminal's input has no end.
  if (process.stdin !== undefined) client.stdin?.pipe(process.stdin, { end: process.stderr !== undefined })
  const copied = [copy(process.stdout, client.stdout)]
  if (process.stderr !== undefined) copied.push(copy(process.stderr, client.stderr))
  const code = await process.exited
  // As with containerd: what the program left behind and still writes belongs to the client too.
  await Promise.all(copied)
  client.signal.removeEventListener('abort', stop)
  if (!client.signal.aborted) client.finish(statusOfExit(code))
}

/** @returns when all that came has been written, or nobody wants more of it. */
function copy(from: Readable, to: Writable | undefined): Promise<void> {
  return new Promise((resolve) => {
    from.on('error', () => {})
    if (to === undefined) {
      from.resume()
      from.once('close', () => resolve())
      return
    }
    to.on('error', () => from.resume())
    to.once('close', () => resolve())
    to.once('finish', () => resolve())
    // A terminal that ends does so by an error, without an end.
    from.once('close', () => to.end())
    from.pipe(to, { end: false })
  })
}
