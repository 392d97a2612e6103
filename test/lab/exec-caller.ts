// Many execs by one process, for tests of what becomes of them: WebSockets of v5.channel.k8s.io, as kubectl's. Each runs
// `cat` in a container, which says what it is told. Argument: JSON of CallerOptions. Reads a JSON line per question (Ask),
// answers with a JSON line each (Told), one after the other.

import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'

export type CallerOptions = {
  /** Of execs, without a query. */
  readonly path: string
  readonly container: string
  readonly ca: string
  readonly cert: string
  readonly key: string
}
export type Ask =
  /** Opens a group of execs by a server. Where `again` is given, each that breaks is started again there. */
  | {
      readonly kind: 'open'
      readonly group: string
      readonly server: string
      readonly count: number
      readonly again?: string
    }
  /** Each open exec of a group must answer. */
  | { readonly kind: 'echo'; readonly group: string }
  /** Waits until all that broke were started again. */
  | { readonly kind: 'again'; readonly group: string }
  /** Ends stdin of each and waits for its exit code. */
  | { readonly kind: 'end'; readonly group: string }
export type Told = {
  /** Execs that do what they should: that are open, that answered, that run again, that ended with code 0. */
  readonly good: number
  /** That broke since they were opened. */
  readonly broken: number
  /** When the first and the last of those that run again did, Unix milliseconds. */
  readonly firstAt?: number
  readonly lastAt?: number
  /** Why some are not good. */
  readonly errors: readonly string[]
}

type Exec = {
  readonly socket: WebSocket
  text: string
  /** undefined while it runs. */
  ended: { readonly code: number | undefined; readonly reason: string } | undefined
  onChange: () => void
}

const ANSWER_MS = 20_000
const RETRY_MS = 50
const STDIN = 0
const STDOUT = 1
const STATUS = 3
const CLOSE = 255

let words = 0

if (import.meta.main) {
  const caller = createCaller(JSON.parse(process.argv[2] ?? '{}') as CallerOptions)
  for await (const line of createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await caller(JSON.parse(line) as Ask))}\n`)
  process.exit(0)
}

function createCaller(options: CallerOptions): (ask: Ask) => Promise<Told> {
  const groups = new Map<string, Exec[]>()
  const again = new Map<string, Promise<{ readonly at: number } | { readonly error: string }>[]>()

  const restarted = async (server: string): Promise<{ readonly at: number } | { readonly error: string }> => {
    for (const deadline = Date.now() + ANSWER_MS; ; await sleep(RETRY_MS))
      try {
        await echo(await start(options, server))
        return { at: Date.now() }
      } catch (error) {
        if (Date.now() > deadline) return { error: (error as Error).message }
      }
  }
  const told = (execs: readonly Exec[], results: readonly PromiseSettledResult<unknown>[]): Told => ({
    good: results.filter(({ status }) => status === 'fulfilled').length,
    broken: execs.filter(({ ended }) => ended !== undefined && ended.code === undefined).length,
    errors: [
      ...new Set(results.flatMap((result) => (result.status === 'rejected' ? [(result.reason as Error).message] : []))),
    ],
  })
  return async (ask) => {
    const execs = groups.get(ask.group) ?? []
    switch (ask.kind) {
      case 'open': {
        const results = await Promise.allSettled(
          Array.from({ length: ask.count }, async () => {
            const exec = await start(options, ask.server)
            await echo(exec)
            execs.push(exec)
            if (ask.again === undefined) return
            exec.socket.once('close', () => {
              if (exec.ended?.code === undefined) again.get(ask.group)!.push(restarted(ask.again!))
            })
          }),
        )
        groups.set(ask.group, execs)
        again.set(ask.group, [])
        return told(execs, results)
      }
      case 'echo':
        return told(execs, await Promise.allSettled(execs.map(echo)))
      case 'again': {
        const results = await Promise.all(again.get(ask.group) ?? [])
        const times = results.flatMap((result) => ('at' in result ? [result.at] : [])).toSorted((a, b) => a - b)
        const errors = results.flatMap((result) => ('error' in result ? [result.error] : []))
        const { broken } = told(execs, [])
        return {
          good: times.length,
          broken,
          errors,
          ...(times.length > 0 && { firstAt: times[0]!, lastAt: times.at(-1)! }),
        }
      }
      case 'end':
        return told(execs, await Promise.allSettled(execs.map(end)))
    }
  }
}

/** @throws Error where it does not come about. */
async function start({ path, container, ca, cert, key }: CallerOptions, server: string): Promise<Exec> {
  const query = new URLSearchParams({ container, command: 'cat', stdin: 'true', stdout: 'true' })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = new WebSocket(`${server.replace(/^http/, 'ws')}${path}?${query}`, 'v5.channel.k8s.io', {
    ...{ ca, cert, key, perMessageDeflate: false, handshakeTimeout: ANSWER_MS },
  })
  const exec: Exec = { socket, text: '', ended: undefined, onChange: () => {} }
  let reason = 'closed'
  socket.once('open', resolve)
  socket.on('error', (error) => {
    reason = error.message
    reject(error)
  })
  socket.on('message', (data: Buffer) => {
    if (data[0] === STDOUT) exec.text += data.toString('utf8', 1)
    if (data[0] === STATUS) exec.ended = { code: codeOf(data.toString('utf8', 1)), reason: 'it ended' }
    exec.onChange()
  })
  socket.once('close', () => {
    exec.ended ??= { code: undefined, reason }
    exec.onChange()
  })
  await promise
  return exec
}

function codeOf(status: string): number {
  const { status: outcome, details } = JSON.parse(status) as {
    status: string
    details?: { causes?: readonly { reason: string; message: string }[] }
  }
  const code = details?.causes?.find(({ reason }) => reason === 'ExitCode')?.message
  return outcome === 'Success' ? 0 : Number(code ?? -1)
}

/** @throws Error where it does not say again what it is told. */
async function echo(exec: Exec): Promise<void> {
  const word = `word-${++words};`
  exec.socket.send(Buffer.concat([Buffer.from([STDIN]), Buffer.from(word)]))
  await changed(exec, () => exec.text.includes(word))
  exec.text = ''
}

async function end(exec: Exec): Promise<void> {
  exec.socket.send(Buffer.from([CLOSE, STDIN]))
  await changed(exec, () => exec.ended?.code === 0)
}

async function changed(exec: Exec, is: () => boolean): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const late = setTimeout(() => reject(new Error(`no answer within ${ANSWER_MS / 1000} s`)), ANSWER_MS)
  exec.onChange = () => {
    if (is()) resolve()
    else if (exec.ended !== undefined) reject(new Error(`exec broke: ${exec.ended.reason}`))
  }
  exec.onChange()
  try {
    await promise
  } finally {
    clearTimeout(late)
  }
}
