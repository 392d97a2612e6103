// kubectl as cases run it: commands to their end, followed, or with what they print awaited.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { get } from 'node:http'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodProcess } from '../kubelet/process.ts'

export const PROTOCOLS = ['websocket', 'spdy'] as const
export type Protocol = (typeof PROTOCOLS)[number]

/** How kubectl is run. */
export type Kubectl = {
  /** With pipes for all three. */
  readonly start: (args: readonly string[], env: NodeJS.ProcessEnv) => ChildProcess
  /** With a terminal. */
  readonly startInTerminal: (args: readonly string[], env: NodeJS.ProcessEnv) => PodProcess
  /** A connection, with half-close, to a port of the loopback that kubectl listens on. */
  readonly connect: (port: number) => Promise<Socket>
}

export type Target = {
  readonly node: string
  readonly namespace: string
  readonly pod: string
  /** Of the pod's server. */
  readonly port: number
  /** Of each file that is copied. */
  readonly copyBytes: number
  /** Where the pod keeps files for a while; the pod may share it with others. */
  readonly directory: string
  /** Whether a metrics API is there. */
  readonly top: boolean
}

export const RUN_TIMEOUT_MS = 60_000

export type Case = {
  readonly name: string
  readonly perProtocol: boolean
  readonly run: (session: Session) => Promise<string>
}

export type Output = { readonly code: number; readonly stdout: Buffer; readonly stderr: string }
type RunOptions = { readonly input?: Buffer | undefined; readonly timeoutMs?: number }
export class Session {
  readonly target: Target
  readonly kubectl: Kubectl
  readonly env: NodeJS.ProcessEnv
  readonly pod: readonly string[]

  constructor(kubectl: Kubectl, target: Target, protocol: Protocol) {
    this.kubectl = kubectl
    this.target = target
    // kubectl speaks WebSocket since 1.31 (since 1.30 when asked to) and SPDY before, or when told so.
    const webSockets = String(protocol === 'websocket')
    this.env = { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: webSockets, KUBECTL_PORT_FORWARD_WEBSOCKETS: webSockets }
    this.pod = ['-n', target.namespace, target.pod]
  }

  start(...args: readonly string[]): ChildProcess {
    return this.kubectl.start(args, this.env)
  }

  /** To its end. */
  async run(args: readonly string[], { input, timeoutMs = RUN_TIMEOUT_MS }: RunOptions = {}): Promise<Output> {
    const child = this.start(...args)
    child.stdin!.on('error', () => {})
    child.stdin!.end(input)
    return outputOf(child, args, timeoutMs)
  }

  /** @throws Error unless it ends well with this output. */
  async expect(args: readonly string[], wanted: string | RegExp, options: RunOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, options)
    const text = stdout.toString()
    const fits = typeof wanted === 'string' ? text === wanted : wanted.test(text)
    check(code === 0 && fits, `kubectl ${args.join(' ')}: code ${code}, ${brief(text)}, ${brief(stderr)}`)
    return text
  }

  exec(command: readonly string[], options: RunOptions = {}, flags: readonly string[] = []): Promise<Output> {
    return this.run(['exec', ...flags, ...this.pod, '-c', 'shell', '--', ...command], options)
  }
}

export function check(holds: boolean, message: string): asserts holds {
  if (!holds) throw new Error(message)
}

export const brief = (text: string): string => JSON.stringify(text.length > 300 ? `${text.slice(0, 300)}…` : text)

function outputOf(child: ChildProcess, args: readonly string[], timeoutMs: number): Promise<Output> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let stderr = ''
    child.stdout!.on('data', (chunk: Buffer) => chunks.push(chunk))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`kubectl ${args.join(' ')}: no end after ${timeoutMs / 1000} s; ${brief(stderr)}`))
    }, timeoutMs)
    child.once('error', reject)
    child.once('close', (code) => {
      clearTimeout(timer)
      resolve({ code: code ?? 255, stdout: Buffer.concat(chunks), stderr })
    })
  })
}

/** Until its output is as wanted; then kubectl is ended as by Ctrl-C, and must end. */
export async function until(
  child: ChildProcess,
  holds: (text: string) => boolean,
  args: readonly string[],
): Promise<string> {
  const stop = stopper(child)
  try {
    let text = ''
    let errors = ''
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => (errors += chunk))
    const deadline = AbortSignal.timeout(RUN_TIMEOUT_MS)
    for await (const chunk of child.stdout!.setEncoding('utf8') as AsyncIterable<string>) {
      text += chunk
      if (holds(text)) return text
      if (deadline.aborted) break
    }
    throw new Error(`kubectl ${args.join(' ')}: ${brief(text)}, ${brief(errors)}`)
  } finally {
    await stop()
  }
}

export function stopper(child: ChildProcess): () => Promise<void> {
  const ended = once(child, 'exit')
  return async () => {
    child.kill('SIGINT')
    await Promise.race([ended, sleep(5_000)])
    child.kill('SIGKILL')
  }
}

export function reader(stream: NodeJS.ReadableStream, args: readonly string[], errors: () => string = () => '') {
  let text = ''
  let changed = Promise.withResolvers<void>()
  const tell = (): void => {
    changed.resolve()
    changed = Promise.withResolvers()
  }
  let ended = false
  stream.on('data', (chunk: Buffer | string) => {
    text += String(chunk)
    tell()
  })
  stream.once('close', () => {
    ended = true
    tell()
  })
  return {
    text: () => text,
    /** @throws Error when it does not come within 30 s, or the stream ends. */
    async until(pattern: RegExp): Promise<RegExpExecArray> {
      const late = sleep(RUN_TIMEOUT_MS / 2, 'late', { ref: false })
      for (;;) {
        const { promise } = changed
        const found = pattern.exec(text)
        if (found !== null) return found
        if (ended || (await Promise.race([promise, late])) === 'late')
          throw new Error(`kubectl ${args.join(' ')}: no ${pattern} in ${brief(text)} ${brief(errors())}`)
      }
    },
  }
}

/** @returns the length of what the server there answers. @throws Error where that is no success. */
export function bytesOf(socket: Socket, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get({ createConnection: () => socket, path, host: 'localhost', timeout: RUN_TIMEOUT_MS }, (response) => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => (bytes += chunk.length))
      response.on('end', () => {
        if (response.statusCode === 200) resolve(bytes)
        else reject(new Error(`${path}: ${response.statusCode} ${response.statusMessage}`))
      })
      response.on('error', reject)
    }).on('error', reject)
  })
}
