import t from 'tap'
import { composePatches, mergePatch, plainStatusPatch, replacingPatch, type Json } from '../../../relay/api/patch.ts'

// RFC 7396, appendix A.
const vectors: readonly (readonly [Json, Json, Json])[] = [
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [
    ['a', 'b'],
    ['c', 'd'],
    ['c', 'd'],
  ],
  [{ a: 'b' }, ['c'], ['c']],
  [{ a: 'foo' }, null, null],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: 'b', c: null }, { a: 'b' }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
]
for (const [target, patch, expected] of vectors)
  t.strictSame(mergePatch(target, patch), expected, JSON.stringify(patch))

t.test('two patches as one', async (t) => {
  const base = { a: { x: 1, y: 2 }, b: 3 }
  const steps: Json[] = [{ a: { x: null } }, { a: { z: 4 } }, { b: null, a: { y: 5 } }, { b: { c: 1 } }]
  const inTurn = steps.reduce<Json>((value, step) => mergePatch(value, step), base)
  const asOne = steps.reduce<Json>((patch, step) => composePatches(patch, step), {})
  t.strictSame(mergePatch(base, asOne), inTurn)
})

t.test('strategic patches of a status merge conditions and addresses by type', async (t) => {
  const status = {
    conditions: [
      { type: 'Ready', status: 'False', reason: 'x' },
      { type: 'Disk', status: 'False' },
    ],
  }
  const patch = {
    $setElementOrder: [],
    conditions: [
      { type: 'Ready', status: 'True' },
      { type: 'New', status: 'True' },
      { type: 'Disk', $patch: 'delete' },
    ],
  }
  t.strictSame(mergePatch(status, plainStatusPatch(status, patch)), {
    conditions: [
      { type: 'Ready', status: 'True', reason: 'x' },
      { type: 'New', status: 'True' },
    ],
  })
})

t.strictSame(mergePatch({ a: 1, b: 2 }, replacingPatch({ a: 1, b: 2 }, { b: 3 })), { b: 3 }, 'a put replaces all')
