// `lab up`: supervises a lab until a signal, or starts a process of its own that does.

import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { aborted, runUntilSignal, UsageError } from '../../lib/net/lifetime.ts'
import type { Values } from '../../lib/config.ts'
import { openLab, type Lab } from './lab.ts'
import { LABS_DIR, pathsOf } from './names.ts'
import { labOptionsOf, type UP } from './options.ts'
import { ownerOf, readState } from './state.ts'
import type { Topology } from './topology.ts'

/** What the supervisor of a detached lab tells whoever started it. */
type Message =
  | { readonly kind: 'progress'; readonly line: string }
  | { readonly kind: 'running' }
  | { readonly kind: 'failed'; readonly message: string; readonly usage: boolean }

export type UpValues = Values<typeof UP>

export async function up(values: UpValues, argv: readonly string[]): Promise<number> {
  if (values.detach) return detach(values, argv)
  if (process.send !== undefined) return superviseDetached(values)
  process.on('SIGHUP', () => process.kill(process.pid, 'SIGTERM'))
  const say = progressTo(process.stderr)
  await runUntilSignal(async (signal) => {
    const lab = await open(values, signal, say)
    if (lab === undefined) return say('stopped; nothing is left')
    if (values.json) process.stdout.write(`${JSON.stringify(summaryOf(values.id))}\n`)
    say(`npm run lab -- exec${idFlag(values.id)} HOST -- COMMAND, with HOST one of ${hostsOf(lab.topology)}`)
    say('Ctrl-C takes it down')
    await untilAborted(signal)
    await lab.close()
    say('down; nothing is left')
  })
  return 0
}

/** @returns undefined if a signal ended the start. */
async function open(values: UpValues, signal: AbortSignal, progress: (line: string) => void): Promise<Lab | undefined> {
  try {
    return await openLab(labOptionsOf(values), { signal, progress })
  } catch (error) {
    if (signal.aborted) return undefined
    throw error
  }
}

/** Starts this command again as a session of its own and returns when its lab runs. */
async function detach(values: UpValues, argv: readonly string[]): Promise<number> {
  const { id } = values
  labOptionsOf(values)
  mkdirSync(LABS_DIR, { recursive: true })
  const owner = ownerOf(id)
  if (owner !== undefined)
    throw new UsageError(
      `--id ${id}: this lab is up (process ${owner.pid}); choose another --id, or end it with: npm run lab -- down --id ${id}`,
    )
  const log = openSync(pathsOf(id).log, 'w')
  const args = argv.filter((word) => !/^--?detach(=|$)/.test(word))
  const child = spawn(process.execPath, [`${import.meta.dirname}/main.ts`, 'up', ...args], {
    detached: true,
    stdio: ['ignore', log, log, 'ipc'],
  })
  closeSync(log)
  const stop = (): void => void child.kill('SIGTERM')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stop)
  const say = (line: string): void => void process.stderr.write(`${line}\n`)
  const end = await new Promise<Message | { readonly kind: 'ended'; readonly code: number | null }>((resolve) => {
    child.on('message', (message: Message) => (message.kind === 'progress' ? say(message.line) : resolve(message)))
    child.once('exit', (code) => resolve({ kind: 'ended', code }))
    child.once('error', (error) => resolve({ kind: 'failed', message: error.message, usage: false }))
  })
  switch (end.kind) {
    case 'running':
      child.disconnect()
      child.unref()
      if (values.json) process.stdout.write(`${JSON.stringify(summaryOf(id))}\n`)
      say(`it runs in the background (process ${child.pid}); end it with: npm run lab -- down${idFlag(id)}`)
      return 0
    case 'failed':
      if (end.usage) throw new UsageError(end.message)
      throw new Error(end.message)
    default:
      throw new Error(
        `the supervisor ended with code ${'code' in end ? end.code : ''} before the lab ran: ${readLog(id)}`,
      )
  }
}

async function superviseDetached(values: UpValues): Promise<number> {
  const send = (message: Message): Promise<void> =>
    new Promise((resolve) => (process.connected ? process.send!(message, undefined, {}, () => resolve()) : resolve()))
  const say = progressTo(process.stderr, (line) => void send({ kind: 'progress', line }))
  try {
    await runUntilSignal(async (signal) => {
      const lab = await open(values, signal, say)
      if (lab === undefined) return
      await send({ kind: 'running' })
      await untilAborted(signal)
      await lab.close()
    })
    return 0
  } catch (error) {
    await send({ kind: 'failed', message: (error as Error).message, usage: error instanceof UsageError })
    return 1
  }
}

/** A lab without pods and daemons has nothing else that would keep this process. */
async function untilAborted(signal: AbortSignal): Promise<void> {
  const timer = setInterval(() => {}, 2 ** 30)
  await aborted(signal)
  clearInterval(timer)
}

/** Lines with the seconds since the start. */
function progressTo(stream: NodeJS.WritableStream, also: (line: string) => void = () => {}): (line: string) => void {
  const start = performance.now()
  return (text) => {
    const line = `[${((performance.now() - start) / 1000).toFixed(2).padStart(6)} s] ${text}`
    stream.write(`${line}\n`)
    also(line)
  }
}

function summaryOf(id: string) {
  const { startMs, manifests, topology } = readState(id)
  const { underlay, relay, pools, nodes, pods, problems } = topology
  return { id, startMs, manifests, underlay, relay, pools, nodes, pods, problems, directory: pathsOf(id).directory }
}

const HOSTS_SHOWN = 12
function hostsOf({ hosts }: Topology): string {
  const names = hosts.map(({ name }) => name)
  const rest = names.length - HOSTS_SHOWN
  return [...names.slice(0, HOSTS_SHOWN), ...(rest > 0 ? [`and ${rest} more`] : [])].join(', ')
}

const idFlag = (id: string) => (id === 'lab' ? '' : ` --id ${id}`)

function readLog(id: string): string {
  try {
    return readFileSync(pathsOf(id).log, 'utf8').trim()
  } catch {
    return 'no output'
  }
}
