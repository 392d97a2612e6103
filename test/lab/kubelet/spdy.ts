// SPDY/3.1 frames as Kubernetes' clients use them. Go's spdystream has neither priorities nor flow control per stream, so
// WINDOW_UPDATE and SETTINGS say nothing here.
//
//   control  1 | version 3 (15 bits) | type (16) | flags (8) | length (24) | …
//   data     0 | stream (31)                     | flags (8) | length (24) | bytes
//   headers  count (32) | { name length (32), name, value length (32), value } …, deflated with a dictionary, one zlib
//            stream for each direction of a connection

import { constants, createDeflate, createInflate, type Deflate, type Inflate } from 'node:zlib'

export type Headers = Readonly<Record<string, string>>
export type Frame =
  | { readonly kind: 'syn-stream'; readonly stream: number; readonly fin: boolean; readonly block: Buffer }
  | { readonly kind: 'headers'; readonly stream: number; readonly fin: boolean; readonly block: Buffer }
  | { readonly kind: 'data'; readonly stream: number; readonly fin: boolean; readonly bytes: Buffer }
  | { readonly kind: 'rst-stream'; readonly stream: number }
  | { readonly kind: 'ping'; readonly id: number }
  | { readonly kind: 'goaway' }
  | { readonly kind: 'other' }

export class SpdyError extends Error {
  readonly code = 'SPDY_PROTOCOL'
  override readonly name = 'SpdyError'
}

const HEADER_BYTES = 8
/** A client of Kubernetes sends 32 KiB at the most. */
const FRAME_MAX_BYTES = 1 << 20
const HEADERS_MAX = 64
const VERSION = 3
const FIN = 1
const TYPES = { synStream: 1, synReply: 2, rstStream: 3, ping: 6, goaway: 7, headers: 8 } as const
const CANCEL = 5

/** Whole frames of what has come so far. @throws SpdyError */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): readonly Frame[] {
    let rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const frames: Frame[] = []
    while (rest.length >= HEADER_BYTES) {
      const length = rest.readUIntBE(5, 3)
      if (length > FRAME_MAX_BYTES) throw new SpdyError(`a frame of ${length} bytes`)
      if (rest.length < HEADER_BYTES + length) break
      frames.push(decode(rest.subarray(0, HEADER_BYTES + length)))
      rest = rest.subarray(HEADER_BYTES + length)
    }
    this.#rest = rest
    return frames
  }
}

function decode(frame: Buffer): Frame {
  const first = frame.readUInt32BE(0)
  const fin = (frame[4]! & FIN) !== 0
  const body = frame.subarray(HEADER_BYTES)
  if (first < 0x8000_0000) return { kind: 'data', stream: first, fin, bytes: body }
  if (((first >>> 16) & 0x7fff) !== VERSION) throw new SpdyError('is not SPDY/3')
  const number = (): number => {
    if (body.length < 4) throw new SpdyError('a control frame is cut short')
    return body.readUInt32BE(0) & 0x7fff_ffff
  }
  switch (first & 0xffff) {
    case TYPES.synStream:
      return { kind: 'syn-stream', stream: number(), fin, block: body.subarray(10) }
    case TYPES.headers:
      return { kind: 'headers', stream: number(), fin, block: body.subarray(4) }
    case TYPES.rstStream:
      return { kind: 'rst-stream', stream: number() }
    case TYPES.ping:
      return { kind: 'ping', id: body.length < 4 ? 0 : body.readUInt32BE(0) }
    case TYPES.goaway:
      return { kind: 'goaway' }
    default:
      return { kind: 'other' }
  }
}

export function encodeData(stream: number, bytes: Uint8Array, fin: boolean): readonly Uint8Array[] {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32BE(stream, 0)
  header.writeUInt32BE(((fin ? FIN : 0) << 24) | bytes.length, 4)
  return bytes.length === 0 ? [header] : [header, bytes]
}

export const encodeReply = (stream: number, block: Buffer): Buffer =>
  control(TYPES.synReply, Buffer.concat([uint32(stream), block]))
export const encodeReset = (stream: number): Buffer =>
  control(TYPES.rstStream, Buffer.concat([uint32(stream), uint32(CANCEL)]))
export const encodePing = (id: number): Buffer => control(TYPES.ping, uint32(id))
export const encodeGoaway = (lastStream: number): Buffer =>
  control(TYPES.goaway, Buffer.concat([uint32(lastStream), uint32(0)]))

function control(type: number, body: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt16BE(0x8000 | VERSION, 0)
  header.writeUInt16BE(type, 2)
  header.writeUInt32BE(body.length, 4)
  return Buffer.concat([header, body])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** The header blocks of one connection: each depends on those before it, so that they must be taken in order. */
export class HeaderBlocks {
  readonly #inflate: Inflate = createInflate({ dictionary: DICTIONARY })
  readonly #deflate: Deflate = createDeflate({ dictionary: DICTIONARY, flush: constants.Z_SYNC_FLUSH })

  constructor() {
    // A failure is the answer of the block that it came with.
    for (const stream of [this.#inflate, this.#deflate]) stream.on('error', () => {})
  }

  /** @throws SpdyError */
  async decode(block: Buffer): Promise<Headers> {
    return readHeaders(await through(this.#inflate, block))
  }

  encode(headers: Headers): Promise<Buffer> {
    const entries = Object.entries(headers)
    const texts = entries.flat().flatMap((text) => [uint32(Buffer.byteLength(text)), Buffer.from(text)])
    return through(this.#deflate, Buffer.concat([uint32(entries.length), ...texts]))
  }

  close(): void {
    this.#inflate.close()
    this.#deflate.close()
  }
}

function through(stream: Inflate | Deflate, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const settled = (): void => {
      stream.off('data', take)
      stream.off('error', fail)
    }
    const take = (chunk: Buffer): void => void chunks.push(chunk)
    const fail = (cause: Error): void => {
      settled()
      reject(new SpdyError('a header block cannot be read', { cause }))
    }
    stream.on('data', take)
    stream.once('error', fail)
    // All that it gives for this comes before it says that it is done.
    stream.write(bytes, () => {
      settled()
      resolve(Buffer.concat(chunks))
    })
  })
}

function readHeaders(bytes: Buffer): Headers {
  let at = 0
  const number = (): number => {
    if (at + 4 > bytes.length) throw new SpdyError('a header block is cut short')
    at += 4
    return bytes.readUInt32BE(at - 4)
  }
  const text = (): string => {
    const length = number()
    if (at + length > bytes.length) throw new SpdyError('a header block is cut short')
    at += length
    return bytes.toString('utf8', at - length, at)
  }
  const count = number()
  if (count > HEADERS_MAX) throw new SpdyError(`${count} headers`)
  return Object.fromEntries(Array.from({ length: count }, () => [text().toLowerCase(), text()]))
}

/** SPDY/3 draft §2.6.10.1: 1423 bytes with the Adler-32 sum e3c6a7c2. */
const WORDS =
  'options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow ' +
  'authorization cache-control connection content-base content-encoding content-language content-length ' +
  'content-location content-md5 content-range content-type date etag expect expires from host if-match ' +
  'if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma ' +
  'proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade ' +
  'user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie ' +
  'keep-alive origin'
const TAIL =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505' +
  '203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized' +
  '403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable' +
  'Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT' +
  'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,' +
  'text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.'
export const DICTIONARY: Buffer = Buffer.concat([
  ...WORDS.split(' ').flatMap((word) => [uint32(word.length), Buffer.from(word.replace('_', ' '))]),
  Buffer.from(TAIL),
])
