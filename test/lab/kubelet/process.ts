// A program of a container, with pipes or with a terminal of its own.

import { spawn } from 'node:child_process'
import { closeSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { ReadStream } from 'node:tty'
import { signalNumber } from '../enter.ts'
import { openPty, resizePty } from './pty.ts'

export type Size = { readonly width: number; readonly height: number }
export type PodProcess = {
  readonly pid: number
  /** Absent where it was not asked for: the program reads an end at once. */
  readonly stdin: Writable | undefined
  /** Ends when nobody writes to it any more. */
  readonly stdout: Readable
  /** Absent with a terminal. */
  readonly stderr: Readable | undefined
  readonly resize: (size: Size) => void
  /** As a shell gives it: 128 and the signal for what a signal ended. */
  readonly exited: Promise<number>
  /** With what it started that did not leave its process group. */
  readonly kill: (signal?: NodeJS.Signals) => void
}

export type ProcessOptions = {
  readonly command: readonly string[]
  readonly tty: boolean
  readonly stdin: boolean
  readonly env: NodeJS.ProcessEnv
}
/** Program and arguments. */
export type CommandLine = readonly [string, readonly string[]]

/** @param entered what runs the command where it belongs; each step must replace itself. */
export function startProcess(entered: CommandLine, options: ProcessOptions): PodProcess {
  return options.tty ? withTerminal(entered, options) : withPipes(entered, options)
}

function withPipes([program, args]: CommandLine, { stdin, env }: ProcessOptions): PodProcess {
  const child = spawn(program, args, {
    env,
    stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    detached: true,
  })
  const pid = child.pid ?? 0
  // It may stop reading or end at any time.
  child.stdin?.on('error', () => {})
  return {
    pid,
    stdin: child.stdin ?? undefined,
    stdout: child.stdout!,
    stderr: child.stderr!,
    resize: () => {},
    exited: exitOf(child),
    kill: (signal) => killGroup(pid, signal),
  }
}

function withTerminal([program, args]: CommandLine, { env }: ProcessOptions): PodProcess {
  const { master, slave } = openPty()
  const child = spawn('setsid', ['--ctty', program, ...args], {
    env: { TERM: 'xterm', ...env },
    stdio: [slave, slave, slave],
  })
  closeSync(slave)
  const pid = child.pid ?? 0
  const terminal = new ReadStream(master)
  // EIO: nobody has the other end any more, which is how a terminal ends. It comes after all that was written.
  terminal.on('error', () => {})
  return {
    pid,
    stdin: terminal,
    stdout: terminal,
    stderr: undefined,
    resize: (size) => {
      if (!terminal.destroyed) resizePty(master, size)
    },
    exited: exitOf(child),
    kill: (signal) => killGroup(pid, signal),
  }
}

function exitOf(child: ReturnType<typeof spawn>): Promise<number> {
  return new Promise((resolve) => {
    child.once('error', () => resolve(127))
    child.once('exit', (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : signalNumber(signal))))
  })
}

function killGroup(pid: number, signal: NodeJS.Signals = 'SIGKILL'): void {
  if (pid === 0) return
  try {
    process.kill(-pid, signal)
  } catch {
    // It has ended, or has not become a group yet.
    try {
      process.kill(pid, signal)
    } catch {
      // It has ended.
    }
  }
}
