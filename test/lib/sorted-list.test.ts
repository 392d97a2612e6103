import t from 'tap'
import { changesBetween, SortedItems, sortedList, type SortedList } from '../../lib/sorted-list.ts'
import { random } from './random.ts'

type Item = { readonly name: string; readonly value?: number }
const byName = (a: Item, b: Item) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
const items = (text: string): Item[] => text.split('').map((name) => ({ name }))
const told = (before: SortedList<Item>, after: SortedList<Item>): string =>
  [...changesBetween(before, after, byName)]
    .map(([had, now]) => (had === undefined ? `+${now!.name}` : now === undefined ? `-${had.name}` : `=${had.name}`))
    .join(' ')

t.test('what is different', async (t) => {
  const [a, b, c, d] = items('abcd') as [Item, Item, Item, Item]
  const [b2] = items('b') as [Item]
  const rows: readonly (readonly [name: string, before: Item[], after: Item[], expected: string])[] = [
    ['nothing', [], [], ''],
    ['all is new', [], [a, b], '+a +b'],
    ['all is gone', [a, b], [], '-a -b'],
    ['the same', [a, b], [a, b], ''],
    ['one is replaced', [a, b, c], [a, b2, c], '=b'],
    ['one comes', [a, c], [a, b, c], '+b'],
    ['one goes', [a, b, c], [a, c], '-b'],
    ['first and last', [b, c], [a, b, d], '+a -c +d'],
    ['in any order', [b, a], [a, c, b], '+c'],
  ]
  for (const [name, before, after, expected] of rows)
    t.equal(told(sortedList(before, byName), sortedList(after, byName)), expected, name)
  t.strictSame([...sortedList([b, a, b2], byName)], [a, b2], 'the last one of a name counts')
})

t.test('one change among very many leaves the rest alone', async (t) => {
  const some = new SortedItems<Item, Item>(byName)
  for (let i = 0; i < 10_000; i++) some.set({ name: String(i).padStart(5, '0') })
  const before = some.list()
  t.equal(some.list(), before, 'the same value')
  some.set({ name: '04711', value: 1 })
  const after = some.list()
  t.equal(after.pieces.filter((piece) => !before.pieces.includes(piece)).length, 1)
  t.equal(told(before, after), '=04711')
  t.equal(before.find((item) => byName(item, { name: '04711' }))?.value, undefined, 'a list never changes')
  t.equal(after.find((item) => byName(item, { name: '04711' }))?.value, 1)
  t.equal(
    after.find((item) => byName(item, { name: '047109' })),
    undefined,
  )
  t.equal(after.find((item) => byName({ name: item.name.slice(0, 3) }, { name: '047' }))?.name, '04700', 'the first')
  t.equal(
    after.find(() => -1),
    undefined,
  )
})

t.test('as a plain list would have it, whatever happens', async (t) => {
  const next = random(7)
  const below = (limit: number) => Math.floor(next() * limit)
  const some = new SortedItems<Item, Item>(byName)
  const plain = new Map<string, Item>()
  const sorted = () => [...plain.values()].sort(byName)
  let [before, beforePlain] = [some.list(), sorted()]
  for (let round = 0; round < 300; round++) {
    // It grows, is changed here and there, and shrinks, several times.
    const grows = round % 100 < 50
    for (let n = below(30); n >= 0; n--) {
      const name = String(below(2_000))
      if (below(4) > 0 === grows) {
        const item = { name, value: round }
        some.set(item)
        plain.set(name, item)
      } else {
        some.delete({ name })
        plain.delete(name)
      }
    }
    const [list, wanted] = [some.list(), sorted()]
    if (list.length !== wanted.length || [...list].some((item, i) => item !== wanted[i])) t.fail(`round ${round}`)
    if (list.pieces.some((piece) => piece.length === 0)) t.fail(`round ${round}: an empty piece`)
    const undone = new Map(beforePlain.map((item) => [item.name, item]))
    for (const [had, now] of changesBetween(before, list, byName)) {
      if (had === now || undone.get((had ?? now)!.name) !== had) t.fail(`round ${round}: ${had?.name} ${now?.name}`)
      if (now === undefined) undone.delete(had!.name)
      else undone.set(now.name, now)
    }
    if ([...undone.values()].sort(byName).some((item, i) => item !== wanted[i]))
      t.fail(`round ${round}: the difference`)
    if (some.get({ name: '7' }) !== plain.get('7')) t.fail(`round ${round}: get`)
    ;[before, beforePlain] = [list, wanted]
  }
  for (const name of plain.keys()) some.delete({ name })
  t.strictSame(some.list().pieces, [])
})
