// A container of a pod of the lab: either the pod's server, which the lab's supervisor keeps and which writes to a file,
// or a command of its own, which is run here and started again whenever it ends, as restartPolicy Always has it.

import { watch } from 'node:fs'
import { open } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { dirname } from 'node:path'
import type { Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { ContainerLog } from './container-log.ts'
import type { OutputName } from './log-line.ts'
import type { PodProcess, ProcessOptions, Size } from './process.ts'

export type ContainerSpec = {
  readonly name: string
  /** Absent for the pod's server. */
  readonly command: readonly string[] | undefined
  readonly env: Readonly<Record<string, string>>
  readonly stdin: boolean
  readonly tty: boolean
}
/** Where the containers of a pod run. */
export type Sandbox = {
  readonly start: (options: ProcessOptions) => PodProcess
  /** To a port of its own loopback. */
  readonly connect: (port: number, signal: AbortSignal) => Promise<Socket>
}
export type OutputListener = (stream: OutputName, chunk: Buffer) => void

/** A kubelet waits 10 s, and twice as long each time up to 5 minutes; a lab has no such patience. */
const RESTART_MS = 200
const RESTART_MAX_MS = 10_000
const STABLE_MS = 5_000
const READ_BYTES = 64 * 1024

export class Container {
  readonly spec: ContainerSpec
  readonly log: ContainerLog
  readonly #sandbox: Sandbox
  readonly #listeners = new Set<OutputListener>()
  readonly #endListeners = new Set<() => void>()
  #process: PodProcess | undefined
  /** Of the server's file. */
  #readTo = 0
  #reading: Promise<void> = Promise.resolve()
  restarts = 0
  startedAt = Date.now()

  constructor(sandbox: Sandbox, spec: ContainerSpec, logDirectory: string) {
    this.#sandbox = sandbox
    this.spec = spec
    this.log = new ContainerLog(logDirectory)
  }

  get stdin(): Writable | undefined {
    return this.#process?.stdin
  }

  resize(size: Size): void {
    this.#process?.resize(size)
  }

  /** @returns a function that ends it. */
  onOutput(listener: OutputListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  /** Called once, when this run of it ends. */
  onEnd(listener: () => void): () => void {
    this.#endListeners.add(listener)
    return () => void this.#endListeners.delete(listener)
  }

  /** Runs the command for ever. */
  async run(command: readonly string[], signal: AbortSignal): Promise<void> {
    const { tty, stdin, env } = this.spec
    signal.addEventListener('abort', () => this.#process?.kill(), { once: true })
    for (let failures = 0; !signal.aborted; this.restarts++) {
      this.#begin()
      const process = this.#sandbox.start({ command, tty, stdin, env })
      this.#process = process
      process.stdout.on('data', (chunk: Buffer) => this.#take('stdout', chunk))
      process.stdout.on('error', () => {})
      process.stderr?.on('data', (chunk: Buffer) => this.#take('stderr', chunk))
      await process.exited
      await Promise.all(
        [process.stdout, process.stderr].flatMap((stream) => (stream === undefined ? [] : [closed(stream)])),
      )
      this.#process = undefined
      this.#end()
      failures = Date.now() - this.startedAt > STABLE_MS ? 0 : failures + 1
      await sleep(Math.min(RESTART_MAX_MS, RESTART_MS * 2 ** failures), undefined, { signal }).catch(() => {})
    }
  }

  /** Follows what the pod's server writes. @param file appended to by all its runs. */
  follow(file: string, signal: AbortSignal): void {
    this.#begin()
    const read = (): void => void (this.#reading = this.#reading.then(() => this.#readMore(file)))
    read()
    watch(dirname(file), { signal, persistent: false }, read).on('error', () => {})
  }

  /** The pod's server has died: what it wrote is all there. */
  serverEnded(file: string): void {
    this.#reading = this.#reading.then(() => this.#readMore(file)).then(() => this.#end())
  }

  serverStarted(): void {
    this.#reading = this.#reading.then(() => {
      this.restarts++
      this.#begin()
    })
  }

  async #readMore(file: string): Promise<void> {
    let handle
    try {
      handle = await open(file)
      for (;;) {
        const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES, this.#readTo)
        if (bytesRead === 0) return
        this.#readTo += bytesRead
        this.#take('stdout', buffer.subarray(0, bytesRead))
      }
    } catch {
      // It has not been started yet.
    } finally {
      await handle?.close()
    }
  }

  #begin(): void {
    this.startedAt = Date.now()
    this.log.begin()
  }

  #take(stream: OutputName, chunk: Buffer): void {
    this.log.write(stream, chunk, Date.now())
    for (const listener of this.#listeners) listener(stream, chunk)
  }

  #end(): void {
    this.log.end()
    const listeners = [...this.#endListeners]
    this.#endListeners.clear()
    for (const listener of listeners) listener()
  }
}

const closed = (stream: NodeJS.ReadableStream & { readonly closed?: boolean }): Promise<void> =>
  new Promise((resolve) => (stream.closed === true ? resolve() : stream.once('close', () => resolve())))
