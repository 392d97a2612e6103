import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { constantsIn, quantityText, type Quantity } from '../../deploy/constants.ts'
import { reference } from '../../deploy/reference.ts'

t.test('numbers in source text', (t) => {
  const source = `
/** Of one. */
const PLAIN_MAX = 20_000
export const SHIFTED_BYTES = 4 << 20
const PRODUCT_BYTES = 16 * 1024 * 1024
const OF_OTHERS = 3 * PLAIN_MAX - (2 + 1)
const POWER = 2 ** 4 - 1
const LIMIT = { perSecond: 20, burst: 1_000 }
const TYPED_MS: number = 1500
const CALLED = size(3)
const UNKNOWN = 2 * OTHER
const TEXT = 'x'
  const INNER = 3
`
  const rows: readonly (readonly [string, Quantity | undefined, string])[] = [
    ['PLAIN_MAX', 20_000, '20,000'],
    ['SHIFTED_BYTES', 4_194_304, '4 MiB'],
    ['PRODUCT_BYTES', 16_777_216, '16 MiB'],
    ['OF_OTHERS', 59_997, '59,997'],
    ['POWER', 15, '15'],
    ['LIMIT', { perSecond: 20, burst: 1000 }, '20 per second, 1,000 at once'],
    ['TYPED_MS', 1500, '1,500 ms'],
    ['CALLED', undefined, ''],
    ['UNKNOWN', undefined, ''],
    ['TEXT', undefined, ''],
    ['INNER', undefined, ''],
  ]
  const found = constantsIn(source)
  for (const [name, value, text] of rows) {
    t.strictSame(found.get(name), value, name)
    if (value !== undefined) t.equal(quantityText(name, value), text)
  }
  t.equal(quantityText('X_BYTES', 1500), '1,500 bytes')
  t.equal(quantityText('X_BYTES', 2048), '2 KiB')
  t.equal(quantityText('X_MS', 20_000), '20 s')
  t.equal(quantityText('PINGS_PER_SECOND', 16), '16 per second')
  t.end()
})

t.test('the configuration reference is of this code', (t) => {
  const written = readFileSync(join(import.meta.dirname, '../../deploy/REFERENCE.md'), 'utf8')
  t.equal(written, reference(), 'else run: node deploy/reference.ts')
  t.end()
})
