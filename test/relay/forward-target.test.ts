import t from 'tap'
import { decodeTarget, encodeTarget } from '../../relay/forward-target.ts'

t.test('what a stream is opened to', (t) => {
  for (const [node, host] of [
    ['edge-7', 'edge-7'],
    ['edge-7', '192.0.2.1'],
    ['edge-7', 'fd00::1'],
    ['a.b', 'nas.lan'],
  ] as const)
    t.same(decodeTarget(encodeTarget(node, host)!), { node, host })
  t.equal(encodeTarget('edge-7', 'x'.repeat(247)), undefined)
  t.end()
})
