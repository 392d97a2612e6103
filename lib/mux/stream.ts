// One stream of a session, as its user sees it and as the session does: what is to be sent, what was received and not
// read, and the windows of both directions. Its two halves end apart from each other; a reset ends both.

import { allocate } from '../chunk.ts'
import { BLOCKED, FIN, MAX_DATA_BYTES, MUX_HEADER_BYTES, MuxError, writeDataHeader } from '../wire/mux.ts'
import type { ResetReason } from '../wire/mux.ts'
import type { ReceiveWindow } from './receive-window.ts'
import type { Flow } from './turns.ts'

/** What the user is told. */
export type StreamUser = {
  /** The other side accepted the stream: to who opened it. */
  readonly opened: () => void
  /** There is something to read, or nothing more comes, for as long as it was not read. */
  readonly waits: () => void
  /** Both halves are over, by the other side or with the session. */
  readonly reset: (reason: ResetReason, text: string) => void
}

/** What the stream asks of its session. */
export type StreamOwner = {
  readonly ready: (stream: MuxStream, sparse: boolean) => void
  readonly window: (stream: MuxStream) => void
  readonly opened: (stream: MuxStream) => void
  readonly reset: (stream: MuxStream, reason: ResetReason, text: string) => void
  readonly over: (stream: MuxStream) => void
}

/**
 * What comes is copied together, so that small pieces cost no more than they are and pin no memory of others. The first
 * piece is as large as what came in between last time; who has more waiting gets room for as much again.
 */
const MIN_PIECE_BYTES = 16 * 1024
const MAX_PIECE_BYTES = MAX_DATA_BYTES

export class MuxStream implements Flow {
  readonly id: number
  readonly host: string
  readonly port: number
  readonly window: ReceiveWindow
  readonly #owner: StreamOwner
  #user: StreamUser | undefined
  /** Received and not read, in order; the last may have room for more. */
  #pieces: { buffer: Buffer; length: number }[] = []
  /** Received since nothing waited, and the time before that. */
  #burst = 0
  #lastBurst = 0
  #receivedAll = false
  /** Where the other side last had no window left. */
  #blockedAt = -1
  /** Read, and not gone yet; undefined where what is read is gone. */
  #held: number | undefined

  #sendLimit: number
  /** By the side that accepts it. */
  #opened: boolean
  #sent = 0
  #chunk: Buffer | undefined
  #at = 0
  #done: (() => void) | undefined
  #ending = false
  #sentAll = false
  /** The limit for which the other side was told that more waits. */
  #toldBlockedAt = -1
  #over = false

  /** @param sendLimit bytes that may be sent before the first WINDOW; undefined until the other side accepts. */
  constructor(
    owner: StreamOwner,
    options: {
      readonly id: number
      readonly host: string
      readonly port: number
      readonly sendLimit: number | undefined
    },
    window: ReceiveWindow,
  ) {
    this.#owner = owner
    this.id = options.id
    this.host = options.host
    this.port = options.port
    this.#sendLimit = options.sendLimit ?? 0
    this.#opened = options.sendLimit !== undefined
    this.window = window
  }

  // For its user

  /** To be called once, before the event loop turns. */
  use(user: StreamUser): void {
    this.#user = user
  }

