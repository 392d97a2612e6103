import t from 'tap'
import {
  bindFrame,
  boundNode,
  dataFrame,
  indexOf,
  kindOf,
  MAX_INDEX,
  MAX_PACKET_FRAME_BYTES,
  PACKET_HEADER_BYTES,
  packetOf,
  setIndex,
} from '../../../lib/wire/packet-frame.ts'

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex')

t.test('frames have these bytes', async (t) => {
  t.same(dataFrame(0x01020304, hex('aabb')), hex('01 00 01020304 aabb'))
  t.same(dataFrame(MAX_INDEX, hex('')), hex('01 00 ffffffff'))
  t.same(bindFrame(7, 'h1'), hex('01 01 00000007 6831'))
})

t.test('what is written is read', async (t) => {
  for (const index of [0, 1, 255, 256, 65_536, 0x7fffffff, 0x80000000, MAX_INDEX]) {
    const frame = dataFrame(index, hex('010203'))
    t.equal(kindOf(frame), 'data')
    t.equal(indexOf(frame), index)
    t.same(packetOf(frame), hex('010203'))
    setIndex(frame, MAX_INDEX - index)
    t.equal(indexOf(frame), MAX_INDEX - index)
    t.same(packetOf(frame), hex('010203'), 'the packet is untouched')
  }
  for (const node of ['h', 'edge-1.example', 'ß', 'n'.repeat(253)]) t.equal(boundNode(bindFrame(1, node)), node)
})

t.test('what is wrong is refused', async (t) => {
  const rows: readonly [name: string, bytes: string, error: RegExp][] = [
    ['nothing', '', /of 0 bytes/],
    ['half a header', '01 00 000000', /of 5 bytes/],
    ['another version', '02 00 00000000', /version 2/],
  ]
  for (const [name, bytes, error] of rows)
    t.throws(() => kindOf(hex(bytes)), { code: 'FULMAR_PROTOCOL', message: error }, name)
  t.throws(() => boundNode(hex('01 01 00000000')), /name of 0 bytes/)
  t.throws(() => boundNode(hex('01 01 00000000 ff')), /not UTF-8/)
  t.throws(() => boundNode(Buffer.concat([hex('01 01 00000000'), Buffer.alloc(254, 'a')])), /name of 254 bytes/)
  t.throws(() => bindFrame(0, 'n'.repeat(254)), RangeError)
  t.throws(() => bindFrame(0, ''), RangeError)
  t.throws(() => dataFrame(0, Buffer.alloc(MAX_PACKET_FRAME_BYTES - PACKET_HEADER_BYTES + 1)), RangeError)
  t.equal(kindOf(hex('01 09 00000000')), 'unknown', 'a later version may say more')
})

t.test('random bytes are a frame or a ProtocolError', async (t) => {
  let frames = 0
  for (let i = 0; i < 20_000; i++) {
    const bytes = crypto.getRandomValues(Buffer.alloc(i % 40))
    // Else most would fail at the version.
    if (bytes.length > 1 && i % 2 === 0) bytes.set([1, i % 3])
    try {
      if (kindOf(bytes) === 'bind') boundNode(bytes)
      frames++
      if (indexOf(bytes) > MAX_INDEX) t.fail(`index ${indexOf(bytes)}`)
    } catch (error) {
      if ((error as { code?: string }).code !== 'FULMAR_PROTOCOL') t.fail(`${bytes.toString('hex')}: ${error}`)
    }
  }
  t.ok(frames > 1000, 'some were frames')
})
