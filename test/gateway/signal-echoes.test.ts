import t from 'tap'
import { Echoes } from '../../gateway/signal-echoes.ts'

const call = { kind: 'call', node: 'h1', reply: false }

t.test('what comes by two relays is heard once', (t) => {
  const rows: readonly [name: string, frame: typeof call, relay: string, atMs: number, isNew: boolean][] = [
    ['the first', call, 'a', 0, true],
    ['by the other relay', call, 'b', 40, false],
    ['again by the same', call, 'a', 50, true],
    ['its echo', call, 'b', 90, false],
    ['of another peer', { ...call, node: 's1' }, 'b', 100, true],
    ['an answer', { ...call, reply: true }, 'b', 110, true],
    ['another kind', { ...call, kind: 'ready' }, 'b', 120, true],
    ['much later by the other', call, 'b', 2_000, true],
    ['and its echo', call, 'a', 2_900, false],
  ]
  const echoes = new Echoes()
  for (const [name, frame, relay, atMs, isNew] of rows) t.equal(echoes.isNew(frame, relay, atMs), isNew, name)
  t.end()
})
