// A session of streams without its connection: messages that come go in by `receive`, what is to be sent is written by
// `pull`. The relay opens streams and the agent accepts them, never the other way round. Time is an argument.

import {
  encodeMux,
  MAX_MESSAGE_BYTES,
  MUX_HEADER_BYTES,
  MuxError,
  MuxReader,
  type MuxFrame,
  type ResetReason,
  type SentFrame,
} from '../wire/mux.ts'
import { MAX_STREAMS, ReceiveWindow, WindowBudget } from './receive-window.ts'
import { MuxStream, type StreamOwner } from './stream.ts'
import { Turns } from './turns.ts'

/** Relay and agent, in the words of what they do with streams. */
export type MuxSide = 'opener' | 'acceptor'

export type SessionEvents = {
  /** There is something to pull. */
  readonly ready: () => void
  /** The other side's greeting, JSON by agreement. @throws MuxError for a bad one. */
  readonly greeted: (text: string) => void
  /** To the acceptor: accept it, or reset it with a reason; use it before the event loop turns. */
  readonly opened: (stream: MuxStream) => void
  readonly goAway: (reason: string) => void
  readonly pong: (token: Buffer) => void
  /** There is no stream any more. */
  readonly idle: () => void
}

/** Each ping is answered at once, and they cost nothing else. */
const PINGS_PER_SECOND = 16
/** Of no known type, said again, or for streams that are over: what was under way when that was said, and no more. */
const STRAY_PER_SECOND = 20_000
/** Resets that wait for a connection which takes nothing. */
const MAX_CONTROL_FRAMES = 4 * MAX_STREAMS
const MAX_STREAM_ID = 2 ** 32 - 1
/** Room that is worth a DATA frame of bulk; the rest of a message stays empty. */
const MIN_ROOM = MUX_HEADER_BYTES + 1024
/** Of a message that is as long a frame which does not fit begins the next, whole. */
const LONG_BYTES = 16 * 1024

export class MuxSession {
  readonly #side: MuxSide
  readonly #events: SessionEvents
  readonly #reader = new MuxReader((frame) => this.#handle(frame))
  /** Those that are over in one direction at most. Most sessions have none most of the time. */
  #streams: Map<number, MuxStream> | undefined
  #budget: WindowBudget | undefined
  #turns: Turns<MuxStream> | undefined
  #control: Buffer[] = []
  #windows: Set<MuxStream> | undefined
  #pong: Buffer | undefined
  #lastId = 0
  #greeted = false
  /** No more streams are opened, by whichever side said so. */
  #leaving = false
  #heardGoAway = false
  #closed = false
  /** The second in which these are counted. */
  #secondMs = 0
  #pings = 0
  #stray = 0

  constructor(side: MuxSide, events: SessionEvents) {
    this.#side = side
    this.#events = events
  }

  /** Streams that are open, or whose last data nobody has read. */
  get streams(): number {
    return this.#budget?.streams ?? 0
  }
  /** True where `open` may be called. */
  get usable(): boolean {
    return this.#greeted && !this.#leaving && !this.#closed
  }

  greet(text: string): void {
    this.#send({ kind: this.#side === 'acceptor' ? 'hello' : 'welcome', text })
  }

  ping(token: Buffer): void {
    this.#send({ kind: 'ping', token })
  }

  /** Streams go on; new ones are for another session. */
  goAway(reason: string): void {
    this.#leaving = true
    this.#send({ kind: 'goaway', text: reason })
  }

