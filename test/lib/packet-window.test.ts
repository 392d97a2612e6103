import t from 'tap'
import { PacketQueue } from '../../lib/packet-queue.ts'
import { PacketWindow } from '../../lib/packet-window.ts'

const FRAME_BYTES = 1460
const MINUTE_MS = 60_000
/** The start is looked at apart. */
const FROM_MS = MINUTE_MS / 5

type Link = {
  readonly megabits: number
  /** Without any queue. */
  readonly rttMs: (nowMs: number) => number
  /** What others keep waiting in the bottleneck. */
  readonly othersMs?: (nowMs: number) => number
}

/** A minute of a sender who always has more, over a bottleneck whose queue has no end. */
function run({ megabits, rttMs, othersMs = () => 0 }: Link) {
  const window = new PacketWindow()
  const acknowledgements: { readonly atMs: number; readonly mark: number }[] = []
  const queuedMs: number[] = []
  const frameMs = (FRAME_BYTES * 8) / (megabits * 1000)
  let [nowMs, freeMs, lastMs, delivered] = [0, 0, 0, 0]
  const mark = (): void => {
    const number = window.mark(nowMs)
    if (number === undefined) return
    // What is in one connection does not overtake.
    lastMs = Math.max(lastMs, freeMs + othersMs(nowMs) + rttMs(nowMs))
    acknowledgements.push({ atMs: lastMs, mark: number })
  }
  const send = (): void => {
    mark()
    while (window.open) {
      window.sent(FRAME_BYTES)
      freeMs = Math.max(freeMs, nowMs) + frameMs
      if (nowMs >= FROM_MS) {
        delivered++
        queuedMs.push(freeMs - nowMs)
      }
      mark()
    }
  }
  send()
  while (nowMs < MINUTE_MS) {
    const next = acknowledgements.shift()
    if (next === undefined) throw new Error(`nothing under way at ${nowMs} ms with a window of ${window.bytes} bytes`)
    nowMs = next.atMs
    window.acknowledge(next.mark, nowMs)
    send()
  }
  queuedMs.sort((a, b) => a - b)
  return {
    used: (delivered * frameMs) / (MINUTE_MS - FROM_MS),
    p50: queuedMs[queuedMs.length >> 1]!,
    p99: queuedMs[Math.floor(queuedMs.length * 0.99)]!,
  }
}

t.test('any link is used, and its queue stays short', async (t) => {
  const rows: readonly [megabits: number, rttMs: number, used: number, p50: number, p99: number][] = [
    // Eight full packets take 47 ms here.
    [2, 0.5, 0.99, 60, 100],
    [2, 200, 0.95, 50, 100],
    [20, 0.5, 0.99, 25, 30],
    [20, 5, 0.99, 25, 30],
    [20, 40, 0.99, 30, 50],
    [20, 200, 0.95, 60, 150],
    [200, 0.5, 0.99, 30, 35],
    [200, 40, 0.99, 30, 60],
    [200, 200, 0.95, 60, 150],
    [1000, 5, 0.99, 30, 35],
  ]
  for (const [megabits, rttMs, used, p50, p99] of rows) {
    const seen = run({ megabits, rttMs: () => rttMs })
    const name = `${megabits} Mbit/s, ${rttMs} ms: ${seen.used.toFixed(3)}, queue ${seen.p50.toFixed(1)} and ${seen.p99.toFixed(1)} ms`
    t.ok(seen.used > used && seen.p50 < p50 && seen.p99 < p99, name)
  }
})

t.test('paths that change, jitter and others in the queue', async (t) => {
  let state = 1
  const random = (): number => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31
  const rows: readonly [name: string, link: Link, used: number][] = [
    ['a path gets longer', { megabits: 20, rttMs: (nowMs) => (nowMs < 20_000 ? 20 : 200) }, 0.8],
    ['a path gets shorter', { megabits: 20, rttMs: (nowMs) => (nowMs < 20_000 ? 200 : 20) }, 0.95],
    ['jitter as long as the path', { megabits: 20, rttMs: () => 10 + 10 * random() }, 0.95],
    ['jitter over the target', { megabits: 200, rttMs: () => 5 + 20 * random() }, 0.95],
    [
      // It gives way to them, but is not starved.
      'another fills the queue as cubic does',
      { megabits: 10, rttMs: () => 20, othersMs: (nowMs) => 280 + 40 * ((nowMs / 1000) % 3) },
      0.1,
    ],
  ]
  for (const [name, link, used] of rows) {
    const seen = run(link)
    t.ok(seen.used > used, `${name}: ${seen.used.toFixed(3)}, queue ${seen.p50.toFixed(1)} ms`)
  }
})

t.test('marks', async (t) => {
  const window = new PacketWindow()
  t.equal(window.mark(0), undefined, 'none for nothing')
  window.sent(1460)
  t.equal(window.mark(0), undefined, 'nor for one packet')
  window.sent(2000)
  t.equal(window.mark(0), 0)
  t.equal(window.mark(0), undefined, 'once')
  window.sent(20_000)
  t.equal(window.open, false)
  t.equal(window.mark(1), 1)
  t.equal(window.acknowledge(7, 2), false, 'never set')
  t.equal(window.acknowledge(1, 2), true, 'also says that the one before has arrived')
  t.equal(window.acknowledge(0, 2), false)
  t.equal(window.open, true)
})

