// What others remove from nft: the lines of `nft monitor destroy`, which needs no copy of anybody's tables.

import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { backoffMs } from '../backoff.ts'
import type { Log } from '../log.ts'
import { pause } from './lifetime.ts'

export type NftMonitorOptions = {
  readonly onLine: (line: string) => void
  /** The monitor runs (again): what happened before is not known. */
  readonly onStart: () => void
  readonly log: Log
}

const RESTART = { baseMs: 200, capMs: 5_000 }
/** nft says nothing when it listens; by then it does. */
const SETTLE_MS = 100

/** Runs until the signal aborts; a monitor that dies is started again. */
export async function monitorNft({ onLine, onStart, log }: NftMonitorOptions, signal: AbortSignal): Promise<void> {
  for (let failures = 1; !signal.aborted; failures++) {
    // It ends with us, however we end: it would wait for a line to write, and keep our namespace.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'nft', 'monitor', 'destroy'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const stop = (): void => void child.kill()
    signal.addEventListener('abort', stop)
    const settled = setTimeout(() => {
      failures = 0
      onStart()
    }, SETTLE_MS)
    createInterface({ input: child.stdout }).on('line', onLine)
    const reason = await new Promise<unknown>((resolve) => {
      child.on('error', resolve)
      child.on('exit', (code, by) => resolve(by ?? code))
    })
    clearTimeout(settled)
    signal.removeEventListener('abort', stop)
    if (signal.aborted) return
    log.warn({ reason }, 'nft monitor ended and is started again')
    await pause(backoffMs(RESTART, Math.max(failures, 1), Math.random()), signal)
  }
}
