// Two sessions that talk to each other in memory, and one that hears what no peer should say.

import t from 'tap'
import { MAX_STREAMS } from '../../../lib/mux/receive-window.ts'
import { MuxSession } from '../../../lib/mux/session.ts'
import { encodeMux, writeDataHeader, type SentFrame } from '../../../lib/wire/mux.ts'
import { random } from '../random.ts'
import { create, pull, User } from './pair.ts'

t.test('greeting, ping and farewell', async (t) => {
  const { relay, agent, told, carry } = create()
  relay.ping(Buffer.from('0102030405060708', 'hex'))
  agent.goAway('going down')
  carry()
  t.same(told, [
    'relay greeted hello',
    'agent greeted welcome',
    'relay goaway going down',
    'relay pong 0102030405060708',
  ])
  t.equal(relay.open('edge-7', 1), undefined, 'no more streams')
})

t.test('a stream from open to its end, half by half', async (t) => {
  const { relay, agent, open, carry, told } = create()
  const [here, there] = open()
  t.match(there.stream, { host: 'edge-7', port: 10250, id: 1 })
  here.stream.write(Buffer.from('question'), () => here.told.push('written'))
  carry()
  t.equal(there.text, 'question')
  here.stream.end(() => here.told.push('end sent'))
  carry()
  t.same(there.told, ['ended'])
  there.stream.write(Buffer.from('answer'), () => {})
  carry()
  t.equal(here.text, 'answer', 'the other half goes on')
  there.stream.end(() => {})
  carry()
  t.same(here.told, ['opened', 'written', 'end sent', 'ended'])
  t.same([relay.streams, agent.streams], [0, 0])
  t.same(told.slice(2), ['agent idle', 'relay idle'])
  t.equal(here.stream.read(), null)
})

t.test('what is not read when both have ended is kept, and all before the end', async (t) => {
  const { relay, open, carry } = create()
  const [here, there] = open()
  here.hungry = false
  there.stream.write(Buffer.from('exit code 3'), () => there.stream.end(() => {}))
  here.stream.end(() => {})
  carry()
  t.equal(relay.streams, 1)
  here.eat()
  t.equal(here.text, 'exit code 3')
  t.equal(relay.streams, 0)
})

t.test('a window that is due when the end comes is not sent', async (t) => {
  const { relay, agent, open, carry } = create()
  const [here, there] = open()
  here.hungry = false
  there.pour(100_000)
  for (let message = pull(agent); message !== undefined; message = pull(agent)) relay.receive(message, true, 0)
  here.eat()
  there.stream.end(() => {})
  relay.receive(pull(agent)!, true, 0)
  carry()
  t.same(here.told, ['opened', 'ended'])
  t.equal(agent.streams, 1)
})

t.test('resets', async (t) => {
  const rows: readonly [name: string, cut: (here: User, there: User) => void, here: string[], there: string[]][] = [
    ['by who opened', (here) => here.stream.reset('cancelled', 'Ctrl-C'), ['opened'], ['cancelled: Ctrl-C']],
    ['by who accepted', (_, there) => there.stream.reset('broken', 'gone'), ['opened', 'broken: gone'], []],
    [
      'by both',
      (here, there) => {
        here.stream.reset('cancelled', '')
        there.stream.reset('broken', '')
      },
      ['opened'],
      [],
    ],
  ]
  for (const [name, cut, hereTold, thereTold] of rows) {
    const { relay, agent, open, carry } = create()
    const [here, there] = open()
    here.pour(10_000_000)
    there.pour(10_000_000)
    carry(3)
    cut(here, there)
    carry()
    t.same([here.told, there.told], [hereTold, thereTold], name)
    here.eat()
    there.eat()
    t.same([relay.streams, agent.streams], [0, 0], `${name}: nothing is left`)
    here.stream.write(Buffer.from('late'), () => t.fail('written after a reset'))
    carry()
  }
})

t.test('a dial that is refused', async (t) => {
  const { relay, accepted, carry } = create()
  const here = new User(relay.open('192.168.1.1', 22)!)
  carry()
  accepted[0]!.stream.reset('refused', 'not open to the cloud')
  carry()
  t.same(here.told, ['refused: not open to the cloud'])
  t.equal(relay.streams, 0)
})

t.test('what came before a reset can still be read', async (t) => {
  const { open, carry } = create()
  const [here, there] = open()
  here.hungry = false
  there.stream.write(Buffer.from('last words'), () => {})
  carry()
  there.stream.reset('broken', '')
  carry()
  t.equal(here.stream.read()?.toString(), 'last words')
  t.equal(here.stream.read(), undefined)
})

