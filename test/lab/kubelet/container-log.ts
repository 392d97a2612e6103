// The log of a container on disk: one file after the other for each run of it, in the CRI's format. Written and read by
// one process, so that readers who follow are told of what is new.

import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { aborted } from '../../../lib/net/lifetime.ts'
import { decodeLogLine, encodeLogLine, LineSplitter, logTime, type LogLine, type OutputName } from './log-line.ts'

export type LogQuery = {
  readonly follow: boolean
  /** Of the run before this one. */
  readonly previous: boolean
  readonly timestamps: boolean
  readonly tailLines: number | undefined
  readonly limitBytes: number | undefined
  /** Unix milliseconds. */
  readonly since: number | undefined
}

export type LogBounds = { readonly fileMaxBytes: number; readonly filesMax: number }

/** The kubelet's own defaults. */
const BOUNDS: LogBounds = { fileMaxBytes: 10 << 20, filesMax: 5 }
/** Containerd's. */
const LINE_MAX_BYTES = 16 * 1024
const READ_BYTES = 64 * 1024

type LogFile = { readonly path: string; bytes: number; lines: number }
type Run = { readonly number: number; files: LogFile[]; rotated: number; ended: boolean }

export class ContainerLog {
  readonly #directory: string
  readonly #bounds: LogBounds
  /** The last two. */
  readonly #runs: Run[] = []
  #descriptor: number | undefined
  #splitters: Readonly<Record<OutputName, LineSplitter>> = splitters()
  #changed = Promise.withResolvers<void>()

  constructor(directory: string, bounds: LogBounds = BOUNDS) {
    this.#directory = directory
    this.#bounds = bounds
    mkdirSync(directory, { recursive: true })
  }

  /** A run of the container begins; the one before the last is forgotten. */
  begin(): void {
    this.end()
    this.#runs.push({ number: (this.#runs.at(-1)?.number ?? -1) + 1, files: [], rotated: 0, ended: false })
    while (this.#runs.length > 2) for (const { path } of this.#runs.shift()!.files) rmSync(path, { force: true })
    this.#rotate(this.#runs.at(-1)!)
  }

  write(stream: OutputName, chunk: Buffer, nowMs: number): void {
    for (const { text, whole } of this.#splitters[stream].push(chunk))
      this.#append({ time: logTime(nowMs), stream, text, whole })
    this.#tell()
  }

  end(nowMs: number = Date.now()): void {
    const run = this.#runs.at(-1)
    if (run === undefined || run.ended) return
    for (const stream of ['stdout', 'stderr'] as const) {
      const text = this.#splitters[stream].end()
      if (text.length > 0) this.#append({ time: logTime(nowMs), stream, text, whole: false })
    }
    run.ended = true
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
    this.#splitters = splitters()
    this.#tell()
  }

  /** @returns undefined where there is no such run. */
  read(query: LogQuery, signal: AbortSignal): AsyncGenerator<Buffer> | undefined {
    const run = this.#runs.at(query.previous ? -2 : -1)
    return run === undefined ? undefined : this.#read(run, query, signal)
  }

  async *#read(run: Run, query: LogQuery, signal: AbortSignal): AsyncGenerator<Buffer> {
    const { follow, timestamps, tailLines, since } = query
    const since8601 = since === undefined ? '' : logTime(since)
    let left = query.limitBytes ?? Infinity
    let skip = tailLines === undefined ? 0 : run.files.reduce((sum, { lines }) => sum + lines, 0) - tailLines
    let continued = false
    for await (const { time, text, whole } of this.#lines(run, follow, signal)) {
      if (skip-- > 0 || time < since8601) {
        continued = !whole
        continue
      }
      const stamp = timestamps && !continued ? `${time} ` : ''
      const bytes = Buffer.concat([Buffer.from(stamp), text, Buffer.from(whole ? '\n' : '')])
      continued = !whole
      yield bytes.length > left ? bytes.subarray(0, left) : bytes
      left -= bytes.length
      if (left <= 0) return
    }
  }

  async *#lines(run: Run, follow: boolean, signal: AbortSignal): AsyncGenerator<LogLine> {
    let file: LogFile | undefined
    let handle: FileHandle | undefined
    try {
      for (;;) {
        const next = file === undefined ? run.files[0] : run.files[run.files.indexOf(file) + 1]
        if (next === undefined) return
        file = next
        await handle?.close()
        handle = await open(file.path)
        const splitter = new LineSplitter(Infinity)
        for (let at = 0; ;) {
          const changed = this.#changed.promise
          const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES, at)
          at += bytesRead
          for (const { text } of splitter.push(buffer.subarray(0, bytesRead))) {
            const line = decodeLogLine(text)
            if (line !== undefined) yield line
          }
          if (signal.aborted) return
          if (bytesRead > 0 || at < file.bytes) continue
          // Another follows, or this one is the last.
          if (run.files.at(-1) !== file) break
          if (!follow || run.ended) return
          await Promise.race([changed, abortOf(signal)])
        }
      }
    } finally {
      await handle?.close()
    }
  }

  #append(line: LogLine): void {
    const run = this.#runs.at(-1)
    const file = run?.files.at(-1)
    if (run === undefined || file === undefined || this.#descriptor === undefined) return
    const bytes = encodeLogLine(line)
    writeSync(this.#descriptor, bytes)
    file.bytes += bytes.length
    file.lines++
    if (file.bytes >= this.#bounds.fileMaxBytes) this.#rotate(run)
  }

  #rotate(run: Run): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    const path = join(this.#directory, `${run.number}.${run.rotated++}.log`)
    run.files = [...run.files, { path, bytes: 0, lines: 0 }]
    this.#descriptor = openSync(path, 'w')
    // Whoever reads one that is removed has it open.
    for (const { path: old } of run.files.slice(0, -this.#bounds.filesMax)) rmSync(old, { force: true })
    run.files = run.files.slice(-this.#bounds.filesMax)
  }

  #tell(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}

const splitters = () => ({ stdout: new LineSplitter(LINE_MAX_BYTES), stderr: new LineSplitter(LINE_MAX_BYTES) })

const ends = new WeakMap<AbortSignal, Promise<void>>()
/** One promise for each signal, or every wait would add a listener. */
function abortOf(signal: AbortSignal): Promise<void> {
  let end = ends.get(signal)
  if (end === undefined) {
    end = aborted(signal)
    ends.set(signal, end)
  }
  return end
}
