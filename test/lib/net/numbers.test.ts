import t from 'tap'
import { numbersOf, numbersOptions } from '../../../lib/common-options.ts'
import { parseOptions } from '../../../lib/config.ts'
import { renumbering } from '../../../lib/net/numbers.ts'
import { MESH_RULES } from '../../../lib/net/route-table.ts'
import { NUMBERS } from '../../../lib/owned.ts'

const read = (...argv: readonly string[]) => {
  const parsed = parseOptions(numbersOptions, argv, {})
  return parsed.kind === 'ok' ? numbersOf(parsed.values) : parsed
}

t.test('flags', (t) => {
  t.same(read(), NUMBERS)
  t.same(read('--route-table', '900', '--rule-preference', '40', '--fwmark', '0x20/0x60'), {
    routeTable: 900,
    returnTable: 901,
    rulePreference: 40,
    returnPreference: 39,
    mark: 0x20,
    markMask: 0x60,
  })
  for (const [mark, reason] of [
    ['7', /is not MARK\/MASK in hex/],
    ['0x0/0xff', /has no bit/],
    ['0x81/0x7f', /bits outside of its mask/],
  ] as const)
    t.match(read('--fwmark', mark), { errors: [reason] }, mark)
  t.match(read('--route-table', '254'), { errors: [/--route-table "254"/] }, 'main')
  t.end()
})

t.test('there and back', (t) => {
  const numbers = read('--route-table', '900', '--rule-preference', '40', '--fwmark', '0x80000000/0xf0000000')
  const { toKernel, fromKernel, mark } = renumbering(numbers as typeof NUMBERS)
  t.same(toKernel.table({ table: 7077 }), { table: 900 })
  t.same(toKernel.table({ table: 7078 }), { table: 901 })
  t.same(toKernel.table({ table: 254 }), { table: 254 })
  t.same(fromKernel.table({ table: 901 }), { table: 7078 })
  t.not(fromKernel.table({ table: 7077 }).table, 7077, "somebody else's here")
  t.equal(mark(0x46000000), 0x80000000)
  t.equal(mark(0), 0)
  for (const rule of MESH_RULES) t.same(fromKernel.rule(toKernel.rule(rule)), rule)
  // Those of a predecessor with the usual numbers are removed as what they are in the kernel.
  for (const rule of MESH_RULES) t.same(toKernel.rule(fromKernel.rule(rule)), rule)
  const asIs = renumbering(NUMBERS)
  for (const rule of MESH_RULES) t.same(asIs.toKernel.rule(rule), rule)
  t.end()
})
