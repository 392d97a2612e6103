// Streams of one session between a node's agent and a relay (wss://relay/fulmar/v1/ops): binary messages, each of them
// one frame or more, none of which is cut by a message's end.
//
//    0        1        2        3        4        5        6        7        8
//   +--------+--------+--------+----+----+--------+--------+--------+--------+- - - -
//   |    length of payload     |type|flag|     stream (u32, big-endian)      | payload
//   +--------+--------+--------+----+----+--------+--------+--------+--------+- - - -
//
//    0 HELLO    agent → relay, first    JSON
//    1 WELCOME  relay → agent, first    JSON
//    2 OPEN     relay → agent           u32 window, u16 port, host
//    3 OPENED   agent → relay           u32 window
//    4 DATA                             bytes, at most 64 KiB; flag 1 FIN: no more follows; flag 2 BLOCKED: more waits
//                                       for a window. Without either there is at least a byte
//    5 WINDOW                           u48 bytes of the stream that were consumed, u48 up to where more may be sent
//    6 RESET                            u8 reason, text: the stream is over in both directions
//    7 PING                             8 bytes
//    8 PONG                             the 8 bytes of the last PING
//    9 GOAWAY                           text: no more OPEN; streams go on
//
// Streams are numbered by the relay, upwards from 1. HELLO, WELCOME, PING, PONG and GOAWAY have stream 0. A window says
// how much may be sent before the first WINDOW: in OPEN to the relay, in OPENED to the agent. There is none for the
// session: a stream that nobody reads delays no other. Unknown types and flags are ignored, so that versions may differ.

import { ProtocolError } from './signal.ts'

export const MUX_PATH = '/fulmar/v1/ops'
export const MUX_HEADER_BYTES = 8
/** What Node reads from a socket at once. */
export const MAX_DATA_BYTES = 64 * 1024
/** Of frames, all together: DATA of any length, and something of control beside it. */
export const MAX_MESSAGE_BYTES = MAX_DATA_BYTES + 2 * 1024
export const MAX_TEXT_BYTES = 512
export const MAX_GREETING_BYTES = 16 * 1024
const MAX_HOST_BYTES = 253
const MAX_OFFSET = 2 ** 48 - 1
/** As frames that are not known, and so cannot be judged otherwise. */
const MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - MUX_HEADER_BYTES

export const FIN = 1
export const BLOCKED = 2

/**
 * Why a stream is reset, or never came about. `refused`: the agent may not dial that; `failed`: it could not; `timeout`;
 * `busy`: a bound is reached; `cancelled`: its user wants no more; `broken`: its other end broke off.
 */
const RESET_REASONS = ['cancelled', 'refused', 'failed', 'timeout', 'busy', 'broken'] as const
export type ResetReason = (typeof RESET_REASONS)[number]

export type MuxFrame =
  | { readonly kind: 'hello' | 'welcome' | 'goaway'; readonly text: string }
  | {
      readonly kind: 'open'
      readonly stream: number
      readonly windowBytes: number
      readonly host: string
      readonly port: number
    }
  | { readonly kind: 'opened'; readonly stream: number; readonly windowBytes: number }
  | {
      readonly kind: 'data'
      readonly stream: number
      /** A view of the message, or of a part of it. */
      readonly data: Buffer
      readonly fin: boolean
      readonly blocked: boolean
    }
  | { readonly kind: 'window'; readonly stream: number; readonly consumed: number; readonly limit: number }
  | { readonly kind: 'reset'; readonly stream: number; readonly reason: ResetReason; readonly text: string }
  | { readonly kind: 'ping' | 'pong'; readonly token: Buffer }
  /** Of a later version. */
  | { readonly kind: 'unknown' }

/** What `encodeMux` writes; DATA is written in place. */
export type SentFrame = Exclude<MuxFrame, { readonly kind: 'data' | 'unknown' }>

/** What the other side did that ends the session. */
export type MuxViolation =
  | 'frame cut off'
  | 'frame of a wrong length'
  | 'text not UTF-8'
  | 'empty frame'
  | 'stream where none belongs'
  | 'frame of the other side'
  | 'stream not opened'
  | 'stream opened twice'
  | 'too many streams'
  | 'not greeted'
  | 'greeted twice'
  | 'bad greeting'
  | 'data beyond the window'
  | 'data after the end'
  | 'window went back'
  | 'too many pings'
  | 'too many stray frames'
  | 'text message'

