// Frames of WebSocket (RFC 6455 §5) for those who carry much: payloads pass as they come, without being put together, and
// headers are written into the buffer that holds the payload.
//
//    0        1        2
//   +--------+--------+- - - - - - - - - -+- - - - - -+- - - -
//   |F opcode|M length| u16 or u64 length | 4 B mask  | payload       F: last of its message, M: masked, as clients must
//   +--------+--------+- - - - - - - - - -+- - - - - -+- - - -

import { createHash } from 'node:crypto'
import { ProtocolError } from './signal.ts'

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const
/** Of the first byte, and of the second. */
const LAST = 0x80
const RESERVED = 0x70
const MASKED = 0x80
/** The longest header of what is sent here: 64 bits of length and a mask. */
export const MAX_HEADER_BYTES = 14
const MASK_BYTES = 4
const MAX_CONTROL_BYTES = 125
/** What stands in the place of a length: `most` that is one, and which longer ones follow. */
const SHORT = { most: 125, then16: 126, then64: 127 } as const

/** §7.4.1, as far as they are used here. */
export const CLOSE_CODE = {
  normal: 1000,
  protocol: 1002,
  none: 1005,
  abnormal: 1006,
  policy: 1008,
  tooLong: 1009,
} as const

export class WebSocketError extends ProtocolError {
  /** To close with. */
  readonly closeCode: number
  constructor(closeCode: number, message: string) {
    super(message)
    this.closeCode = closeCode
  }
}

/** §4.2.2: what proves that a key was read by who speaks WebSocket. */
export const acceptOf = (key: string): string =>
  createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')

/**
 * Writes the header of a frame that is a whole message so that it ends where the payload starts.
 * @param start where the payload is in `target`, MAX_HEADER_BYTES or more.
 * @param masked as clients must: by a key of zeros, under which the payload stays as it is.
 * @returns where the frame starts.
 */
export function writeHeaderBefore(
  target: Buffer,
  start: number,
  opcode: number,
  length: number,
  masked: boolean,
): number {
  let at = start
  if (masked) target.fill(0, (at -= MASK_BYTES), start)
  let short = length
  if (length > 0xffff) {
    target.writeUIntBE(length, (at -= 6), 6)
    target.writeUInt16BE(0, (at -= 2))
    short = SHORT.then64
  } else if (length > SHORT.most) {
    target.writeUInt16BE(length, (at -= 2))
    short = SHORT.then16
  }
  target[--at] = short | (masked ? MASKED : 0)
  target[--at] = LAST | opcode
  return at
}

/** A whole control frame. */
export function controlFrame(opcode: number, payload: Buffer, masked: boolean): Buffer {
  const target = Buffer.alloc(MAX_HEADER_BYTES + payload.length)
  payload.copy(target, MAX_HEADER_BYTES)
  return target.subarray(writeHeaderBefore(target, MAX_HEADER_BYTES, opcode, payload.length, masked))
}

/** The payload of a CLOSE; the reason is cut to what one holds. */
export function closePayload(code: number, reason: string): Buffer {
  const text = Buffer.from(reason, 'utf8').subarray(0, MAX_CONTROL_BYTES - 2)
  const payload = Buffer.alloc(2 + text.length)
  payload.writeUInt16BE(code)
  payload.set(text, 2)
  return payload
}

/** Where none is given, `none`, as §7.1.5 has it. */
export const readClosePayload = (payload: Buffer): { readonly code: number; readonly reason: string } =>
  payload.length < 2
    ? { code: CLOSE_CODE.none, reason: '' }
    : { code: payload.readUInt16BE(), reason: payload.toString('utf8', 2) }

export type FrameEvents = {
  /**
   * The next bytes of a binary message. @param bytes a view of what was read; empty where a message ends by an empty frame.
   * @param end no more of this message follows.
   */
  readonly payload: (bytes: Buffer, end: boolean) => void
  readonly control: (opcode: number, payload: Buffer) => void
}

const NOTHING = Buffer.alloc(0)

/** Reads the frames of a peer, wherever TCP cuts them. */
export class FrameReader {
  readonly #events: FrameEvents
  readonly #masked: boolean
  readonly #maxMessageBytes: number
  /** What came of a header or of a control frame that is not whole yet. */
  #held: Buffer | undefined
  /** Bytes of the frame's payload that are still to come; -1 between frames. */
  #left = -1
  #last = false
  #messageBytes = 0
  #inMessage = false
  /** Undefined for a key of zeros. */
  #mask: Buffer | undefined
  #maskAt = 0

