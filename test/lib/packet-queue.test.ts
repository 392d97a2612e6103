import t from 'tap'
import { PacketQueue } from '../../lib/packet-queue.ts'

const frame = (number: number, bytes: number): Buffer => Buffer.alloc(bytes, number)

function create() {
  const dropped: string[] = []
  const queue = new PacketQueue<string>((of) => dropped.push(of))
  const take = (nowMs: number, count = Infinity): string[] => {
    const taken: string[] = []
    while (taken.length < count) {
      const next = queue.shift(nowMs, 25)
      if (next === undefined) break
      taken.push(`${next.of}${next.frame[0]}`)
    }
    return taken
  }
  const push = (of: string, numbers: readonly number[], nowMs = 0, bytes = 1400): void => {
    for (const number of numbers) queue.push(frame(number, bytes), of, nowMs, 25)
  }
  return { queue, dropped, push, take }
}

t.test('each takes its turn, in its own order', async (t) => {
  const { queue, push, take } = create()
  push('a', [1, 2, 3, 4])
  push('b', [1])
  push('c', [1, 2])
  t.same(take(0, 3), ['a1', 'b1', 'c1'])
  push('b', [2])
  t.same(take(0), ['a2', 'c2', 'b2', 'a3', 'a4'])
  t.equal(queue.length, 0)
})

t.test('what waited too long goes, the oldest first, but for the last four', async (t) => {
  const { queue, push, take, dropped } = create()
  push('a', [1, 2, 3, 4, 5, 6], 0)
  push('b', [1, 2], 0)
  push('a', [7], 25)
  t.same(dropped, [], 'not yet')
  push('a', [8], 26)
  t.same(dropped, ['a', 'a', 'a', 'a'], 'as new ones come')
  push('c', [1, 2, 3, 4, 5, 6], 26)
  t.same(take(100), ['a5', 'b1', 'c3', 'a6', 'b2', 'c4', 'a7', 'c5', 'a8', 'c6'], 'or as the turn comes')
  t.same(dropped.slice(4), ['c', 'c'])
  t.equal(queue.length, 0)
})

t.test('small packets take turns of their own, and leave every other one', async (t) => {
  const { push, take } = create()
  push('a', [1, 2, 3, 4, 5, 6])
  push('b', [1, 2])
  push('a', [7, 8, 9], 0, 160)
  push('c', [7], 0, 160)
  t.same(take(0), ['a7', 'a1', 'c7', 'b1', 'a8', 'a2', 'a9', 'b2', 'a3', 'a4', 'a5', 'a6'])
  push('a', [1, 2, 3, 4, 5, 6])
  push('a', [7, 8], 30, 160)
  t.same(take(100), ['a7', 'a3', 'a8', 'a4', 'a5', 'a6'], 'and do not grow old with the rest')
})

t.test('small packets may wait for longer', async (t) => {
  const { push, take, dropped } = create()
  push('a', [1, 2, 3, 4, 5, 6], 0, 600)
  push('a', [7], 500, 600)
  t.same(dropped, [])
  push('a', [8], 501, 600)
  t.same(dropped, ['a', 'a', 'a', 'a'])
  t.same(take(501), ['a5', 'a6', 'a7', 'a8'])
})

t.test('the memory has a bound: what would be next gives way', async (t) => {
  const { queue, push, dropped } = create()
  push('a', Array<number>(2000).fill(1))
  push('b', Array<number>(60).fill(1))
  t.equal(queue.length, 2048)
  t.same(dropped, Array(12).fill('a'))
  queue.clear()
  t.same([queue.length, dropped.length, queue.shift(0, 25)], [0, 2060, undefined])
})
