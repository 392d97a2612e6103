// Transactions through one `nft -i` that stays open: a line is a transaction, applied whole or not at all, and costs 0.2 ms
// where starting nft costs 16. nft says nothing about a line that worked, so each is followed by a word that is no command:
// the complaint about that word comes after every complaint about the line.

import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { closeSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import type { Log } from '../log.ts'
import { memoryFile } from './memory-file.ts'

export type NftSession = {
  /**
   * Applies the commands as one transaction, after those that were asked for before.
   * @throws NftError with what nft said; then nothing was changed, unless the session ended meanwhile.
   */
  readonly apply: (commands: readonly string[]) => Promise<void>
}

export class NftError extends Error {
  readonly code = 'FULMAR_NFT'
  override readonly name = 'NftError'
}

/**
 * What a pipe takes in one piece (PIPE_BUF), less the word behind it: a longer line could be cut in two by our death and
 * half of it be taken for the whole. Longer ones go to an `nft -f` of their own, which also loads them four times as fast.
 */
const LINE_BYTES_MAX = 4000
const ANSWER_TIMEOUT_MS = 10_000
/** Tens of thousands of services take some seconds, and a slow machine ten times as long. */
const LOAD_TIMEOUT_MS = 60_000
/** Transactions that may wait; more means that nft hangs, and waiting callers must hear of it. */
const WAITING_MAX = 1000
const STDERR_BYTES_MAX = 1 << 20
/**
 * nft keeps each line as history, walks through all of it for the next one, and saves it at its end: after so many lines,
 * when that takes half as long as a transaction, another child takes over. It is started somewhat before.
 */
const LINES_MAX = 1000
const LINES_TO_START = 50
/** Where no history can be saved: there is no such folder. */
const HOME = '/dev/null'

export function openNft(signal: AbortSignal, log: Log): NftSession {
  let child: NftChild | undefined
  let successor: NftChild | undefined
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  signal.addEventListener(
    'abort',
    () => {
      child?.end()
      successor?.end()
    },
    { once: true },
  )

  const transact = async (commands: readonly string[]): Promise<void> => {
    const line = commands.join('; ')
    if (line.includes('\n') || Buffer.byteLength(line) > LINE_BYTES_MAX) return load(commands.join('\n'))
    if (child !== undefined && child.lines >= LINES_MAX && !child.ended) {
      child.end()
      child = successor
      successor = undefined
    }
    if (child === undefined || child.ended) {
      if (child !== undefined) log.warn('nft -i ended and is started again')
      child = new NftChild()
      if (signal.aborted) child.endAfterAnswer = true
    } else if (child.lines >= LINES_MAX - LINES_TO_START && !signal.aborted) successor ??= new NftChild()
    await child.transact(line)
  }
  return {
    apply: (commands) => {
      if (commands.length === 0) return Promise.resolve()
      if (waiting >= WAITING_MAX) return Promise.reject(new NftError(`nft: ${WAITING_MAX} transactions wait already`))
      waiting++
      const result = last.then(() => transact(commands)).finally(() => waiting--)
      last = result.catch(() => undefined)
      return result
    },
  }
}

function load(script: string): Promise<void> {
  const file = memoryFile('nft-script', `${script}\n`)
  const child = spawn('nft', ['-f', '-'], { stdio: [file ?? 'pipe', 'ignore', 'pipe'], timeout: LOAD_TIMEOUT_MS })
  child.stdin?.on('error', () => undefined).end(`${script}\n`)
  if (file !== undefined) closeSync(file)
  let stderr = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    if (stderr.length < STDERR_BYTES_MAX) stderr += text
  })
  return new Promise((resolve, reject) => {
    child.once('error', (cause) => reject(new NftError(`nft -f: ${cause.message}; install nftables`, { cause })))
    child.once('close', (code, by) => {
      if (code === 0) resolve()
      else reject(new NftError(`nft -f: ${stderr.trim() || `ended with ${by ?? code}`}`))
    })
  })
}

/** One `nft -i`; ends with the first answer that does not come. */
class NftChild {
  ended = false
  endAfterAnswer = false
  readonly #process: ChildProcessByStdio<Writable, null, Readable>
  #count = 0
  #stderr = ''
  #waiting: { word: string; line: string; resolve: () => void; reject: (error: Error) => void } | undefined

  constructor() {
    this.#process = spawn('nft', ['-i'], { stdio: ['pipe', 'ignore', 'pipe'], env: { ...process.env, HOME } })
    this.#process.stderr.setEncoding('utf8').on('data', (text: string) => this.#receive(text))
    this.#process.stdin.on('error', () => this.end())
    this.#process.on('error', (cause) =>
      this.#fail(new NftError(`nft -i: ${cause.message}; install nftables`, { cause })),
    )
    this.#process.on('exit', (code, by) => this.#fail(new NftError(`nft -i: ended with ${by ?? code}`)))
    // Waiting for work must not keep the daemon alive.
    this.#process.unref()
    ;(this.#process.stderr as Readable & { unref?: () => void }).unref?.()
    ;(this.#process.stdin as Writable & { unref?: () => void }).unref?.()
  }

  /** That it was given so far. */
  get lines(): number {
    return 2 * this.#count
  }

  async transact(line: string): Promise<void> {
    const word = `fulmar-answer-${++this.#count}`
    const timer = setTimeout(() => {
      this.#fail(new NftError(`nft: no answer in ${ANSWER_TIMEOUT_MS / 1000} s to ${brief(line)}`))
      this.#process.kill('SIGKILL')
    }, ANSWER_TIMEOUT_MS)
    try {
      await new Promise<void>((resolve, reject) => {
        this.#waiting = { word, line, resolve, reject }
        if (!this.ended) this.#process.stdin.write(`${line}\n${word}\n`)
        else this.#fail(new NftError('nft -i: ended'))
      })
    } finally {
      clearTimeout(timer)
      if (this.endAfterAnswer) this.end()
    }
  }

  end(): void {
    this.ended = true
    this.#process.stdin.end()
  }

  #receive(text: string): void {
    this.#stderr += text
    const waiting = this.#waiting
    if (waiting === undefined) {
      this.#stderr = ''
      return
    }
    // `Error: syntax error, unexpected …`, the line itself, and a line of carets under what was not understood.
    const answer = new RegExp(`Error: syntax error[^\\n]*\\n${waiting.word}\\n *\\^+\\n`).exec(this.#stderr)
    if (answer === null) {
      if (this.#stderr.length > STDERR_BYTES_MAX) this.#stderr = this.#stderr.slice(-STDERR_BYTES_MAX / 2)
      return
    }
    const complaint = this.#stderr.slice(0, answer.index).trim()
    this.#stderr = this.#stderr.slice(answer.index + answer[0].length)
    this.#waiting = undefined
    if (complaint === '') waiting.resolve()
    else waiting.reject(new NftError(`nft: ${reasons(complaint)} in ${brief(waiting.line)}`))
  }

  #fail(error: NftError): void {
    this.ended = true
    this.#waiting?.reject(error)
    this.#waiting = undefined
  }
}

/** nft echoes the whole line under each complaint; the first lines say what and where. */
const reasons = (complaint: string) =>
  [...new Set(complaint.split('\n').filter((line) => line.startsWith('Error')))].join('; ') || brief(complaint)
const brief = (line: string) => (line.length > 300 ? `${line.slice(0, 300)}…` : line)
