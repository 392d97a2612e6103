// The server's side of a SPDY/3.1 connection: streams that the client opens, each a Duplex with half-close. There is no
// flow control per stream: where one is not read, the connection waits, as with Go's spdystream.

import { Duplex } from 'node:stream'
import {
  encodeData,
  encodeGoaway,
  encodePing,
  encodeReply,
  encodeReset,
  FrameReader,
  HeaderBlocks,
  type Frame,
  type Headers,
} from './spdy.ts'

const STREAMS_MAX = 1_024
const CHUNK_MAX_BYTES = 64 * 1024
/** A client that has got everything closes; one that does not is cut. */
const LINGER_MS = 5_000

export class SpdyConnection {
  readonly #transport: Duplex
  readonly #reader = new FrameReader()
  readonly #blocks = new HeaderBlocks()
  readonly #streams = new Map<number, SpdyStream>()
  readonly #onStream: (stream: SpdyStream) => void
  readonly #ending = new AbortController()
  #lastStream = 0

  /** @param transport what SPDY's bytes come and go by; closed with the connection. */
  constructor(transport: Duplex, onStream: (stream: SpdyStream) => void) {
    this.#transport = transport
    this.#onStream = onStream
    transport.on('error', () => {})
    transport.once('close', () => this.#end())
    void this.#run()
  }

  /** Aborts when the client is gone. */
  get signal(): AbortSignal {
    return this.#ending.signal
  }

  get size(): number {
    return this.#streams.size
  }

  /** After what has been written; what the client still sends is read and forgotten, or its end would reset ours. */
  close(): void {
    if (this.#transport.destroyed) return
    this.#transport.write(encodeGoaway(this.#lastStream))
    this.#transport.end()
    for (const stream of this.#streams.values()) stream.unpipe().resume()
    const timer = setTimeout(() => this.#transport.destroy(), LINGER_MS)
    this.#transport.once('close', () => clearTimeout(timer))
  }

  /** @returns when more can be taken. */
  write(bytes: readonly Uint8Array[], done: (error?: Error | null) => void): void {
    if (this.#transport.destroyed || this.#transport.writableEnded) return done(new Error('the connection is closed'))
    for (const [index, part] of bytes.entries())
      this.#transport.write(part, index === bytes.length - 1 ? done : () => {})
  }

  forget(id: number): void {
    this.#streams.delete(id)
  }

  async #run(): Promise<void> {
    try {
      for await (const chunk of this.#transport as AsyncIterable<Buffer>)
        for (const frame of this.#reader.push(chunk)) await this.#take(frame)
    } catch {
      this.#transport.destroy()
    }
    this.#end()
  }

  #end(): void {
    if (this.#ending.signal.aborted) return
    this.#ending.abort()
    this.#blocks.close()
    for (const stream of this.#streams.values()) stream.destroy()
  }

  async #take(frame: Frame): Promise<void> {
    switch (frame.kind) {
      case 'syn-stream': {
        const headers = await this.#blocks.decode(frame.block)
        if (this.#streams.size >= STREAMS_MAX) return this.#send(encodeReset(frame.stream))
        const stream = new SpdyStream(this, frame.stream, headers)
        this.#lastStream = Math.max(this.#lastStream, frame.stream)
        this.#streams.set(frame.stream, stream)
        this.#send(encodeReply(frame.stream, await this.#blocks.encode({})))
        this.#onStream(stream)
        if (frame.fin) stream.push(null)
        return
      }
      case 'headers':
        await this.#blocks.decode(frame.block)
        if (frame.fin) this.#streams.get(frame.stream)?.push(null)
        return
      case 'data': {
        const stream = this.#streams.get(frame.stream)
        if (stream === undefined) return
        if (frame.bytes.length > 0) await stream.deliver(frame.bytes)
        if (frame.fin) stream.push(null)
        return
      }
      case 'rst-stream':
        this.#streams.get(frame.stream)?.destroy()
        return
      case 'ping':
        // Odd numbers are the client's.
        if (frame.id % 2 === 1) this.#send(encodePing(frame.id))
        return
      case 'goaway':
      case 'other':
    }
  }

  #send(bytes: Buffer): void {
    if (!this.#transport.destroyed && !this.#transport.writableEnded) this.#transport.write(bytes)
  }
}

export class SpdyStream extends Duplex {
  readonly headers: Headers
  readonly #connection: SpdyConnection
  readonly #id: number
  #wanted: (() => void) | undefined

  constructor(connection: SpdyConnection, id: number, headers: Headers) {
    super({ allowHalfOpen: true, autoDestroy: true })
    this.headers = headers
    this.#connection = connection
    this.#id = id
    this.on('error', () => {})
  }

  /** Resolves when the reader takes more, or is gone. */
  deliver(bytes: Buffer): Promise<void> {
    if (this.destroyed || this.readableEnded || this.push(bytes)) return Promise.resolve()
    return new Promise((resolve) => (this.#wanted = resolve))
  }

  override _read(): void {
    this.#wanted?.()
    this.#wanted = undefined
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    const rest = chunk.subarray(CHUNK_MAX_BYTES)
    this.#connection.write(encodeData(this.#id, chunk.subarray(0, CHUNK_MAX_BYTES), false), (error) => {
      if (error || rest.length === 0) return done(error)
      this._write(rest, _encoding, done)
    })
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#connection.write(encodeData(this.#id, new Uint8Array(), true), done)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.writableFinished) this.#connection.write([encodeReset(this.#id)], () => {})
    this._read()
    this.#connection.forget(this.#id)
    done(error)
  }
}