export class MuxError extends ProtocolError {
  readonly violation: MuxViolation
  constructor(violation: MuxViolation, detail = '') {
    super(`${violation}${detail && `: ${detail}`}`)
    this.violation = violation
  }
}

const TYPES = ['hello', 'welcome', 'open', 'opened', 'data', 'window', 'reset', 'ping', 'pong', 'goaway'] as const
const [HELLO, WELCOME, OPEN, OPENED, DATA, WINDOW, RESET, PING, PONG, GOAWAY] = TYPES.keys() as unknown as number[]

/** Reads the frames of messages as these come, in parts or whole. */
export class MuxReader {
  readonly #onFrame: (frame: MuxFrame) => void
  /** What came of a frame other than DATA, or of a header. */
  #held: Buffer | undefined
  /** Of a DATA frame. */
  #stream = 0
  #flags = 0
  #left = 0

  /** @param onFrame DATA may come as several, of which the last has the flags; a view of what was read. */
  constructor(onFrame: (frame: MuxFrame) => void) {
    this.#onFrame = onFrame
  }

  /** @param end the message ends with this part. @throws MuxError at the first frame that is wrong. */
  read(part: Buffer, end: boolean): void {
    let bytes = part
    for (let at = 0; at < bytes.length;) {
      if (this.#left > 0) {
        const to = Math.min(bytes.length, at + this.#left)
        const data = bytes.subarray(at, to)
        this.#left -= to - at
        at = to
        this.#data(data)
        continue
      }
      if (this.#held !== undefined) {
        bytes = Buffer.concat([this.#held, bytes.subarray(at)])
        this.#held = undefined
        at = 0
      }
      const payload = at + MUX_HEADER_BYTES
      const length = payload > bytes.length ? 0 : bytes.readUIntBE(at, 3)
      const isData = payload <= bytes.length && bytes[at + 3]! >> 4 === DATA
      if (!isData && length > MAX_PAYLOAD_BYTES) throw new MuxError('frame cut off')
      if (payload > bytes.length || (!isData && payload + length > bytes.length)) {
        if (end) throw new MuxError('frame cut off')
        this.#held = Buffer.from(bytes.subarray(at))
        return
      }
      const flags = bytes[at + 3]! & 15
      const stream = bytes.readUInt32BE(at + 4)
      if (isData) {
        checkData(length, flags, stream)
        this.#stream = stream
        this.#flags = flags
        this.#left = length
        if (length === 0) this.#data(NOTHING)
        at = payload
      } else {
        const type = bytes[at + 3]! >> 4
        at = payload + length
        this.#onFrame(frameOf(type, stream, bytes.subarray(payload, at)))
      }
    }
    if (end && (this.#left > 0 || this.#held !== undefined)) throw new MuxError('frame cut off')
  }

  #data(data: Buffer): void {
    const flags = this.#left === 0 ? this.#flags : 0
    const fin = (flags & FIN) !== 0
    this.#onFrame({ kind: 'data', stream: this.#stream, data, fin, blocked: (flags & BLOCKED) !== 0 })
  }
}

const NOTHING = Buffer.alloc(0)

function checkData(length: number, flags: number, stream: number): void {
  if (length > MAX_DATA_BYTES) throw new MuxError('frame of a wrong length', `${length}`)
  if (stream === 0) throw new MuxError('stream where none belongs')
  if (length === 0 && (flags & (FIN | BLOCKED)) === 0) throw new MuxError('empty frame')
}

function frameOf(type: number, stream: number, payload: Buffer): MuxFrame {
  const kind = TYPES[type]
  switch (kind) {
    case 'hello':
    case 'welcome':
      return { kind, text: textOf(payload, MAX_GREETING_BYTES, stream === 0) }
    case 'goaway':
      return { kind, text: textOf(payload, MAX_TEXT_BYTES, stream === 0) }
    case 'ping':
    case 'pong':
      expect(payload, 8, 8, stream === 0)
      return { kind, token: payload }
    case 'open':
      expect(payload, 7, 6 + MAX_HOST_BYTES, stream !== 0)
      return {
        kind,
        stream,
        windowBytes: payload.readUInt32BE(0),
        port: payload.readUInt16BE(4),
        host: utf8(payload.subarray(6)),
      }
    case 'opened':
      expect(payload, 4, 4, stream !== 0)
      return { kind, stream, windowBytes: payload.readUInt32BE(0) }
    case 'window':
      expect(payload, 12, 12, stream !== 0)
      return { kind, stream, consumed: payload.readUIntBE(0, 6), limit: payload.readUIntBE(6, 6) }
    case 'reset': {
      expect(payload, 1, 1 + MAX_TEXT_BYTES, stream !== 0)
      return { kind, stream, reason: RESET_REASONS[payload[0]!] ?? 'broken', text: utf8(payload.subarray(1)) }
    }
    default:
      return { kind: 'unknown' }
  }
}

function expect(payload: Buffer, min: number, max: number, rightStream: boolean): void {
  if (payload.length < min || payload.length > max) throw new MuxError('frame of a wrong length', `${payload.length}`)
  if (!rightStream) throw new MuxError('stream where none belongs')
}

function textOf(payload: Buffer, max: number, rightStream: boolean): string {
  expect(payload, 0, max, rightStream)
  return utf8(payload)
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
function utf8(bytes: Buffer): string {
  try {
    return UTF8.decode(bytes)
  } catch {
    throw new MuxError('text not UTF-8')
  }
}

/** Writes the header of a DATA frame; its payload follows at `offset + MUX_HEADER_BYTES`. */
export function writeDataHeader(target: Buffer, offset: number, stream: number, length: number, flags: number): void {
  writeHeader(target, offset, DATA!, flags, stream, length)
}

/** Any other frame. @throws RangeError for what the other side would end the session for. */
export function encodeMux(frame: SentFrame): Buffer {
  switch (frame.kind) {
    case 'hello':
      return textFrame(HELLO!, frame.text, MAX_GREETING_BYTES)
    case 'welcome':
      return textFrame(WELCOME!, frame.text, MAX_GREETING_BYTES)
    case 'goaway':
      return textFrame(GOAWAY!, clipped(frame.text), MAX_TEXT_BYTES)
    case 'ping':
    case 'pong': {
      const target = frameOfType(frame.kind === 'ping' ? PING! : PONG!, 0, 8)
      target.set(frame.token, MUX_HEADER_BYTES)
      return target
    }
    case 'open': {
      const host = Buffer.from(frame.host, 'utf8')
      if (host.length < 1 || host.length > MAX_HOST_BYTES) throw new RangeError(`a host of ${host.length} bytes`)
      const target = frameOfType(OPEN!, frame.stream, 6 + host.length)
      target.writeUInt32BE(frame.windowBytes, MUX_HEADER_BYTES)
      target.writeUInt16BE(frame.port, MUX_HEADER_BYTES + 4)
      target.set(host, MUX_HEADER_BYTES + 6)
      return target
    }
    case 'opened': {
      const target = frameOfType(OPENED!, frame.stream, 4)
      target.writeUInt32BE(frame.windowBytes, MUX_HEADER_BYTES)
      return target
    }
    case 'window': {
      const target = frameOfType(WINDOW!, frame.stream, 12)
      if (frame.limit > MAX_OFFSET) throw new RangeError('a stream of 256 TiB')
      target.writeUIntBE(frame.consumed, MUX_HEADER_BYTES, 6)
      target.writeUIntBE(frame.limit, MUX_HEADER_BYTES + 6, 6)
      return target
    }
    case 'reset': {
      const text = Buffer.from(clipped(frame.text), 'utf8')
      const target = frameOfType(RESET!, frame.stream, 1 + text.length)
      target[MUX_HEADER_BYTES] = RESET_REASONS.indexOf(frame.reason)
      target.set(text, MUX_HEADER_BYTES + 1)
      return target
    }
  }
}

function textFrame(type: number, text: string, max: number): Buffer {
  const bytes = Buffer.from(text, 'utf8')
  if (bytes.length > max) throw new RangeError(`a text of ${bytes.length} bytes`)
  const target = frameOfType(type, 0, bytes.length)
  target.set(bytes, MUX_HEADER_BYTES)
  return target
}

/** A UTF-16 unit takes at most 3 bytes. */
const clipped = (text: string): string => text.slice(0, Math.floor(MAX_TEXT_BYTES / 3))

function frameOfType(type: number, stream: number, length: number): Buffer {
  if (length > MAX_PAYLOAD_BYTES) throw new RangeError(`a frame of ${length} bytes`)
  const target = Buffer.allocUnsafe(MUX_HEADER_BYTES + length)
  writeHeader(target, 0, type, 0, stream, length)
  return target
}

function writeHeader(
  target: Buffer,
  offset: number,
  type: number,
  flags: number,
  stream: number,
  length: number,
): void {
  target.writeUIntBE(length, offset, 3)
  target[offset + 3] = (type << 4) | flags
  target.writeUInt32BE(stream, offset + 4)
}
