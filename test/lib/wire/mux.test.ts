import t from 'tap'
import {
  encodeMux,
  MAX_DATA_BYTES,
  MAX_GREETING_BYTES,
  MAX_TEXT_BYTES,
  MUX_HEADER_BYTES,
  MuxError,
  MuxReader,
  writeDataHeader,
  type MuxFrame,
  type SentFrame,
} from '../../../lib/wire/mux.ts'
import { random } from '../random.ts'

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')
/** The frames of a whole message; it comes in parts of so many bytes. */
function framesOf(message: Buffer, partBytes = Infinity): readonly MuxFrame[] {
  const frames: MuxFrame[] = []
  const reader = new MuxReader((frame) => frames.push(frame))
  for (let at = 0; at < message.length; at += partBytes)
    reader.read(message.subarray(at, at + partBytes), at + partBytes >= message.length)
  return frames
}
const token = bytes('0102030405060708')

const SENT: readonly [frame: SentFrame, hex: string][] = [
  [{ kind: 'hello', text: '{}' }, '000002 00 00000000 7b7d'],
  [{ kind: 'welcome', text: '{}' }, '000002 10 00000000 7b7d'],
  [
    { kind: 'open', stream: 7, windowBytes: 0x40000, host: 'edge-7', port: 10250 },
    '00000c 20 00000007 00040000 280a 656467652d37',
  ],
  [{ kind: 'opened', stream: 7, windowBytes: 0x4000 }, '000004 30 00000007 00004000'],
  [
    { kind: 'window', stream: 0xffffffff, consumed: 0x010203040506, limit: 0x0fffffffffff },
    '00000c 50 ffffffff 010203040506 0fffffffffff',
  ],
  [{ kind: 'reset', stream: 7, reason: 'refused', text: 'no' }, '000003 60 00000007 01 6e6f'],
  [{ kind: 'ping', token }, '000008 70 00000000 0102030405060708'],
  [{ kind: 'pong', token }, '000008 80 00000000 0102030405060708'],
  [{ kind: 'goaway', text: 'bye' }, '000003 90 00000000 627965'],
]

t.test('frames as they are on the wire', async (t) => {
  for (const [frame, hex] of SENT) {
    t.same(encodeMux(frame), bytes(hex), frame.kind)
    t.same(framesOf(bytes(hex)), [frame], `${frame.kind} back`)
  }
  const all = Buffer.concat(SENT.map(([, hex]) => bytes(hex)))
  t.same(
    framesOf(all),
    SENT.map(([frame]) => frame),
    'several in one message',
  )
  for (const partBytes of [1, 2, 7, 8, 9, 13])
    t.same(
      framesOf(all, partBytes),
      SENT.map(([frame]) => frame),
      `in parts of ${partBytes} bytes`,
    )
})

t.test('data', async (t) => {
  const rows: readonly [flags: number, payload: string, fin: boolean, blocked: boolean][] = [
    [0, 'abc', false, false],
    [1, '', true, false],
    [2, 'x', false, true],
    [3, '', true, true],
    [12, 'flags of a later version', false, false],
  ]
  for (const [flags, payload, fin, blocked] of rows) {
    const message = Buffer.alloc(MUX_HEADER_BYTES + payload.length)
    writeDataHeader(message, 0, 9, payload.length, flags)
    message.write(payload, MUX_HEADER_BYTES)
    t.same(framesOf(message), [{ kind: 'data', stream: 9, data: Buffer.from(payload), fin, blocked }], payload)
  }
})

t.test('data comes as it is read, and its flags at its end', async (t) => {
  const message = Buffer.alloc(2 * MUX_HEADER_BYTES + 10)
  writeDataHeader(message, 0, 9, 10, 3)
  message.write('0123456789', MUX_HEADER_BYTES)
  writeDataHeader(message, MUX_HEADER_BYTES + 10, 7, 0, 1)
  const part = (data: string, last: boolean) => ({
    ...{ kind: 'data', stream: 9, data: Buffer.from(data), fin: last, blocked: last },
  })
  const end = { kind: 'data', stream: 7, data: Buffer.alloc(0), fin: true, blocked: false }
  t.same(framesOf(message, 12), [part('0123', false), part('456789', true), end])
  t.same(framesOf(message, 9), [part('0', false), part('123456789', true), end])
})

