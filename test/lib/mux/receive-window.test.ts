// What readers that stall, and many of them, do to the windows of a session.

import t from 'tap'
import {
  BUDGET_BYTES,
  INITIAL_WINDOW_BYTES,
  MAX_STREAMS,
  MAX_WINDOW_BYTES,
  MIN_WINDOW_BYTES,
} from '../../../lib/mux/receive-window.ts'
import { create } from './pair.ts'

t.test('a reader that stalls stops its own writer and nobody else', async (t) => {
  const { relay, open, carry } = create()
  const stalled = Array.from({ length: 50 }, open)
  for (const [here, there] of stalled) {
    here.hungry = false
    there.pour(100_000_000)
  }
  const [echo, echoed] = open()
  carry()
  const kept = stalled.reduce((sum, [here]) => sum + here.stream.window.waiting, 0)
  t.ok(kept > 50 * MIN_WINDOW_BYTES && kept <= BUDGET_BYTES, `${kept} bytes are kept`)
  for (let i = 0; i < 10; i++) {
    echo.stream.write(Buffer.from('x'), () => {})
    t.ok(carry() < 100, 'the message is the only one')
  }
  t.equal(echoed.text, 'xxxxxxxxxx')
  echoed.pour(50_000_000)
  carry()
  t.equal(echo.bytes, 50_000_000, 'bulk beside them passes too')
  for (const [here] of stalled) here.stream.reset('cancelled', '')
  carry()
  t.equal(relay.streams, 1)
})

t.test('a window grows for a consumer that keeps up, and for no other', async (t) => {
  const { open, fly } = create()
  const [fast, fastWriter] = open()
  t.equal(fast.stream.window.windowBytes, INITIAL_WINDOW_BYTES)
  fastWriter.pour(64_000_000)
  const flights = fly()
  t.equal(fast.bytes, 64_000_000)
  t.ok(flights < 2.5 * (64_000_000 / MAX_WINDOW_BYTES) + 12, `a window a round trip: ${flights} flights`)
  t.equal(fast.stream.window.windowBytes, MAX_WINDOW_BYTES)
  fast.stream.reset('cancelled', '')
  const [slow, slowWriter] = open()
  slow.hungry = false
  slowWriter.pour(64_000_000)
  for (let i = 0; i < 100; i++) {
    fly()
    slow.stream.read()
  }
  t.equal(slow.stream.window.windowBytes, INITIAL_WINDOW_BYTES)
})

t.test('all windows together keep to the budget, and each stream has its floor', async (t) => {
  const { relay, open, carry } = create()
  const users = Array.from({ length: MAX_STREAMS }, open)
  t.equal(relay.open('edge-7', 1), undefined, 'one more is none')
  for (const [here, there] of users) {
    here.hungry = false
    there.pour(10_000_000)
  }
  carry()
  const waiting = users.map(([here]) => here.stream.window.waiting)
  const sum = waiting.reduce((total, bytes) => total + bytes, 0)
  t.ok(Math.min(...waiting) >= MIN_WINDOW_BYTES, `least ${Math.min(...waiting)}`)
  t.ok(sum <= BUDGET_BYTES, `${sum} bytes`)
  const [first] = users[0]!
  first.eat()
  carry()
  t.equal(first.bytes, 10_000_000, 'one that reads goes on')
  for (const [here] of users) here.stream.reset('cancelled', '')
  carry()
  const [again] = open()
  t.equal(again.stream.window.windowBytes, INITIAL_WINDOW_BYTES, 'and all comes back')
})

t.test('what was read stays in the window while its user holds it', async (t) => {
  const { open, carry } = create()
  const [here, there] = open()
  here.stream.holds(0)
  there.pour(10_000_000)
  carry()
  t.equal(here.bytes, INITIAL_WINDOW_BYTES, 'no more comes')
  here.stream.holds(INITIAL_WINDOW_BYTES / 2)
  carry()
  t.equal(here.bytes, 1.5 * INITIAL_WINDOW_BYTES, 'as much as is gone')
  for (let i = 0; i < 100 && here.bytes < 10_000_000; i++) {
    here.stream.holds(0)
    carry()
  }
  t.equal(here.bytes, 10_000_000)
})

t.test('small pieces that wait cost no more than they are', async (t) => {
  const { open, carry } = create()
  const [here, there] = open()
  here.hungry = false
  for (let i = 0; i < 20_000; i++) {
    there.stream.write(Buffer.from('xy'), () => {})
    if (i % 100 === 0) carry()
    carry(1)
  }
  let pieces = 0
  for (let data = here.stream.read(); data; data = here.stream.read()) {
    here.got.push(data)
    pieces++
  }
  t.equal(here.bytes, 40_000)
  t.ok(pieces <= 4, `${pieces} pieces`)
})
