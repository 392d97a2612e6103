import t from 'tap'
import { rendezvousOrder } from '../../lib/rendezvous.ts'

const members = (count: number) => Array.from({ length: count }, (_, index) => `https://relay-${index}:443`)
const keys = Array.from({ length: 3000 }, (_, index) => `edge-${index}`)

t.test('an order of its own for each key, the same for everybody', (t) => {
  t.same(rendezvousOrder('edge-7', []), [])
  t.same(rendezvousOrder('edge-7', ['a']), ['a'])
  t.same(rendezvousOrder('edge-7', ['a', 'b', 'c']), rendezvousOrder('edge-7', ['c', 'a', 'b']))
  t.same(rendezvousOrder('edge-7', members(5)).toSorted(), members(5))
  t.same(rendezvousOrder('edge-7', ['a', 'b', 'c']), ['a', 'c', 'b'], 'and for all versions')
  t.end()
})

t.test('members have like shares, first and second', (t) => {
  for (const place of [0, 1]) {
    const shares = new Map<string, number>()
    for (const key of keys) {
      const member = rendezvousOrder(key, members(5))[place]!
      shares.set(member, (shares.get(member) ?? 0) + 1)
    }
    t.equal(shares.size, 5)
    t.ok(Math.min(...shares.values()) > 520 && Math.max(...shares.values()) < 680, [...shares.values()].join())
  }
  t.end()
})

t.test('a member that goes moves nobody else', (t) => {
  const four = members(5).slice(0, 4)
  for (const key of keys)
    t.same(
      rendezvousOrder(key, members(5)).filter((member) => four.includes(member)),
      rendezvousOrder(key, four),
    )
  t.end()
})
