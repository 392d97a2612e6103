// Asks the daemons of this host for their status over their Unix sockets.

import { join } from 'node:path'
import type { DaemonStatus } from '../status.ts'
import { http } from './http.ts'

export const DAEMONS = ['agent', 'gateway', 'relay'] as const
export type Daemon = (typeof DAEMONS)[number]

/** A daemon that is not there, does not answer in time, or answers nonsense. */
export class StatusError extends Error {
  readonly code = 'FULMAR_STATUS'
  override readonly name = 'StatusError'
}

/**
 * What comes of asking one daemon: its status; no socket, so that it was never started; or a socket that does not answer,
 * with the errno of the attempt (ECONNREFUSED: its daemon was killed).
 */
export type Answer =
  | { readonly kind: 'status'; readonly daemon: Daemon; readonly status: DaemonStatus }
  | { readonly kind: 'absent'; readonly daemon: Daemon }
  | { readonly kind: 'dead'; readonly daemon: Daemon; readonly reason: string; readonly code: string | undefined }

const DEADLINE_MS = 1_000
/** A cloud's relay with a thousand sessions answers with some hundred kB. */
const MAX_BYTES = 16 * 1024 * 1024

/** @throws StatusError, at the latest after a second. */
export function fetchStatus(socketPath: string, deadlineMs = DEADLINE_MS): Promise<DaemonStatus> {
  const signal = AbortSignal.timeout(deadlineMs)
  return new Promise<DaemonStatus>((resolve, reject) => {
    const fail = (cause: Error): void => {
      const reason = signal.aborted ? `no answer within ${deadlineMs} ms` : cause.message
      reject(new StatusError(`${socketPath}: ${reason}`, { cause }))
    }
    const call = http.request({ socketPath, path: '/status', agent: false, signal }, (response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        if ((size += chunk.length) > MAX_BYTES) call.destroy(new Error('the answer is too long'))
      })
      response.once('error', fail)
      response.once('end', () => {
        const body = Buffer.concat(chunks).toString()
        if (response.statusCode !== 200) return fail(new Error(`answered ${response.statusCode}: ${body.trim()}`))
        try {
          resolve(JSON.parse(body) as DaemonStatus)
        } catch (cause) {
          fail(cause as Error)
        }
      })
    })
    call.once('error', fail)
    call.end()
  })
}

/** Asks all daemons of a run directory at once; never throws. */
export function fetchAll(runDir: string): Promise<readonly Answer[]> {
  return Promise.all(
    DAEMONS.map(async (daemon): Promise<Answer> => {
      try {
        return { kind: 'status', daemon, status: await fetchStatus(join(runDir, `${daemon}.sock`)) }
      } catch (error) {
        const cause = (error as Error).cause as NodeJS.ErrnoException | undefined
        if (cause?.code === 'ENOENT') return { kind: 'absent', daemon }
        return { kind: 'dead', daemon, reason: (error as Error).message, code: cause?.code }
      }
    }),
  )
}
