import t from 'tap'
import { attribute, attributes, textAttribute } from '../../../lib/net/netfilter.ts'
import { random } from '../random.ts'

const NESTED = 0x8000
const texts = (bytes: Buffer) => [...attributes(bytes)].map(([type, value]) => [type, value.toString('hex')])

t.test('attributes, one in another', async (t) => {
  const bytes = attribute(1 | NESTED, attribute(2, Buffer.from([7])), textAttribute(3, 'fm'))
  t.equal(bytes.toString('hex'), '14000180' + '0500020007000000' + '07000300666d0000')
  t.same(texts(bytes), [[1, '050002000700000007000300666d0000']])
  t.same(texts([...attributes(bytes)][0]![1]), [
    [2, '07'],
    [3, '666d00'],
  ])
  t.same(texts(attribute(5)), [[5, '']], 'an empty one')
})

t.test('what is cut short is left out, and all behind it', async (t) => {
  const whole = Buffer.concat([attribute(1, Buffer.from('abcd')), attribute(2, Buffer.from('efgh'))])
  t.same(texts(whole.subarray(0, -1)), [[1, '61626364']])
  t.same(texts(Buffer.from('0300010000000000', 'hex')), [], 'shorter than its own header')
  const next = random(4)
  for (let i = 0; i < 1_000; i++) {
    const bytes = Buffer.from(Array.from({ length: Math.floor(next() * 64) }, () => Math.floor(next() * 256)))
    const read = [...attributes(bytes)].reduce((sum, [, value]) => sum + 4 + value.length, 0)
    if (read > bytes.length) t.fail(`${bytes.toString('hex')}: more than there is`)
  }
})
