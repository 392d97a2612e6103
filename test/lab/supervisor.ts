// Keeps the daemons and pods of a lab alive as a kubelet would: what dies is started again after 200 ms. Output goes to a
// file per process and the pid to another, so that both outlive the supervisor.

import type { ChildProcess } from 'node:child_process'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchStatus } from '../../lib/net/status-client.ts'
import { ANSWERING, type Daemon, type DaemonName } from './daemons.ts'
import { spawnApart } from './enter.ts'
import { makeCgroups } from './machine.ts'
import { pathsOf } from './names.ts'

export type LabEvent = {
  /** Unix milliseconds. */
  readonly at: number
  readonly host: string
  readonly daemon: DaemonName
  readonly pid: number
} & (
  | { readonly kind: 'started' }
  /** It answers: a daemon on its socket, a pod or the kubelets on their ports. */
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'died'
      readonly code: number | null
      readonly signal: NodeJS.Signals | null
      readonly livedMs: number
    }
)

export type SupervisorOptions = {
  readonly id: string
  readonly restart: boolean
  readonly onEvent: (event: LabEvent) => void
}

/** Of a command line. */
export type Change = (command: readonly string[]) => readonly string[]

/** A kubelet restarts at once; what dies by itself again and again waits twice as long each time. */
const RESTART_MS = 200
const RESTART_MAX_MS = 10_000
/** Who lived so long is not in a crash loop. */
const STABLE_MS = 5_000
const READY_MS = 60_000
const POLL_MS = 10
const LOG_LINES_SHOWN = 12

type Child = {
  definition: Daemon
  process: ChildProcess | undefined
  wanted: boolean
  crashes: number
  /** Settles when the current process answers, or ends before that. */
  ready: Promise<void>
}

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #children = new Map<string, Child>()
  readonly #stopping = new AbortController()

  constructor(options: SupervisorOptions) {
    this.#options = options
  }

  /** Starts a process and keeps it alive. Resolves when it answers. @throws Error with its last lines if it ends before. */
  async start(definition: Daemon): Promise<void> {
    const key = keyOf(definition)
    const child: Child = this.#children.get(key) ?? {
      definition,
      process: undefined,
      wanted: true,
      crashes: 0,
      ready: Promise.resolve(),
    }
    this.#children.set(key, child)
    child.wanted = true
    if (child.process === undefined) this.#spawn(child)
    await child.ready
  }

  /** Ends a process, which stays away until it is started again. */
  async stop(host: string, daemon: DaemonName, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#find(host, daemon)
    child.wanted = false
    const running = child.process
    if (running === undefined) return
    const ended = new Promise((resolve) => running.once('exit', resolve))
    running.kill(signal)
    await ended
  }

  /** Starts again what was stopped. @param change what its command is from now on. */
  async startAgain(host: string, daemon: DaemonName, change: Change = (command) => command): Promise<void> {
    const child = this.#find(host, daemon)
    child.definition = { ...child.definition, command: change(child.definition.command) }
    await this.start(child.definition)
  }

  kill(host: string, daemon: DaemonName, signal: NodeJS.Signals = 'SIGKILL'): void {
    this.#find(host, daemon).process?.kill(signal)
  }

  /** @returns undefined while it is not running. */
  pidOf(host: string, daemon: DaemonName): number | undefined {
    return this.#find(host, daemon).process?.pid
  }

  /** No restarts from now on; the processes end with their groups. */
  close(): void {
    this.#stopping.abort()
  }

  #find(host: string, daemon: DaemonName): Child {
    const child = this.#children.get(keyOf({ host, daemon }))
    if (child === undefined)
      throw new Error(`host ${host} runs no ${daemon}; there are ${[...this.#children.keys()].join(', ')}`)
    return child
  }

  #spawn(child: Child): void {
    this.#stopping.signal.throwIfAborted()
    const { host, daemon, namespaces, cgroup, command } = child.definition
    const { id, onEvent } = this.#options
    const paths = pathsOf(id)
    mkdirSync(paths.host(host), { recursive: true })
    makeCgroups([cgroup])
    const log = openSync(paths.logOf(host, daemon), 'a')
    const started = Date.now()
    const running = spawnApart(id, { namespaces, cgroup }, command, { stdio: ['ignore', log, log, 'pipe'] })
    closeSync(log)
    const pid = running.pid ?? 0
    child.process = running
    writeFileSync(paths.pidOf(host, daemon), String(pid))
    onEvent({ at: started, host, daemon, pid, kind: 'started' })

    const exited = new Promise<string>((resolve) => {
      running.once('error', (error) => resolve(error.message))
      running.once('exit', (code, signal) => {
        child.process = undefined
        rmSync(paths.pidOf(host, daemon), { force: true })
        const livedMs = Date.now() - started
        // A signal came from outside, as in tests; only what ends by itself is in a loop.
        child.crashes = signal !== null || livedMs > STABLE_MS ? 0 : child.crashes + 1
        if (!this.#stopping.signal.aborted)
          onEvent({ at: Date.now(), host, daemon, pid, kind: 'died', code, signal, livedMs })
        resolve(signal === null ? `ended with code ${code}` : `was ended by ${signal}`)
        void this.#restart(child)
      })
    })
    child.ready = this.#waitUntilReady(child.definition, running, exited).then(() =>
      onEvent({ at: Date.now(), host, daemon, pid, kind: 'ready' }),
    )
    child.ready.catch(() => {})
  }

  async #restart(child: Child): Promise<void> {
    const { signal } = this.#stopping
    const delayMs = Math.min(RESTART_MAX_MS, RESTART_MS * 2 ** Math.max(0, child.crashes - 1))
    try {
      await sleep(delayMs, undefined, { signal })
    } catch {
      return
    }
    if (this.#options.restart && child.wanted && child.process === undefined) this.#spawn(child)
  }

  async #waitUntilReady(definition: Daemon, running: ChildProcess, exited: Promise<string>): Promise<void> {
    const { host, daemon } = definition
    const answer = new AbortController()
    let lastFailure = 'it has no socket'
    const onFailure = (reason: string): void => void (lastFailure = reason)
    const answered = (
      ANSWERING.includes(daemon) ? answering(this.#options.id, definition, onFailure, answer.signal) : sayingSo(running)
    ).then(() => undefined)
    const late = sleep(READY_MS, undefined, { signal: answer.signal }).then(
      () => `does not answer after ${READY_MS} ms (${lastFailure})`,
      () => 'was given up',
    )
    const failure = await Promise.race([answered, exited, late])
    answer.abort()
    if (failure === undefined) return
    throw new Error(
      `${daemon} on ${host} ${failure}; its log ends:\n${lastLines(pathsOf(this.#options.id).logOf(host, daemon))}`,
    )
  }
}

