import t from 'tap'
import { setTimeout as pause } from 'node:timers/promises'
import { createUpkeep } from '../../../lib/net/upkeep.ts'

/** An upkeep whose passes wait for the test, and what happened to it. */
function upkeepOf(outcomes: readonly (Error | undefined)[] = []) {
  const controller = new AbortController()
  const seen = { passes: 0, running: 0, errors: [] as unknown[], ended: 0 }
  const upkeep = createUpkeep(
    {
      async pass() {
        seen.running++
        if (seen.running > 1) throw new Error('two passes at once')
        const outcome = outcomes[seen.passes++]
        await pause(5)
        seen.running--
        if (outcome) throw outcome
      },
      onError: (error) => seen.errors.push(error),
      onEnd: () => seen.ended++,
      coalesceMs: 5,
      backoff: { baseMs: 20, capMs: 40 },
    },
    controller.signal,
  )
  return { upkeep, seen, end: () => controller.abort(new Error('the end')) }
}

t.test('triggers that come together are one pass', async (t) => {
  const { upkeep, seen, end } = upkeepOf()
  for (let i = 0; i < 10; i++) upkeep.trigger()
  await pause(40)
  t.equal(seen.passes, 1)
  upkeep.trigger()
  await pause(7)
  for (let i = 0; i < 10; i++) upkeep.trigger()
  await pause(60)
  t.equal(seen.passes, 3, 'those during a pass are one more')
  end()
})

t.test('who asks for a pass gets one that began after', async (t) => {
  const { upkeep, seen, end } = upkeepOf()
  await Promise.all([upkeep.now(), upkeep.now(), upkeep.now()])
  t.equal(seen.passes, 2, 'the two that came during the first share the second')
  end()
  await t.rejects(upkeep.now(), /the end/)
})

t.test('a failure goes to who asked, else is told, and is tried again', async (t) => {
  const { upkeep, seen, end } = upkeepOf([new Error('first'), new Error('second'), undefined])
  await t.rejects(upkeep.now(), /first/)
  t.same(seen.errors, [])
  await pause(150)
  t.match(seen.errors, [/second/])
  t.equal(seen.passes, 3, 'until it works, and no more')
  end()
})

t.test('the end waits for the pass that runs', async (t) => {
  const { upkeep, seen, end } = upkeepOf()
  const first = upkeep.now()
  const second = upkeep.now()
  end()
  t.equal(seen.ended, 0)
  await first
  await t.rejects(second, /the end/)
  t.equal(seen.ended, 1)
  upkeep.trigger()
  await pause(20)
  t.equal(seen.passes, 1)
})

t.test('a stream of triggers does not put the pass off', async (t) => {
  const { upkeep, seen, end } = upkeepOf()
  for (let i = 0; i < 20; i++) {
    upkeep.trigger()
    await pause(2)
  }
  t.ok(seen.passes >= 2, `${seen.passes} passes`)
  end()
})

t.test('a pass that took long is rested from, unless someone asks for the next', async (t) => {
  const controller = new AbortController()
  const began: number[] = []
  const upkeep = createUpkeep(
    {
      async pass() {
        began.push(performance.now())
        await pause(20)
      },
      onError: () => {},
      coalesceMs: 1,
      rest: 4,
    },
    controller.signal,
  )
  upkeep.trigger()
  await upkeep.idle()
  upkeep.trigger()
  await upkeep.idle()
  t.ok(began[1]! - began[0]! >= 95, `${began[1]! - began[0]!} ms between two passes of 20 ms`)
  await upkeep.now()
  t.ok(began[2]! - began[1]! < 95, `${began[2]! - began[1]!} ms to one that was asked for`)
  controller.abort()
})
