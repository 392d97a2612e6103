// A stream of a session (lib/mux) as one of Node's: with half-close, back-pressure both ways, and a reset as an error.

import { Duplex } from 'node:stream'
import type { MuxStream } from '../mux/stream.ts'
import type { ResetReason } from '../wire/mux.ts'

/** The other side, or the session's end, reset the stream. */
export class MuxResetError extends Error {
  readonly code = 'FULMAR_STREAM_RESET'
  override readonly name = 'MuxResetError'
  readonly reason: ResetReason
  constructor(reason: ResetReason, text: string) {
    super(text)
    this.reason = reason
  }
}

/** What waits in Node's buffers is beyond the window; so little of it. */
const READABLE_BYTES = 16 * 1024
const WRITABLE_BYTES = 64 * 1024
/** What came before a reset may be read for so long, as the kernel does for TCP. */
const LAST_WORDS_MS = 1_000
const LOOK_MS = 20

type Answers = { readonly onOpened: () => void; readonly onRefused: (error: MuxResetError) => void }

export class MuxDuplex extends Duplex {
  readonly #stream: MuxStream
  #wanted = false
  #readsSoon = false

  /** @param answers to who opened the stream: it is told once, and a refusal is no error of the stream then. */
  constructor(stream: MuxStream, answers?: Answers) {
    super({ allowHalfOpen: true, readableHighWaterMark: READABLE_BYTES, writableHighWaterMark: WRITABLE_BYTES })
    this.#stream = stream
    let waiting = answers
    stream.use({
      opened: () => {
        const told = waiting
        waiting = undefined
        told?.onOpened()
      },
      waits: () => {
        if (this.#wanted) this.#readSoon()
      },
      reset: (reason, text) => {
        const error = new MuxResetError(reason, text)
        if (waiting === undefined) return this.#end(error, performance.now() + LAST_WORDS_MS)
        waiting.onRefused(error)
        this.destroy()
      },
    })
  }

  /** More comes after what is being read, in the same turn of the event loop. */
  get more(): boolean {
    return this.#stream.waits
  }

  /** Whoever reads holds so many bytes of it still: the other side may not send in their place. To be called as that changes. */
  holds(bytes: number): void {
    this.#stream.holds(bytes + this.readableLength)
  }

  override _read(): void {
    this.#wanted = true
    while (this.#wanted) {
      const data = this.#stream.read()
      if (data === undefined) return
      if (data === null) this.#wanted = false
      this.#wanted = this.push(data) && data !== null
    }
  }

  /** What comes in one turn of the event loop is read at once. */
  #readSoon(): void {
    if (this.#readsSoon) return
    this.#readsSoon = true
    setImmediate(() => {
      this.#readsSoon = false
      if (this.#wanted && !this.destroyed) this._read()
    })
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#stream.write(chunk, done)
  }

  override _final(done: () => void): void {
    this.#stream.end(done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#stream.reset(error === null ? 'cancelled' : 'broken', error?.message ?? 'closed')
    done(error)
  }

  #end(error: MuxResetError, latestMs: number): void {
    if (this.destroyed) return
    if (this.#stream.window.waiting + this.readableLength === 0 || performance.now() >= latestMs) this.destroy(error)
    else setTimeout(() => this.#end(error, latestMs), LOOK_MS)
  }
}