  /** @param masked whether the peer is a client, who must mask. */
  constructor(events: FrameEvents, masked: boolean, maxMessageBytes: number) {
    this.#events = events
    this.#masked = masked
    this.#maxMessageBytes = maxMessageBytes
  }

  /** @param chunk may be changed here. @throws WebSocketError */
  read(chunk: Buffer): void {
    let bytes = chunk
    for (let at = 0; at < bytes.length || this.#left === 0;) {
      if (this.#left >= 0) {
        const end = Math.min(bytes.length, at + this.#left)
        const part = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end)
        this.#left -= end - at
        at = end
        this.#unmask(part)
        const last = this.#left === 0
        if (last) this.#left = -1
        if (last && this.#last) this.#inMessage = false
        this.#events.payload(part, last && this.#last)
        continue
      }
      if (this.#held !== undefined) {
        bytes = Buffer.concat([this.#held, bytes.subarray(at)])
        this.#held = undefined
        at = 0
      }
      const next = this.#header(bytes, at)
      if (next === undefined) {
        this.#held = Buffer.from(bytes.subarray(at))
        return
      }
      at = next
    }
  }

  /** Reads a header, and of a control frame all. @returns where it ends; undefined if it is not whole. */
  #header(bytes: Buffer, start: number): number | undefined {
    if (bytes.length - start < 2) return undefined
    const [first, second] = [bytes[start]!, bytes[start + 1]!]
    const opcode = first & 0x0f
    const masked = (second & MASKED) !== 0
    let length = second & 0x7f
    let at = start + 2
    if ((first & RESERVED) !== 0) throw new WebSocketError(CLOSE_CODE.protocol, 'reserved bits')
    if (masked !== this.#masked)
      throw new WebSocketError(CLOSE_CODE.protocol, masked ? 'masked by a server' : 'not masked by a client')
    const isControl = opcode >= OPCODE.close
    const isLast = (first & LAST) !== 0
    if (isControl && (!isLast || length > MAX_CONTROL_BYTES))
      throw new WebSocketError(CLOSE_CODE.protocol, 'control frame')
    if (length === SHORT.then16) {
      if (bytes.length < at + 2) return undefined
      length = bytes.readUInt16BE(at)
      at += 2
    } else if (length === SHORT.then64) {
      if (bytes.length < at + 8) return undefined
      length = bytes.readUInt16BE(at) === 0 ? bytes.readUIntBE(at + 2, 6) : Infinity
      at += 8
    }
    if (masked) {
      if (bytes.length < at + MASK_BYTES) return undefined
      this.#mask = bytes.readUInt32BE(at) === 0 ? undefined : Buffer.from(bytes.subarray(at, at + MASK_BYTES))
      this.#maskAt = 0
      at += MASK_BYTES
    }
    if (!isControl) {
      this.#beginPayload(opcode, isLast, length)
      return at
    }
    if (opcode > OPCODE.pong) throw new WebSocketError(CLOSE_CODE.protocol, `opcode ${opcode}`)
    if (bytes.length < at + length) return undefined
    const payload = length === 0 ? NOTHING : bytes.subarray(at, at + length)
    this.#unmask(payload)
    this.#events.control(opcode, payload)
    return at + length
  }

  #beginPayload(opcode: number, isLast: boolean, length: number): void {
    if (opcode === OPCODE.text) throw new WebSocketError(CLOSE_CODE.policy, 'text message')
    if (opcode !== (this.#inMessage ? OPCODE.continuation : OPCODE.binary))
      throw new WebSocketError(CLOSE_CODE.protocol, `opcode ${opcode}`)
    if (!this.#inMessage) this.#messageBytes = 0
    this.#messageBytes += length
    if (this.#messageBytes > this.#maxMessageBytes) throw new WebSocketError(CLOSE_CODE.tooLong, 'message too long')
    this.#inMessage = true
    this.#left = length
    this.#last = isLast
  }

  #unmask(part: Buffer): void {
    const mask = this.#mask
    if (mask === undefined) return
    const turn = this.#maskAt
    for (let i = 0; i < part.length; i++) part[i]! ^= mask[(turn + i) & 3]!
    this.#maskAt = (turn + part.length) & 3
  }
}
