import t from 'tap'
import { fieldPredicate, labelPredicate } from '../../../relay/api/selectors.ts'

const object = {
  metadata: { name: 'p', namespace: 'n', labels: { app: 'web', tier: 'front', 'x.io/y': '' } },
  spec: { nodeName: 'a' },
}
const labels: readonly (readonly [string, boolean])[] = [
  ['app=web', true],
  ['app==web,tier=front', true],
  ['app!=web', false],
  ['none!=web', true],
  ['app', true],
  ['none', false],
  ['!none', true],
  ['! app', false],
  ['x.io/y', true],
  ['x.io/y=', true],
  ['app in (db, web),tier', true],
  ['app notin (db,web)', false],
  ['none notin (db)', true],
  ['none in (db)', false],
  [' app = web ', true],
]
for (const [selector, expected] of labels) t.equal(labelPredicate(selector)?.(object), expected, selector)
t.equal(labelPredicate(''), undefined)
for (const wrong of ['app=a=b', 'app in web', 'a b', 'app in (', '=x', Array(200).fill('a').join(',')])
  t.throws(() => labelPredicate(wrong), { code: 'FULMAR_SELECTOR' }, wrong.slice(0, 20))

const fields: readonly (readonly [string, boolean])[] = [
  ['metadata.name=p', true],
  ['metadata.name=p,metadata.namespace=n', true],
  ['metadata.name!=p', false],
  ['spec.nodeName==a', true],
  ['spec.nodeName=b', false],
]
for (const [selector, expected] of fields) t.equal(fieldPredicate(selector)?.(object), expected, selector)
t.throws(() => fieldPredicate('spec.host=x'), /field label not supported: spec\.host/)
t.throws(() => fieldPredicate('constructor=x'), { code: 'FULMAR_SELECTOR' })
t.throws(() => fieldPredicate('nonsense'), { code: 'FULMAR_SELECTOR' })
