import { randomBytes } from 'node:crypto'
import t from 'tap'
import { parseReplicas } from '../../lib/replicas.ts'
import {
  decodePresence,
  decodeTarget,
  encodeTarget,
  encodePresence,
  isReplica,
  ownReplica,
  Presence,
} from '../../relay/replicas.ts'

t.test('a relay finds itself', (t) => {
  const list = parseReplicas('https://a.example,https://203.0.113.12+https://[2001:db8::12],https://c.example:8443')
  const rows: readonly [hosts: readonly string[], port: number, own: number | RegExp][] = [
    [['a.example'], 443, 0],
    [['2001:db8::12', '198.51.100.1'], 443, 1],
    [['203.0.113.12'], 443, 1],
    [['c.example'], 8443, 2],
    [['c.example'], 443, /none of them is this relay/],
    [['a.example', '203.0.113.12'], 443, /https:\/\/a.example:443 and https:\/\/203.0.113.12:443 are both this relay/],
  ]
  for (const [hosts, port, own] of rows)
    if (typeof own === 'number') t.equal(ownReplica(list, hosts, port), list[own], hosts.join())
    else t.throws(() => ownReplica(list, hosts, port), { message: own }, hosts.join())
  t.end()
})

t.test('only a certificate of the group is a replica', (t) => {
  t.ok(isReplica({ kind: 'user', user: 'fulmar-relay', groups: ['system:fulmar:relays'] }))
  t.notOk(isReplica({ kind: 'user', user: 'system:fulmar:relays', groups: ['system:masters'] }))
  t.notOk(isReplica({ kind: 'node', node: 'edge-7' }))
  t.notOk(isReplica({ kind: 'anonymous' }))
  t.end()
})

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