/** A line for each event, for whoever follows a lab from outside. */
export const appendEvent = (id: string, event: LabEvent): void =>
  appendFileSync(pathsOf(id).events, `${JSON.stringify(event)}\n`)

const keyOf = ({ host, daemon }: { readonly host: string; readonly daemon: DaemonName }) => `${host} ${daemon}`

/** Pods, kubelets and wireguard-go say so on descriptor 3, which closes when they end without. */
const sayingSo = (running: ChildProcess): Promise<unknown> =>
  new Promise((resolve) => running.stdio[3]!.once('data', resolve))

/** Daemons answer on their socket; a file that a predecessor left does not count. */
async function answering(
  id: string,
  { host, daemon, socket }: Daemon,
  onFailure: (reason: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const { folder, file } = socket ?? { folder: pathsOf(id).runDir(host), file: `${daemon}.sock` }
  while (!signal.aborted) {
    if (existsSync(`${folder}/${file}`)) {
      try {
        await withShortPath(folder, (directory) => fetchStatus(`${directory}/${file}`))
        return
      } catch (error) {
        onFailure((error as Error).message)
      }
    }
    await sleep(POLL_MS)
  }
}

/** A Unix socket's path has 107 bytes, host names have more: through a descriptor it is short. */
export async function withShortPath<T>(directory: string, body: (shortPath: string) => Promise<T>): Promise<T> {
  const descriptor = openSync(directory, 'r')
  try {
    return await body(`/proc/self/fd/${descriptor}`)
  } finally {
    closeSync(descriptor)
  }
}

export function lastLines(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-LOG_LINES_SHOWN).join('\n')
  } catch {
    return '(nothing)'
  }
}
