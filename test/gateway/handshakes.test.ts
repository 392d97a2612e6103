import t from 'tap'
import { Handshakes, isTraffic } from '../../gateway/handshakes.ts'

const packet = (type: number, bytes = 148) => Uint8Array.from([type, ...Array<number>(bytes - 1).fill(7)])
const [initiation, response, data] = [packet(1), packet(2, 92), packet(4, 128)]

t.test('an initiation waits until the peer is ready', async (t) => {
  const handshakes = new Handshakes(true)
  t.notOk(handshakes.mayLeave(initiation, 0))
  t.ok(handshakes.mayLeave(data, 1), 'data needs a session, so the peer knows us')
  t.same(handshakes.peerIsReady(40), initiation, 'and goes then')
  t.ok(handshakes.mayLeave(initiation, 5_000))
})

t.test('it is not kept for ever: the relay drops what cannot be delivered', async (t) => {
  const handshakes = new Handshakes(true)
  t.notOk(handshakes.mayLeave(initiation, 0))
  t.ok(handshakes.mayLeave(initiation, 5_000))
})

t.test('a peer that has just come up gets an unanswered initiation again', async (t) => {
  const handshakes = new Handshakes(true)
  handshakes.peerIsReady(0)
  t.ok(handshakes.mayLeave(initiation, 10))
  t.same(handshakes.peerIsReady(800), initiation)
  t.ok(handshakes.mayEnter(response, 820))
  t.equal(handshakes.peerIsReady(900), undefined, 'but not an answered one')
})

t.test('of two initiations that cross, the controlling side’s goes on', async (t) => {
  for (const controlling of [true, false]) {
    const handshakes = new Handshakes(controlling)
    handshakes.peerIsReady(0)
    handshakes.mayLeave(initiation, 10)
    t.equal(handshakes.mayEnter(initiation, 30), !controlling, `controlling: ${controlling}`)
  }
})

t.test('an initiation that was kept back, answered or long lost stops nobody', async (t) => {
  const keptBack = new Handshakes(true)
  keptBack.mayLeave(initiation, 0)
  t.ok(keptBack.mayEnter(initiation, 10), 'kept back')
  t.equal(keptBack.peerIsReady(20), undefined, 'and is forgotten, since ours has answered the peer’s')

  const answered = new Handshakes(true)
  answered.peerIsReady(0)
  answered.mayLeave(initiation, 10)
  answered.mayEnter(response, 20)
  t.ok(answered.mayEnter(initiation, 30), 'answered')

  const lost = new Handshakes(true)
  lost.peerIsReady(0)
  lost.mayLeave(initiation, 10)
  t.ok(lost.mayEnter(initiation, 1_500), 'lost')
})

t.test('of two that crossed and were both lost, the second repetition gets through', async (t) => {
  const [a, b] = [new Handshakes(true), new Handshakes(false)]
  for (const side of [a, b]) side.peerIsReady(0)
  b.mayLeave(initiation, 0)
  a.mayLeave(initiation, 100)
  t.notOk(a.mayEnter(initiation, 110), 'crossed')
  t.same(b.due(1_000), initiation, 'the other side repeats its own')
  t.ok(a.mayEnter(initiation, 1_010), 'and is let in')
})

t.test('an initiation without an answer is sent again, once it is late', async (t) => {
  const handshakes = new Handshakes(false)
  t.equal(handshakes.due(0), undefined, 'there is none')
  handshakes.mayLeave(initiation, 0)
  t.equal(handshakes.due(1_500), undefined, 'it is kept back')
  handshakes.peerIsReady(2_000)
  t.equal(handshakes.due(2_500), undefined, 'too early')
  t.same(handshakes.due(3_000), initiation)
  handshakes.mayEnter(response, 3_010)
  t.equal(handshakes.due(4_000), undefined, 'answered')
})

t.test('an initiation that WireGuard made before it saw the peer’s does not cross that', async (t) => {
  const answers = new Handshakes(true)
  answers.peerIsReady(0)
  t.ok(answers.mayEnter(initiation, 100))
  t.notOk(answers.mayLeave(initiation, 110), 'it is kept back')
  t.ok(answers.mayLeave(response, 120), 'while the answer goes on')
  t.equal(answers.dueMs, Infinity, 'and then it is forgotten')
  t.notOk(answers.mayLeave(initiation, 130), 'also when it comes after the answer')
  t.ok(answers.mayLeave(initiation, 300), 'a later one is WireGuard’s own wish')

  const silent = new Handshakes(false)
  silent.peerIsReady(0)
  t.ok(silent.mayEnter(initiation, 100))
  t.notOk(silent.mayLeave(initiation, 110))
  t.equal(silent.due(200), undefined, 'the answer may still come')
  t.same(silent.due(silent.dueMs), initiation, 'there is none: ours is all there is')
  t.same(silent.due(silent.dueMs), initiation, 'and it is sent again like any other')
  t.equal(silent.dueMs, Infinity)
})

t.test('what wakes a cold pair', async (t) => {
  t.ok(isTraffic(initiation), 'WireGuard begins a session only for a packet')
  t.ok(isTraffic(data))
  t.notOk(isTraffic(packet(4, 32)), 'a keepalive')
  t.notOk(isTraffic(packet(4, 96)), 'a small echo')
  t.notOk(isTraffic(response))
})
