import t from 'tap'
import { GONE_AFTER_MS, Members, NOTHING_KEPT } from '../../lib/members.ts'

const DAY_MS = 86_400_000
const T = Date.parse('2027-03-01T12:00:00Z')
const nodes = (...names: readonly string[]) => new Map(names.map((name) => [name.split(':')[0]!, name]))

/** Looks at `now` until what is missing is missed. */
const settle = (members: Members, present: ReadonlyMap<string, string>, nowMs: number, agoMs: number) => {
  members.look(present, nowMs, agoMs)
  return members.look(present, nowMs, agoMs + GONE_AFTER_MS).gone
}

t.test('a node that is deleted', (t) => {
  const members = new Members(NOTHING_KEPT, true)
  t.same(members.look(nodes('a', 'b'), T, 0), { gone: [], isNews: true })
  t.same(members.look(nodes('a', 'b'), T, 500), { gone: [], isNews: false })
  t.same(members.look(nodes('a'), T, 1_000), { gone: [], isNews: false }, 'not at once')
  t.ok(members.isWaiting)
  t.same(members.look(nodes('a', 'b'), T, 1_500).gone, [], 'a file that was away for a moment')
  t.notOk(members.isWaiting)
  t.same(settle(members, nodes('a'), T, 2_000), ['b'])
  t.match(members.refusal('b', T - 1), /node b was deleted.*2027-03-01T12:00:00/)
  t.match(members.refusal('b', T), /deleted/, 'issued in the same moment')
  t.equal(members.refusal('b', T + 1), undefined, 'joined again')
  t.equal(members.refusal('a', T - 1), undefined)
  t.equal(members.refusal('never', T - 1), undefined, 'never was an object')
  t.end()
})

t.test('made again by the same name', (t) => {
  const api = new Members(NOTHING_KEPT, true)
  api.look(nodes('a:1', 'b'), T, 0)
  t.same(api.look(nodes('a:2', 'b'), T + 5, 100).gone, ['a'], 'too fast to be missed')
  t.match(api.refusal('a', T), /deleted/)
  t.same(api.look(nodes('a:2', 'b'), T + 10, 200), { gone: [], isNews: false })

  const folder = new Members(NOTHING_KEPT, false)
  folder.look(nodes('a:1', 'b'), T, 0)
  t.same(folder.look(nodes('a:2', 'b'), T, 100).gone, [], 'another relay gave another UID to the same file')
  t.same(settle(folder, nodes('b'), T, 200), ['a'])
  folder.look(nodes('a:3', 'b'), T + 10, 9_000)
  t.match(folder.refusal('a', T), /deleted/)
  t.end()
})

t.test('what a restart must not forget', (t) => {
  const before = new Members(NOTHING_KEPT, true)
  before.look(nodes('a', 'b', 'c'), T, 0)
  settle(before, nodes('a', 'b'), T, 100)
  const kept = before.kept(T, DAY_MS)
  t.same(kept, { objects: { a: 'a', b: 'b' }, deleted: { c: T } })

  const after = new Members(JSON.parse(JSON.stringify(kept)), true)
  t.match(after.refusal('c', T), /deleted/)
  t.same(settle(after, nodes('a'), T + 1, 0), ['b'], 'deleted while the relay was away')
  t.same(after.kept(T + DAY_MS + 1, DAY_MS).deleted, { b: T + 1 }, 'until no certificate from before can count')
  t.end()
})

t.test('an API that names no node at all', (t) => {
  const members = new Members(NOTHING_KEPT, true)
  members.look(nodes('a', 'b'), T, 0)
  t.same(settle(members, nodes(), T, 100), [], 'is a mistake')
  t.equal(members.refusal('a', T - 1), undefined)
  t.end()
})