  /** Tells who opened the stream that its target is there. */
  accept(): void {
    if (!this.#over) this.#owner.opened(this)
  }

  /** One at a time. @param done called when the last of it was handed to the connection; never after a reset. */
  write(chunk: Buffer, done: () => void): void {
    if (this.#over) return
    if (chunk.length === 0) return done()
    this.#chunk = chunk
    this.#at = 0
    this.#done = done
    if (this.ready) this.#owner.ready(this, true)
  }

  /** After the last write is done. */
  end(done: () => void): void {
    if (this.#over) return
    this.#ending = true
    this.#done = done
    this.#owner.ready(this, true)
  }

  /** There is something to read. */
  get waits(): boolean {
    return this.#pieces.length > 0
  }

  /** @returns what was received next, to be freed by who is done with it; undefined if nothing waits, null if nothing more comes. */
  read(): Buffer | null | undefined {
    const piece = this.#pieces.shift()
    if (piece === undefined) return this.#receivedAll ? null : undefined
    this.#read(piece.length)
    if (this.#pieces.length === 0) {
      this.#lastBurst = this.#burst
      this.#burst = 0
      // What came in one turn of the event loop was not read yet when the other side said so.
      if (this.#blockedAt === this.window.received && !this.#over && this.window.blocked()) this.#owner.window(this)
    }
    return piece.length === piece.buffer.length ? piece.buffer : piece.buffer.subarray(0, piece.length)
  }

  /** Of what is read from now on its user holds `bytes` still: they stay in the window. To be called as that changes. */
  holds(bytes: number): void {
    const gone = (this.#held ?? 0) - bytes
    this.#held = Math.min(this.#held ?? 0, bytes)
    if (gone > 0) this.#consumed(gone)
  }

  /** Ends both halves at once; what was not sent or read is lost. Says nothing where both had ended. */
  reset(reason: ResetReason, text: string): void {
    if (!this.#over) {
      this.#owner.reset(this, reason, text)
      this.#finish()
    }
    this.#pieces = []
    this.window.close()
  }

  // For the session

  get ready(): boolean {
    if (this.#over) return false
    if (this.#chunk === undefined) return this.#ending && !this.#sentAll
    return this.#sent < this.#sendLimit || this.#toldBlockedAt !== this.#sendLimit
  }

  get nextBytes(): number {
    if (this.#chunk === undefined) return 0
    return Math.min(this.#chunk.length - this.#at, this.#sendLimit - this.#sent, MAX_DATA_BYTES)
  }

  /** Writes one DATA frame; to be called while ready, with room for more than a header. @returns its size. */
  pull(target: Buffer, offset: number, room: number): number {
    const chunk = this.#chunk
    const length = Math.min(this.nextBytes, room - MUX_HEADER_BYTES)
    if (chunk !== undefined) {
      chunk.copy(target, offset + MUX_HEADER_BYTES, this.#at, this.#at + length)
      this.#at += length
      this.#sent += length
    }
    let flags = 0
    const done = this.#done
    if (chunk === undefined || this.#at === chunk.length) {
      this.#chunk = undefined
      this.#done = undefined
      // It may write again, or end: what it says then goes into this frame no more.
      if (chunk === undefined) {
        flags |= FIN
        this.#sentAll = true
      }
    }
    if (this.#chunk !== undefined && this.#sent === this.#sendLimit) {
      flags |= BLOCKED
      this.#toldBlockedAt = this.#sendLimit
    }
    writeDataHeader(target, offset, this.id, length, flags)
    if (this.#chunk === undefined) {
      this.#overWhenBoth()
      done?.()
    }
    return MUX_HEADER_BYTES + length
  }

  onOpened(windowBytes: number): void {
    if (this.#opened) throw new MuxError('stream opened twice', `${this.id}`)
    this.#opened = true
    this.#sendLimit = windowBytes
    this.#user?.opened()
  }

  onData(data: Buffer, fin: boolean, blocked: boolean): void {
    if (!this.#opened) throw new MuxError('stream not opened', `${this.id}`)
    if (this.#receivedAll) throw new MuxError('data after the end')
    this.window.receive(data.length)
    if (data.length > 0) this.#keep(data)
    if (blocked) {
      const at = this.window.received
      if (at === this.#blockedAt) throw new MuxError('empty frame', 'blocked twice')
      this.#blockedAt = at
      if (this.window.blocked()) this.#owner.window(this)
    }
    if (!fin) return
    this.#receivedAll = true
    this.window.end()
    this.#user?.waits()
    this.#overWhenBoth()
  }

  onWindow(consumed: number, limit: number): void {
    if (!this.#opened) throw new MuxError('stream not opened', `${this.id}`)
    if (consumed > this.#sent || limit <= this.#sendLimit)
      throw new MuxError('window went back', `${consumed} ${limit} after ${this.#sent} ${this.#sendLimit}`)
    this.#sendLimit = limit
    if (this.ready) this.#owner.ready(this, false)
  }

  /** The other side's, or the session's end. What was received before can still be read. */
  onReset(reason: ResetReason, text: string): void {
    if (this.#over) return
    this.#finish()
    if (this.#pieces.length === 0) this.window.close()
    this.#user?.reset(reason, text)
  }

  #finish(): void {
    this.#over = true
    this.#chunk = undefined
    this.#done = undefined
    this.#owner.over(this)
  }

  #overWhenBoth(): void {
    if (!this.#sentAll || !this.#receivedAll || this.#over) return
    this.#over = true
    this.#owner.over(this)
    if (this.#pieces.length === 0) this.window.close()
  }

  #read(bytes: number): void {
    if (this.#held === undefined) this.#consumed(bytes)
    else this.#held += bytes
  }

  #consumed(bytes: number): void {
    const renewed = this.window.consume(bytes)
    if (this.#over) {
      if (this.#pieces.length === 0) this.window.close()
    } else if (renewed) this.#owner.window(this)
  }

  #keep(data: Buffer): void {
    this.#burst += data.length
    const last = this.#pieces.at(-1)
    const room = last === undefined ? 0 : last.buffer.length - last.length
    const first = Math.min(room, data.length)
    if (first > 0) {
      data.copy(last!.buffer, last!.length, 0, first)
      last!.length += first
    }
    const rest = data.length - first
    if (rest === 0) return
    const usual = last === undefined ? this.#lastBurst : Math.max(this.#burst, MIN_PIECE_BYTES)
    const buffer = allocate(Math.max(rest, Math.min(usual, MAX_PIECE_BYTES)))
    data.copy(buffer, 0, first)
    this.#pieces.push({ buffer, length: rest })
    if (last === undefined) this.#user?.waits()
  }
}
