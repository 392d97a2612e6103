import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { afterRunning } from '../../../lib/net/patience.ts'

const standStill = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

t.test('ends once, when its time is over', async (t) => {
  let ends = 0
  const startMs = performance.now()
  const { promise, resolve } = Promise.withResolvers<void>()
  afterRunning(100, () => {
    ends++
    resolve()
  })
  await promise
  t.ok(performance.now() - startMs >= 95)
  await sleep(150)
  t.equal(ends, 1)
})

t.test('not after it was given up', async (t) => {
  let ends = 0
  const stop = afterRunning(50, () => ends++)
  await sleep(20)
  stop()
  await sleep(80)
  t.equal(ends, 0)
})

t.test('a standstill takes a fifth of the time, however long it is', async (t) => {
  let ends = 0
  const stop = afterRunning(500, () => ends++)
  standStill(1_000)
  await sleep(250)
  t.equal(ends, 0)
  await sleep(450)
  t.equal(ends, 1)
  stop()
})

t.test('what came while the process stood still is heard before the time is over', async (t) => {
  const socket: Socket = createSocket('udp4')
  t.teardown(() => socket.close())
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  let ends = 0
  const stop = afterRunning(100, () => ends++)
  socket.on('message', stop)
  await sleep(85)
  const sent = Promise.withResolvers<void>()
  socket.send('answer', socket.address().port, '127.0.0.1', () => sent.resolve())
  standStill(300)
  await sent.promise
  await sleep(100)
  t.equal(ends, 0)
})