t.test('a window that is not used is given up, and had again soon', async (t) => {
  const window = new PacketWindow()
  let nowMs = 0
  /** Sends that much, which arrives 10 ms later. */
  const exchange = (bytes: number): void => {
    const marks: number[] = []
    for (let sent = 0; sent < bytes && window.open; sent += FRAME_BYTES) {
      window.sent(FRAME_BYTES)
      const mark = window.mark(nowMs)
      if (mark !== undefined) marks.push(mark)
    }
    nowMs += 10
    for (const mark of marks) window.acknowledge(mark, nowMs)
  }
  for (let i = 0; i < 10; i++) exchange(Infinity)
  t.ok(window.bytes > 1_000_000, `${window.bytes} bytes`)
  const full = window.bytes
  for (let i = 0; i < 150; i++) exchange(100_000)
  t.equal(window.bytes, full, 'kept for a while')
  for (let i = 0; i < 500; i++) exchange(100_000)
  t.ok(window.bytes >= 200_000 && window.bytes < 500_000, `${window.bytes} bytes, twice what is used`)
  for (let i = 0; i < 4; i++) exchange(Infinity)
  t.ok(window.bytes > 1_000_000, `${window.bytes} bytes`)
})

t.test('while the path pauses, nothing has waited', async (t) => {
  const window = new PacketWindow()
  const exchange = (setMs: number, arrivedMs: number): void => {
    window.sent(4000)
    window.acknowledge(window.mark(setMs)!, arrivedMs)
  }
  const send = (nowMs: number): number => {
    window.sent(4000)
    return window.mark(nowMs)!
  }
  t.equal(window.clock(5), 5)
  for (const nowMs of [100, 200, 300]) exchange(nowMs, nowMs + 20)
  t.equal(window.clock(400), 400, 'nothing is under way')

  const first = send(1000)
  t.equal(window.clock(1030), 1030, 'on time yet')
  const second = send(1100)
  const stood = window.clock(1100)
  t.ok(stood > 1020 && stood < 1050, `stands at ${stood}`)
  t.equal(window.clock(1300), stood)
  window.acknowledge(first, 1300)
  t.equal(window.clock(1300), stood, 'goes on from there')
  t.equal(window.clock(1310), stood, 'the second is overdue too')
  window.acknowledge(second, 1320)
  t.equal(window.clock(1420), stood + 100)

  send(2000)
  const before = window.clock(2000)
  t.ok(window.clock(9000) - before > 5_900, 'a link that is down is no pause')
})

t.test('what is sent at an even rate is not thrown away because the path gets slower', async (t) => {
  const FRAME = 500
  /** A minute of 70 kB/s in small packets, the path's round trip being `rttMs`. @returns packets dropped, and when. */
  const dropsOf = (rttMs: (nowMs: number) => number): readonly number[] => {
    const window = new PacketWindow()
    const drops: number[] = []
    let nowMs = 0
    const queue = new PacketQueue<string>(() => drops.push(nowMs))
    const marks: { readonly atMs: number; readonly mark: number }[] = []
    const maxWaitMs = () => (window.starting ? 500 : 25)
    const write = (): void => {
      window.sent(FRAME)
      const mark = window.mark(nowMs)
      if (mark !== undefined) marks.push({ atMs: Math.max(marks.at(-1)?.atMs ?? 0, nowMs + rttMs(nowMs)), mark })
    }
    for (; nowMs < MINUTE_MS; nowMs++) {
      while (marks.length > 0 && marks[0]!.atMs <= nowMs) {
        window.acknowledge(marks.shift()!.mark, nowMs)
        while (queue.length > 0 && window.open) {
          queue.shift(window.clock(nowMs), maxWaitMs())
          write()
        }
      }
      if (nowMs % 7 > 0) continue
      if (queue.length === 0 && window.open) write()
      else queue.push(Buffer.alloc(FRAME), 'of', window.clock(nowMs), maxWaitMs())
    }
    return drops
  }
  const fromMs = 20_000
  for (const laterMs of [100, 200, 400, 800]) {
    const drops = dropsOf((nowMs) => (nowMs < fromMs ? 20 : laterMs))
    const lastMs = drops.length === 0 ? 0 : drops.at(-1)! - fromMs
    t.ok(
      drops.length < laterMs / 4 && lastMs < 3_000,
      `from 20 to ${laterMs} ms: ${drops.length} lost, the last after ${lastMs} ms`,
    )
  }
  let state = 1
  const random = (): number => (state = (state * 1103515245 + 12345) % 2 ** 31) / 2 ** 31
  const drops = dropsOf((nowMs) => (nowMs < fromMs ? 20 : 20 + 400 * random()))
  t.ok(drops.length < 200, `jitter of 400 ms: ${drops.length} lost of ${Math.round(MINUTE_MS / 7)}`)
})