  /** @returns undefined where MAX_STREAMS are open, or the session is not usable. */
  open(host: string, port: number): MuxStream | undefined {
    if (!this.usable || this.streams >= MAX_STREAMS || this.#lastId === MAX_STREAM_ID) return undefined
    const window = new ReceiveWindow((this.#budget ??= new WindowBudget()))
    const stream = new MuxStream(this.#owner, { id: ++this.#lastId, host, port, sendLimit: undefined }, window)
    ;(this.#streams ??= new Map()).set(stream.id, stream)
    this.#send({ kind: 'open', stream: stream.id, windowBytes: window.limit, host, port })
    return stream
  }

  /** The connection is gone: all streams are reset. */
  close(reason: ResetReason, text: string): void {
    this.#closed = true
    for (const stream of [...(this.#streams?.values() ?? [])]) stream.onReset(reason, text)
    this.#control = []
  }

  /** @param part of a message, to its `end` or not. @throws MuxError for what ends the session. */
  receive(part: Buffer, end: boolean, nowMs: number): void {
    if (nowMs - this.#secondMs >= 1000) {
      this.#secondMs = nowMs
      this.#pings = 0
      this.#stray = 0
    }
    if (!this.#closed) this.#reader.read(part, end)
  }

  /**
   * Writes the next message.
   * @param target with MAX_MESSAGE_BYTES from `start` on.
   * @returns its length, 0 if there is nothing to send now.
   */
  pull(target: Buffer, start: number): number {
    let length = 0
    const put = (frame: Buffer): boolean => {
      if (length + frame.length > MAX_MESSAGE_BYTES) return false
      length += frame.copy(target, start + length)
      return true
    }
    let taken = 0
    while (taken < this.#control.length && put(this.#control[taken]!)) taken++
    if (taken > 0) this.#control.splice(0, taken)
    if (this.#pong !== undefined && put(encodeMux({ kind: 'pong', token: this.#pong }))) this.#pong = undefined
    for (const stream of this.#windows ?? []) {
      const { consumed, limit, ended } = stream.window
      if (!ended && !put(encodeMux({ kind: 'window', stream: stream.id, consumed, limit }))) break
      this.#windows!.delete(stream)
    }
    const send = (stream: MuxStream): number => {
      const room = MAX_MESSAGE_BYTES - length
      if (length >= LONG_BYTES && MUX_HEADER_BYTES + stream.nextBytes > room) return 0
      const bytes = stream.pull(target, start + length, room)
      length += bytes
      return bytes
    }
    while (this.#turns !== undefined && MAX_MESSAGE_BYTES - length >= MIN_ROOM && this.#turns.next(send)) continue
    return length
  }

  #handle(frame: MuxFrame): void {
    if (this.#closed) return
    if (!this.#greeted && frame.kind !== 'hello' && frame.kind !== 'welcome') throw new MuxError('not greeted')
    switch (frame.kind) {
      case 'hello':
      case 'welcome':
        if ((frame.kind === 'hello') !== (this.#side === 'opener')) throw new MuxError('frame of the other side')
        if (this.#greeted) throw new MuxError('greeted twice')
        this.#greeted = true
        return this.#events.greeted(frame.text)
      case 'open':
        return this.#accept(frame)
      case 'opened': {
        if (this.#side === 'acceptor') throw new MuxError('frame of the other side')
        return this.#stream(frame.stream)?.onOpened(frame.windowBytes)
      }
      case 'data':
        return this.#stream(frame.stream)?.onData(frame.data, frame.fin, frame.blocked)
      case 'window':
        return this.#stream(frame.stream)?.onWindow(frame.consumed, frame.limit)
      case 'reset':
        return this.#stream(frame.stream)?.onReset(frame.reason, frame.text)
      case 'ping':
        if (++this.#pings > PINGS_PER_SECOND) throw new MuxError('too many pings')
        this.#pong = Buffer.from(frame.token)
        return this.#events.ready()
      case 'pong':
        return this.#events.pong(frame.token)
      case 'goaway':
        if (this.#heardGoAway) return this.#countStray()
        this.#heardGoAway = true
        this.#leaving = true
        return this.#events.goAway(frame.text)
      case 'unknown':
        return this.#countStray()
    }
  }

  #accept(frame: MuxFrame & { readonly kind: 'open' }): void {
    if (this.#side === 'opener') throw new MuxError('frame of the other side')
    const { stream: id, host, port, windowBytes } = frame
    if (id <= this.#lastId) throw new MuxError('stream opened twice', `${id}`)
    this.#lastId = id
    if (this.#control.length > MAX_CONTROL_FRAMES) throw new MuxError('too many streams')
    if (this.streams >= MAX_STREAMS)
      return this.#send({ kind: 'reset', stream: id, reason: 'busy', text: `the node has ${MAX_STREAMS} streams` })
    const window = new ReceiveWindow((this.#budget ??= new WindowBudget()))
    const stream = new MuxStream(this.#owner, { id, host, port, sendLimit: windowBytes }, window)
    ;(this.#streams ??= new Map()).set(id, stream)
    this.#events.opened(stream)
  }

  /** Frames for a stream that is over may be under way still. */
  #stream(id: number): MuxStream | undefined {
    if (id > this.#lastId) throw new MuxError('stream not opened', `${id}`)
    const stream = this.#streams?.get(id)
    if (stream === undefined) this.#countStray()
    return stream
  }

  #countStray(): void {
    if (++this.#stray > STRAY_PER_SECOND) throw new MuxError('too many stray frames')
  }

  readonly #owner: StreamOwner = {
    ready: (stream, sparse) => {
      ;(this.#turns ??= new Turns()).add(stream, sparse)
      this.#events.ready()
    },
    window: (stream) => {
      ;(this.#windows ??= new Set()).add(stream)
      this.#events.ready()
    },
    opened: ({ id, window }) => this.#send({ kind: 'opened', stream: id, windowBytes: window.limit }),
    reset: ({ id }, reason, text) => this.#send({ kind: 'reset', stream: id, reason, text }),
    over: (stream) => {
      this.#windows?.delete(stream)
      this.#streams?.delete(stream.id)
      if (this.#streams?.size !== 0) return
      this.#streams = undefined
      this.#events.idle()
    },
  }

  #send(frame: SentFrame): void {
    if (this.#closed) return
    this.#control.push(encodeMux(frame))
    this.#events.ready()
  }
}
