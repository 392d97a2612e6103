import t from 'tap'
import {
  closePayload,
  controlFrame,
  acceptOf,
  FrameReader,
  MAX_HEADER_BYTES,
  OPCODE,
  readClosePayload,
  WebSocketError,
  writeHeaderBefore,
} from '../../../lib/wire/websocket.ts'
import { random } from '../random.ts'

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')
type Read = { readonly messages: readonly string[]; readonly controls: readonly string[] }

/** What a reader makes of bytes that come in parts of so many; payloads in hex. */
function read(from: Buffer, masked: boolean, partBytes = Infinity): Read {
  const messages: string[] = []
  const controls: string[] = []
  let message = ''
  const payload = (part: Buffer, end: boolean): void => {
    message += part.toString('hex')
    if (!end) return
    messages.push(message)
    message = ''
  }
  const control = (opcode: number, body: Buffer): void => void controls.push(`${opcode} ${body.toString('hex')}`)
  const reader = new FrameReader({ payload, control }, masked, 70_000)
  for (let at = 0; at < from.length; at += partBytes) reader.read(Buffer.from(from.subarray(at, at + partBytes)))
  return { messages, controls }
}

t.test('the key and its answer, RFC 6455 §1.3', async (t) => {
  t.equal(acceptOf('dGhlIHNhbXBsZSBub25jZQ=='), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
})

t.test('headers', async (t) => {
  const rows: readonly [length: number, masked: boolean, hex: string][] = [
    [0, false, '8200'],
    [125, false, '827d'],
    [126, false, '827e007e'],
    [65_535, false, '827effff'],
    [65_536, false, '827f0000000000010000'],
    [5, true, '828500000000'],
    [256, true, '82fe010000000000'],
    [65_536, true, '82ff000000000001000000000000'],
  ]
  for (const [length, masked, hex] of rows) {
    const target = Buffer.alloc(MAX_HEADER_BYTES + length, 0x61)
    const start = writeHeaderBefore(target, MAX_HEADER_BYTES, OPCODE.binary, length, masked)
    t.equal(target.subarray(start, MAX_HEADER_BYTES).toString('hex'), hex, `${length} bytes`)
    for (const partBytes of [1, 3, Infinity])
      if (partBytes > 1 || length < 300)
        t.same(read(target.subarray(start), masked, partBytes).messages, ['61'.repeat(length)], `${length} bytes back`)
  }
})

t.test('frames that others send', async (t) => {
  const rows: readonly [name: string, masked: boolean, hex: string, messages: string[], controls: string[]][] = [
    ['masked, of RFC 6455 §5.7', true, '8285 37fa213d 7f9f4d5158', ['48656c6c6f'], []],
    ['in fragments, with a ping between', false, '0203 010203 8902 abcd 8002 0405', ['0102030405'], ['9 abcd']],
    ['empty ones', false, '8200 0200 0000 8000', ['', ''], []],
    ['two messages at once', false, '8201 aa 8201 bb', ['aa', 'bb'], []],
    ['a masked ping', true, '8982 01020304 0000', [], ['9 0102']],
    ['an end', false, '8802 03e8', [], ['8 03e8']],
    ['an end without a word', false, '8800', [], ['8 ']],
  ]
  for (const [name, masked, hex, messages, controls] of rows)
    for (const partBytes of [1, 2, 3, 5, Infinity])
      t.same(read(bytes(hex), masked, partBytes), { messages, controls }, `${name}, ${partBytes} at a time`)
})

t.test('what a peer may not send', async (t) => {
  const rows: readonly [name: string, masked: boolean, hex: string, closeCode: number][] = [
    ['text', false, '8101 61', 1008],
    ['compressed', false, 'c201 61', 1002],
    ['an opcode of the future', false, '8301 61', 1002],
    ['a control of the future', false, '8b00', 1002],
    ['what continues nothing', false, '8001 61', 1002],
    ['a message within another', false, '0201 61 8201 61', 1002],
    ['a ping in pieces', false, '0900', 1002],
    ['a long ping', false, '897e007e', 1002],
    ['no mask', true, '8201 61', 1002],
    ['a mask of a server', false, '8281 00000000 61', 1002],
    ['too much', false, '827f 0000000000011171', 1009],
    ['far too much', false, '827f 8000000000000000', 1009],
    ['too much in fragments', false, `027ee000 ${'00'.repeat(0xe000)} 807ee000`, 1009],
  ]
  for (const [name, masked, hex, closeCode] of rows)
    for (const partBytes of [1, Infinity])
      t.throws(() => read(bytes(hex), masked, partBytes), { name: 'ProtocolError', closeCode }, name)
})

t.test('control frames', async (t) => {
  t.equal(controlFrame(OPCODE.ping, bytes('0102'), false).toString('hex'), '89020102')
  t.equal(controlFrame(OPCODE.close, closePayload(1008, 'no'), true).toString('hex'), '88840000000003f06e6f')
  t.same(readClosePayload(closePayload(4002, 'the certificate expired')), {
    ...{ code: 4002, reason: 'the certificate expired' },
  })
  t.equal(closePayload(1000, 'x'.repeat(500)).length, 125)
  t.same(readClosePayload(Buffer.alloc(0)), { code: 1005, reason: '' })
})

t.test('random bytes are frames or a named error', async (t) => {
  const next = random(13)
  let messages = 0
  let errors = 0
  for (let i = 0; i < 20_000; i++) {
    const from = Buffer.from(Array.from({ length: Math.floor(next() * 40) }, () => Math.floor(next() * 256)))
    if (from.length > 1 && i % 2 === 0) from.writeUInt16BE(0x8200 + Math.floor(next() * 20))
    try {
      messages += read(from, next() < 0.5, 1 + Math.floor(next() * 9)).messages.length
    } catch (error) {
      if (!(error instanceof WebSocketError)) throw error
      errors++
    }
  }
  t.ok(messages > 100 && errors > 5000, `${messages} messages, ${errors} errors`)
})