t.test('any order of writes, reads, ends and resets: what arrives is what was sent', async (t) => {
  const next = random(5)
  for (let world = 0; world < 30; world++) {
    const { relay, agent, open, carry } = create()
    const users = Array.from({ length: 1 + Math.floor(next() * 6) }, open).flatMap(([here, there]) => [
      { from: here, to: there, sent: [] as Buffer[], busy: false, ended: false },
      { from: there, to: here, sent: [] as Buffer[], busy: false, ended: false },
    ])
    for (let step = 0; step < 400; step++) {
      const way = users[Math.floor(next() * users.length)]!
      const dice = next()
      if (dice < 0.5 && !way.busy && !way.ended) {
        const chunk = Buffer.alloc(1 + Math.floor(next() ** 4 * 100_000), Math.floor(next() * 256))
        way.busy = true
        way.sent.push(chunk)
        way.from.stream.write(chunk, () => (way.busy = false))
      } else if (dice < 0.6) way.to.hungry = false
      else if (dice < 0.7) way.to.eat()
      else if (dice < 0.72 && !way.busy && !way.ended) {
        way.ended = true
        way.from.stream.end(() => {})
      } else carry(Math.floor(next() * 3))
    }
    for (let i = 0; i < 1000 && (relay.streams > 0 || i < 3); i++) {
      for (const way of users) {
        way.to.eat()
        if (way.busy || way.ended) continue
        way.ended = true
        way.from.stream.end(() => {})
      }
      carry()
    }
    for (const { to, sent } of users)
      if (!Buffer.concat(to.got).equals(Buffer.concat(sent))) t.fail(`world ${world}: bytes differ`)
    t.same([relay.streams, agent.streams], [0, 0], `world ${world}`)
  }
})

const data = (stream: number, length: number, flags = 0): Buffer => {
  const frame = Buffer.alloc(8 + length)
  writeDataHeader(frame, 0, stream, length, flags)
  return frame
}
const ping: SentFrame = { kind: 'ping', token: Buffer.alloc(8) }
const reset: SentFrame = { kind: 'reset', stream: 1, reason: 'broken', text: '' }

t.test('each bound that a hostile agent breaks ends the session by name', async (t) => {
  type Row = [name: string, violation: string, frames: readonly (SentFrame | Buffer)[]]
  const rows: readonly Row[] = [
    ['opens a stream', 'frame of the other side', [{ kind: 'open', stream: 9, windowBytes: 1, host: 'x', port: 1 }]],
    ['greets again', 'greeted twice', [{ kind: 'hello', text: '{}' }]],
    ['greets as a relay', 'frame of the other side', [{ kind: 'welcome', text: '{}' }]],
    ['accepts twice', 'stream opened twice', [{ kind: 'opened', stream: 1, windowBytes: 5 }]],
    ['accepts what was not opened', 'stream not opened', [{ kind: 'opened', stream: 3, windowBytes: 5 }]],
    ['sends on a stream of the future', 'stream not opened', [data(3, 1)]],
    ['sends on one that is not accepted yet', 'stream not opened', [data(2, 1)]],
    ['grants a window on that', 'stream not opened', [{ kind: 'window', stream: 2, consumed: 0, limit: 5 }]],
    ['sends beyond the window', 'data beyond the window', Array(17).fill(data(1, 16_384))],
    ['sends after its end', 'data after the end', [data(1, 1, 1), data(1, 1)]],
    ['ends twice', 'data after the end', [data(1, 0, 1), data(1, 0, 1)]],
    ['says again that it is blocked', 'empty frame', [data(1, 5, 2), data(1, 0, 2)]],
    ['takes a window back', 'window went back', [{ kind: 'window', stream: 1, consumed: 0, limit: 5 }]],
    ['consumes what was not sent', 'window went back', [{ kind: 'window', stream: 1, consumed: 1, limit: 2 ** 40 }]],
    ['pings without end', 'too many pings', Array(17).fill(ping)],
    ['leaves without end', 'too many stray frames', Array(20_002).fill({ kind: 'goaway', text: '' })],
    ['sends on what is over without end', 'too many stray frames', [reset, ...Array(20_001).fill(data(1, 1))]],
    [
      'sends what nobody knows without end',
      'too many stray frames',
      Array(20_001).fill(Buffer.from('000000f000000000', 'hex')),
    ],
  ]
  for (const [name, violation, frames] of rows) {
    const { relay, open, carry } = create()
    const [user] = open()
    user.hungry = false
    relay.open('edge-7', 2)
    carry()
    const message = Buffer.concat(frames.map((frame) => (Buffer.isBuffer(frame) ? frame : encodeMux(frame))))
    t.throws(() => relay.receive(message, true, 0), { name: 'ProtocolError', violation }, name)
  }
  const fresh = new MuxSession('opener', {
    ...{ ready: () => {}, greeted: () => {}, opened: () => {}, goAway: () => {}, pong: () => {}, idle: () => {} },
  })
  t.throws(() => fresh.receive(encodeMux(ping), true, 0), { name: 'ProtocolError', violation: 'not greeted' })
})

t.test('a relay that opens without end', async (t) => {
  const { agent } = create()
  const open = (stream: number) => encodeMux({ kind: 'open', stream, windowBytes: 1, host: 'x', port: 1 })
  agent.receive(open(5), true, 0)
  t.throws(() => agent.receive(open(5), true, 0), { name: 'ProtocolError', violation: 'stream opened twice' })
  const flood = (): void => {
    for (let i = 6; i < 10_000; i++) agent.receive(open(i), true, 0)
  }
  t.throws(flood, { name: 'ProtocolError', violation: 'too many streams' }, 'while it takes no answer')
  t.equal(agent.streams, MAX_STREAMS)
})

t.test('when the connection is gone all streams are', async (t) => {
  const { relay, agent, open } = create()
  const [here, there] = open()
  there.pour(1000)
  relay.close('broken', 'the session ended')
  agent.close('broken', 'the session ended')
  t.same(here.told, ['opened', 'broken: the session ended'])
  t.same(there.told, ['broken: the session ended'])
  t.same([relay.streams, agent.streams, pull(relay), relay.usable], [0, 0, undefined, false])
})
