// What tap prints: one line per test file as it ends, under it each failure with its place and difference, all failures
// once more at the end, and the sum in one line. It reads the same on a terminal, in a file and in CI.

import { Transform, type TransformCallback } from 'node:stream'
import { Parser, type FinalResults, type Result } from 'tap-parser'
import { stringify } from 'yaml'

type Diagnostics = { diff?: string; at?: { fileName?: string; lineNumber?: number }; [key: string]: unknown }

/** Diagnostics that repeat the test's source or what stands elsewhere. */
const NOISE = new Set(['at', 'source', 'diff', 'stack', 'cwd', 'command', 'args', 'stdio', 'jobId', 'externalID'])

export default class Reporter extends Transform {
  readonly #parser = new Parser()
  readonly #failures: string[] = []
  #pass = 0
  #fail = 0
  #skip = 0
  /** Of the file that is being read. */
  #inFile = { pass: 0, fail: 0, failures: [] as string[] }
  /** The file that has ended; what failed it as a whole (a signal, a time-out) may still come. */
  #ended: Result | undefined

  constructor() {
    super({ objectMode: true })
    this.#parser.on('pass', () => this.#inFile.pass++)
    this.#parser.on('fail', (result: Result) => {
      this.#inFile.fail++
      this.#inFile.failures.push(failureText(result))
    })
    this.#parser.on('skip', () => this.#skip++)
    this.#parser.on('child', () => this.#endFile())
    this.#parser.on('assert', (file: Result) => (this.#ended = file))
    this.#parser.on('bailout', (reason: string) => this.#failures.push(`Bail out: ${reason}\n`))
  }

  override _transform(chunk: Buffer | string, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#parser.write(chunk.toString())
    this.#endFile()
    done()
  }

  override _flush(done: TransformCallback): void {
    this.#parser.once('complete', (results: FinalResults) => {
      this.#endFile()
      if (!results.ok && this.#fail === 0) this.#fail++
      for (const failure of this.#failures) this.push(`\n${failure}`)
      const skipped = this.#skip === 0 ? '' : `, ${this.#skip} skipped`
      done(null, `\n${this.#pass} passed, ${this.#fail} failed${skipped}\n`)
    })
    this.#parser.end()
  }

  #endFile(): void {
    if (this.#ended === undefined) return
    this.push(fileLine(this.#ended, this.#inFile))
    this.#pass += this.#inFile.pass
    this.#fail += this.#inFile.fail
    for (const failure of this.#inFile.failures) this.push(failure)
    this.#failures.push(...this.#inFile.failures)
    this.#inFile = { pass: 0, fail: 0, failures: [] }
    this.#ended = undefined
  }
}

function fileLine(file: Result, { pass, fail }: { pass: number; fail: number }): string {
  const seconds = file.time === null ? '' : `  ${(file.time / 1000).toFixed(1)} s`
  const failed = fail === 0 ? '' : `, ${fail} failed`
  return `${file.ok ? 'ok  ' : 'FAIL'} ${file.name.padEnd(44)} ${`${pass} passed${failed}`.padEnd(22)}${seconds}\n`
}

function failureText(result: Result): string {
  const { at, diff, stack, ...more } = (result.diag ?? {}) as Diagnostics
  const place = at?.fileName === undefined ? '' : `  (${at.fileName}:${at.lineNumber})`
  const rest = Object.fromEntries(Object.entries(more).filter(([key]) => !NOISE.has(key)))
  const body = [
    diff ?? '',
    Object.keys(rest).length === 0 ? '' : stringify(rest),
    typeof stack === 'string' ? stack : '',
  ]
  return `FAIL ${result.fullname}${place}\n${body
    .join('')
    .replace(/^(?=.)/gm, '     ')
    .trimEnd()}\n`
}
