// What others remove from nft: the lines of `nft monitor destroy`, which needs no copy of anybody's tables.

import { spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { backoffMs } from '../backoff.ts'
import type { Log } from '../log.ts'
import { pause } from './lifetime.ts'

export type NftFollower = {
  readonly onLine: (line: string) => void
  /** The monitor runs (again): what happened before is not known. */
  readonly onStart: () => void
}
export type NftMonitorOptions = NftFollower & { readonly log: Log }
export type NftMonitor = {
  readonly follow: (follower: NftFollower) => void
  /** Resolves after the signal aborted. */
  readonly done: Promise<void>
}

/**
 * nft writes a line in a dozen pieces, which cost a tenth when they are read together. Not for longer: some 300 pieces fit
 * between us, then nft waits, and the kernel keeps no notices for it for ever.
 */
const GATHER_MS = 3
const RESTART = { baseMs: 200, capMs: 5_000 }
/** nft says nothing when it listens; by then it does. */
const SETTLE_MS = 100

/** One process for all who follow. */
export function openNftMonitor(log: Log, signal: AbortSignal): NftMonitor {
  const followers: NftFollower[] = []
  let runs = false
  const onLine = (line: string): void => {
    for (const follower of followers) follower.onLine(line)
  }
  const onStart = (): void => {
    runs = true
    for (const follower of followers) follower.onStart()
  }
  return {
    follow: (follower) => {
      followers.push(follower)
      if (runs) follower.onStart()
    },
    done: monitorNft({ onLine, onStart, log }, signal),
  }
}

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
    readLines(child.stdout, onLine)
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

function readLines(input: Readable, onLine: (line: string) => void): void {
  let rest = ''
  let gathering: NodeJS.Timeout | undefined
  input.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) onLine(line)
    input.pause()
    gathering = setTimeout(() => input.resume(), GATHER_MS)
  })
  input.on('close', () => clearTimeout(gathering))
}
