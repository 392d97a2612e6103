import t from 'tap'
import { preferenceOf } from '../../agent/preference.ts'

t.test('the annotation fulmar.dev/topology', async (t) => {
  const rows: readonly (readonly [text: string, expected: ReturnType<typeof preferenceOf>])[] = [
    ['node: prefer', { levels: ['node'], strict: false }],
    ['pool:strict', { levels: ['pool'], strict: true }],
    [' node , pool,zone : prefer ', { levels: ['node', 'pool', 'zone'], strict: false }],
    ['', { mistake: '"" is none of node, pool and zone' }],
    ['rack: prefer', { mistake: '"rack" is none of node, pool and zone' }],
    ['node,,pool: prefer', { mistake: '"" is none of node, pool and zone' }],
    ['node, node: prefer', { mistake: 'names a level twice' }],
    ['node', { mistake: 'does not say whether others may be used' }],
    ['node: maybe', { mistake: '"maybe" is neither prefer nor strict' }],
    ['node: strict: strict', { mistake: '"strict:strict" is neither prefer nor strict' }],
  ]
  for (const [text, expected] of rows) t.strictSame(preferenceOf(text), expected, text)
})
