import t from 'tap'
import { sortedPairs } from '../../agent/sorted-pairs.ts'

type Item = { readonly name: string }
const items = (text: string): Item[] => text.split('').map((name) => ({ name }))
const byName = (a: Item, b: Item) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)

t.test('what became of the items of a list', async (t) => {
  const [a, b, c, d] = items('abcd') as [Item, Item, Item, Item]
  const [b2] = items('b') as [Item]
  const rows: readonly (readonly [name: string, before: Item[], after: Item[], expected: string])[] = [
    ['nothing', [], [], ''],
    ['all is new', [], [a, b], '+a +b'],
    ['all is gone', [a, b], [], '-a -b'],
    ['the same', [a, b], [a, b], '=a0 =b1'],
    ['one is replaced', [a, b, c], [a, b2, c], '=a0 b>b =c2'],
    ['one comes', [a, c], [a, b, c], '=a0 +b =c1'],
    ['one goes', [a, b, c], [a, c], '=a0 -b =c2'],
    ['first and last', [b, c], [a, b, d], '+a =b0 -c +d'],
    ['out of order: gone and new', [b, a], [a, b], '+a =b0 -a'],
  ]
  for (const [name, before, after, expected] of rows) {
    const said: string[] = []
    const onSame = (index: number, count: number) =>
      before.slice(index, index + count).forEach(({ name }, n) => said.push(`=${name}${index + n}`))
    for (const [had, now, index] of sortedPairs(before, after, byName, onSame)) {
      if (had !== undefined) t.equal(before[index], had)
      said.push(had === undefined ? `+${now!.name}` : now === undefined ? `-${had.name}` : `${had.name}>${now.name}`)
    }
    t.equal(said.join(' '), expected, name)
  }
})
