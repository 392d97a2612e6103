import t from 'tap'
import { orderOf, wayOf, type Way } from '../../../bench/service/kinds.ts'

const OWN = '10.244.11.1:40000'
const flow = (called: string, answers: string): string => {
  const [[to, port], [from, source]] = [called.split(':'), answers.split(':')]
  return `tcp      6 431999 ESTABLISHED src=10.244.11.1 dst=${to} sport=40000 dport=${port} src=${from} dst=10.244.11.1 sport=${source} dport=40000 [ASSURED] mark=0 use=1\n`
}
const straight = flow('10.244.2.2:8080', '10.244.2.2:8080')
const rewritten = flow('10.96.0.1:80', '10.244.2.2:8080')

const rows: readonly [name: string, own: string, seen: string, flows: string, way: Way][] = [
  ['answers come from who was called', OWN, OWN, straight, 'straight'],
  ['answers come from somebody else', OWN, OWN, rewritten, 'rewritten'],
  ['another port of the same address', OWN, OWN, flow('10.244.2.2:80', '10.244.2.2:8080'), 'rewritten'],
  ['the server sees another caller', OWN, '10.244.11.1:40001', straight, 'copied'],
  ['nothing is known of it', OWN, OWN, '', 'untracked'],
  ['nor of this port', OWN, OWN, straight.replaceAll('40000', '40007'), 'untracked'],
  ['among others', OWN, OWN, `${straight.replaceAll('40000', '40007')}${rewritten}`, 'rewritten'],
]
for (const [name, own, seen, flows, way] of rows) t.equal(wayOf(own, seen, flows), way, name)

t.test('turns', async (t) => {
  t.same(orderOf([0, 1, 2, 3, 4], 0), [0, 1, 4, 2, 3])
  for (const count of [7, 8, 9]) {
    const kinds = Array.from({ length: count }, (_, i) => i)
    const orders = Array.from({ length: 2 * count }, (_, pass) => orderOf(kinds, pass))
    t.ok(
      orders.every((order) => new Set(order).size === count),
      `${count}: each has a turn`,
    )
    const pairs = orders.flatMap((order) => order.slice(1).map((kind, i) => `${order[i]} ${kind}`))
    const times = kinds.flatMap((a) =>
      kinds.filter((b) => b !== a).map((b) => pairs.filter((pair) => pair === `${a} ${b}`).length),
    )
    t.same(new Set(times), new Set([2]), `${count}: each comes after each other twice`)
    const first = kinds.map((kind) => orders.filter((order) => order[0] === kind).length)
    t.same(new Set(first), new Set([2]), `${count}: each begins twice`)
  }
})
