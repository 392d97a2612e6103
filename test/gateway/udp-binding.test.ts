import { randomBytes } from 'node:crypto'
import t from 'tap'
import { socketAddress } from '../../lib/address.ts'
import { decodeStun } from '../../lib/wire/stun.ts'
import { encodeBound, encodeChallenge, encodeUnknown } from '../../lib/wire/udp-bind.ts'
import { UdpBinding } from '../../gateway/udp-binding.ts'

const server = socketAddress('203.0.113.10', 40002)!
const cookie = randomBytes(32)

function open() {
  const binding = new UdpBinding(server, { username: '40002', cookie }, 0)
  const step = (nowMs: number) => {
    const datagram = binding.step(nowMs, randomBytes(12))
    return datagram && decodeStun(datagram)!
  }
  const answer = (datagram: Buffer, nowMs: number) => binding.answered(decodeStun(datagram)!, datagram, nowMs, 0.5)
  return { binding, step, answer }
}

t.test('bound, and bound again before it is forgotten', async (t) => {
  const { binding, step, answer } = open()
  const first = step(0)!
  t.match(first, { username: '40002' })
  t.notOk(first.nonce)
  t.equal(step(10), undefined, 'not due')
  t.equal(answer(encodeChallenge(first, server, 'once', randomBytes(32)), 10), 'ignored', 'of somebody else')
  t.equal(answer(encodeChallenge(first, server, 'once', cookie), 20), 'challenged')
  const second = step(20)!
  t.equal(second.nonce, 'once')
  t.equal(answer(encodeBound(second, server, cookie), 30), 'bound')
  t.ok(binding.bound)
  t.equal(binding.nextMs, 20_030)
  t.equal(answer(encodeBound(second, server, cookie), 40), 'ignored', 'an answer counts once')
  t.equal(step(20_030)!.nonce, 'once', 'a nonce is good for minutes')
})

t.test('silence', async (t) => {
  const { binding, step, answer } = open()
  answer(encodeBound(step(0)!, server, cookie), 5)
  binding.refresh(100)
  const sent: number[] = []
  for (let nowMs = 100; nowMs < 60_000; nowMs++) if (step(nowMs) !== undefined) sent.push(nowMs - 100)
  t.same(sent, [0, 250, 750, 1750, 3750, 7750, 15_750, 31_750, 51_750])
  t.notOk(binding.bound, 'given up, and still tried')
})

t.test('a relay that knows nothing of it', async (t) => {
  const { step, answer } = open()
  const request = step(0)!
  t.equal(answer(encodeUnknown({ ...request, transactionId: randomBytes(12) }, server), 5), 'ignored', 'not asked')
  t.equal(answer(encodeUnknown(request, server), 5), 'unknown')
})

t.test('a relay that is never content', async (t) => {
  const { binding, step, answer } = open()
  for (let i = 0; i < 4; i++) answer(encodeChallenge(step(i)!, server, `n${i}`, cookie), i)
  t.equal(binding.nextMs, 20_003, 'is left alone for a while')
})
