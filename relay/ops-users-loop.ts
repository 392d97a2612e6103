// The file of the proxy's users, read again when it changes, by whichever means: written in place, replaced, or a link that
// leads elsewhere, as with Kubernetes' Secrets. What cannot be read or is wrong changes nothing, and is told.

import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Log } from '../lib/log.ts'
import { pause, UsageError } from '../lib/net/lifetime.ts'
import { parseUsers, type OpsUser } from './ops-access.ts'

export type OpsUsers = {
  /** As they are now. */
  readonly users: () => readonly OpsUser[]
  /** Resolves when the signal aborted. */
  readonly closed: Promise<void>
}

/** The notices of the kernel tell nothing of what a link leads to, or of files on a network; a look costs nothing. */
const LOOK_MS = 2_000

/** @param file none: nobody. @throws UsageError naming the file and what is wrong with it. */
export function followUsers(
  { file, log, lookMs = LOOK_MS }: { readonly file: string | undefined; readonly log: Log; readonly lookMs?: number },
  signal: AbortSignal,
): OpsUsers {
  if (file === undefined) return { users: () => [], closed: Promise.resolve() }
  let text: string
  let users: readonly OpsUser[]
  try {
    text = readFileSync(file, 'utf8')
    users = parseUsers(text)
  } catch (cause) {
    throw new UsageError(`--proxy-users ${file}: ${(cause as Error).message}`, { cause })
  }
  let told = ''
  const look = async (): Promise<void> => {
    try {
      const now = await readFile(file, 'utf8')
      if (now !== text) {
        users = parseUsers(now)
        text = now
        log.info({ file, users: users.length }, 'users of the proxy read again')
      }
      told = ''
    } catch (err) {
      const { message } = err as Error
      if (message !== told) log.error({ err, file }, 'users of the proxy stay as they were')
      told = message
    }
  }
  const run = async (): Promise<void> => {
    for (;;) {
      await pause(lookMs, signal)
      if (signal.aborted) return
      await look()
    }
  }
  return { users: () => users, closed: run() }
}
