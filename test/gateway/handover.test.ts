import { randomBytes } from 'node:crypto'
import t from 'tap'
import { decodeHandover, encodeHandover, HANDOVER_KINDS, type HandoverMessage } from '../../gateway/handover.ts'

const LEFT: HandoverMessage = { kind: 'left', reply: false, id: 0x01020304, successor: 'bay2', port: 0 }

t.test('bytes', async (t) => {
  t.equal(encodeHandover(LEFT).toString('hex'), `464d484f 01 03 00 00 01020304 0000 04 62617932`.replaceAll(' ', ''))
  for (const kind of HANDOVER_KINDS)
    for (const message of [
      { ...LEFT, kind },
      { ...LEFT, kind, reply: true, port: 65_535, successor: '' },
      { ...LEFT, kind, id: 2 ** 32 - 1, successor: 'x'.repeat(253) },
    ])
      t.strictSame(decodeHandover(encodeHandover(message)), message)
  t.throws(() => encodeHandover({ ...LEFT, successor: 'x'.repeat(254) }), RangeError)
})

t.test('what is not understood', async (t) => {
  const whole = encodeHandover(LEFT)
  const changed = (at: number, value: number) => {
    const copy = Buffer.from(whole)
    copy[at] = value
    return copy
  }
  for (const [name, datagram] of [
    ['empty', Buffer.alloc(0)],
    ['another magic', changed(3, 0)],
    ['a later version', changed(4, 2)],
    ['no kind', changed(5, 0)],
    ['a kind that is not known', changed(5, 4)],
    ['a name that goes on behind the end', changed(14, 5)],
    ['cut short', whole.subarray(0, 14)],
  ] as const)
    t.equal(decodeHandover(datagram), undefined, name)
  t.strictSame(decodeHandover(Buffer.concat([whole, Buffer.of(1, 2)])), LEFT, 'later fields are ignored')
  for (let i = 0; i < 1_000; i++) {
    const noise = randomBytes(i % 40)
    whole.copy(noise, 0, 0, Math.min(6, noise.length))
    t.doesNotThrow(() => decodeHandover(noise))
  }
})