t.test('what a peer may not send', async (t) => {
  const long = (type: string, stream: string, length: number): Buffer =>
    Buffer.concat([bytes(`${length.toString(16).padStart(6, '0')} ${type} ${stream}`), Buffer.alloc(length, 0x61)])
  const rows: readonly [name: string, message: Buffer, violation: string][] = [
    ['half a header', bytes('000000 40'), 'frame cut off'],
    ['less than its length says', bytes('000003 40 00000001 6161'), 'frame cut off'],
    ['the longest length', bytes('ffffff 40 00000001'), 'frame of a wrong length'],
    ['the longest of another type', bytes('ffffff f0 00000001'), 'frame cut off'],
    ['half of the second', bytes('000001 40 00000001 61 0000'), 'frame cut off'],
    ['data that is too long', long('40', '00000001', MAX_DATA_BYTES + 1), 'frame of a wrong length'],
    ['nothing, for nothing', bytes('000000 40 00000001'), 'empty frame'],
    ['data of no stream', bytes('000001 40 00000000 61'), 'stream where none belongs'],
    ['a ping of a stream', bytes('000008 70 00000001 0102030405060708'), 'stream where none belongs'],
    ['a greeting of a stream', bytes('000002 00 00000001 7b7d'), 'stream where none belongs'],
    ['a ping of 7 bytes', bytes('000007 70 00000000 01020304050607'), 'frame of a wrong length'],
    ['open without a host', bytes('000006 20 00000001 00040000 280a'), 'frame of a wrong length'],
    ['a host that is too long', long('20', '00000001', 6 + 254), 'frame of a wrong length'],
    ['a host that is no text', bytes('000007 20 00000001 00040000 280a ff'), 'text not UTF-8'],
    ['opened with more', bytes('000005 30 00000001 0000400000'), 'frame of a wrong length'],
    ['half a window', bytes('000006 50 00000001 010203040506'), 'frame of a wrong length'],
    ['a reset without a reason', bytes('000000 60 00000001'), 'frame of a wrong length'],
    ['a reset with a book', long('60', '00000001', MAX_TEXT_BYTES + 2), 'frame of a wrong length'],
    ['a farewell like that', long('90', '00000000', MAX_TEXT_BYTES + 1), 'frame of a wrong length'],
    ['a greeting that is too long', long('00', '00000000', MAX_GREETING_BYTES + 1), 'frame of a wrong length'],
  ]
  for (const [name, message, violation] of rows)
    for (const partBytes of [1, 5, Infinity])
      t.throws(() => framesOf(message, partBytes), { name: 'ProtocolError', violation }, name)
})

t.test('of later versions', async (t) => {
  t.same(framesOf(bytes('000002 f5 12345678 0102')), [{ kind: 'unknown' }])
  t.same(
    framesOf(bytes('000001 60 00000007 fe')),
    [{ kind: 'reset', stream: 7, reason: 'broken', text: '' }],
    'a reason that is not known',
  )
})

t.test('what is not sent', async (t) => {
  t.throws(() => encodeMux({ kind: 'open', stream: 1, windowBytes: 1, host: '', port: 1 }), RangeError)
  t.throws(() => encodeMux({ kind: 'open', stream: 1, windowBytes: 1, host: 'x'.repeat(254), port: 1 }), RangeError)
  t.throws(() => encodeMux({ kind: 'hello', text: 'x'.repeat(MAX_GREETING_BYTES + 1) }), RangeError)
  t.throws(() => encodeMux({ kind: 'window', stream: 1, consumed: 0, limit: 2 ** 48 }), RangeError)
  const [cut] = framesOf(encodeMux({ kind: 'reset', stream: 1, reason: 'failed', text: '€'.repeat(600) }))
  t.match(cut, { kind: 'reset', text: '€'.repeat(170) }, 'a long reason is cut')
})

t.test('random bytes are frames or a named error', async (t) => {
  const next = random(11)
  let frames = 0
  let errors = 0
  for (let i = 0; i < 20_000; i++) {
    const message = Buffer.from(Array.from({ length: Math.floor(next() * 60) }, () => Math.floor(next() * 256)))
    // Short lengths, or nearly every message would be cut off at once.
    if (message.length > 3) message.fill(0, 0, 2)
    try {
      const partBytes = 1 + Math.floor(next() * 20)
      const reader = new MuxReader((frame) => void (frame.kind && frames++))
      for (let at = 0; at < message.length; at += partBytes)
        reader.read(message.subarray(at, at + partBytes), at + partBytes >= message.length)
    } catch (error) {
      if (!(error instanceof MuxError)) throw error
      errors++
    }
  }
  t.ok(frames > 500 && errors > 5000, `${frames} frames, ${errors} errors`)
})
