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
  t.same(orderOf(['a', 'b', 'c'], 0), ['a', 'b', 'c'])
  t.same(orderOf(['a', 'b', 'c'], 2), ['c', 'a', 'b'], 'each begins once')
  t.same(orderOf(['a', 'b', 'c'], 3), ['c', 'b', 'a'], 'then the other way round')
  const first = Array.from({ length: 6 }, (_, shift) => orderOf(['a', 'b', 'c'], shift)[0])
  t.same(new Set(first), new Set(['a', 'b', 'c']), 'each begins')
  t.equal(first.filter((kind) => kind === 'a').length, 2, 'as often')
})
