import { randomBytes } from 'node:crypto'
import t from 'tap'
import { decodePresence, encodePresence, Presence } from '../../relay/presence.ts'

t.test('what replicas say', (t) => {
  const frame = { here: ['edge-7'], gone: [['edge-8', 840_000]] } as const
  t.same(decodePresence(encodePresence(frame)), frame)
  t.same(decodePresence('{"version":2,"more":1}'), { here: [], gone: [] }, 'unknown fields')
  const long = Array.from({ length: 1001 }, () => 'x')
  const rows: readonly string[] = [
    ...['', '[', '1,', '{"here":1}', '{"here":[1]}', '{"gone":["edge-8"]}', '{"gone":[["edge-8","x"]]}'],
    ...['{"gone":[["edge-8",-1]]}', JSON.stringify({ here: long }), randomBytes(20).toString('latin1')],
  ]
  for (const text of rows) t.equal(decodePresence(text), undefined, text.slice(0, 40))
  t.end()
})

t.test('who holds which node', (t) => {
  const presence = new Presence()
  presence.apply('a', { here: ['edge-1', 'edge-2'], gone: [] }, 1_000)
  presence.apply('b', { here: ['edge-2'], gone: [['edge-3', 400]] }, 1_000)
  t.same(presence.holders('edge-1'), ['a'])
  t.same(presence.holders('edge-2'), ['a', 'b'])
  t.same(presence.holders('edge-3'), [])
  t.equal(presence.lostAtMs('edge-3'), 600)
  presence.apply(
    'a',
    {
      here: [],
      gone: [
        ['edge-2', 0],
        ['edge-3', 700],
      ],
    },
    2_000,
  )
  t.same(presence.holders('edge-2'), ['b'])
  t.equal(presence.lostAtMs('edge-3'), 1_300, 'the last time counts, whoever said so')
  presence.apply('b', { here: [], gone: [['edge-3', 1_900]] }, 2_000)
  t.equal(presence.lostAtMs('edge-3'), 1_300)
  t.equal(presence.count('a'), 1)
  presence.forget('a', 3_000)
  t.same(presence.holders('edge-1'), [])
  t.equal(presence.lostAtMs('edge-1'), 3_000, 'with a replica goes what it held')
  t.end()
})
