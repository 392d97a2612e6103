import { randomBytes } from 'node:crypto'
import t from 'tap'
import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { decodeStun, hasIntegrity } from '../../lib/wire/stun.ts'
import { encodeBindRequest, nonceFor, ORIGIN_PORT_OFFSET } from '../../lib/wire/udp-bind.ts'
import { judge } from '../../relay/udp-binding.ts'
import { createPortPairs } from '../../relay/udp-relay.ts'
import { createUdpSessions, isWanted, readyFamilies, type Session } from '../../relay/udp-sessions.ts'

const cookie = () => randomBytes(32)
const at = (port: number): SocketAddress => socketAddress('192.0.2.2', port)!

function open(last = 40007) {
  const sessions = createUdpSessions(createPortPairs({ first: 40000, last }))
  const ask = (from: string, to: string, nowMs = 0): Session => {
    const asked = sessions.ask(from, to, nowMs, cookie)
    if ('refused' in asked) throw new Error(asked.refused)
    return asked.session
  }
  return { sessions, ask }
}

t.test('a pair has one session, whoever asks', async (t) => {
  const { sessions, ask } = open()
  const session = ask('a', 'b')
  t.equal(ask('b', 'a', 5), session)
  t.same(
    session.map(({ node, port }) => [node, port]),
    [
      ['a', 40002],
      ['b', 40003],
    ],
  )
  t.notSame(session[0].cookie, session[1].cookie)
  t.equal(sessions.sessionOf(sessions.sideAt(40003)!)[0], session[0])
  t.same([isWanted(session[0], 150_001), isWanted(session[1], 150_001)], [false, true], 'who asked of late')
})

t.test('sessions end when a side falls silent', async (t) => {
  const { sessions, ask } = open()
  const session = ask('a', 'b')
  const [a, b] = session
  t.equal(sessions.bind(a, at(1), 10_000), undefined)
  t.same(readyFamilies(session), [])
  sessions.bind(b, at(2), 10_000)
  sessions.forwarded(b, 4)
  t.same(readyFamilies(session), [], 'bound, but the kernel does not forward to it yet')
  sessions.forwarded(a, 4)
  t.same(readyFamilies(session), [4])
  t.match(sessions.bind(a, at(3), 50_000), { place: at(1), forwarded: true }, 'told where it was')
  t.same(readyFamilies(session), [4], 'packets pass, for the moment to where it was')
  t.same(sessions.doubt('a'), [session])
  t.same(readyFamilies(session), [], 'a began anew, and has not bound it yet')
  sessions.bind(a, at(3), 50_000)
  sessions.forwarded(a, 4)
  t.same(readyFamilies(session), [4])
  t.same(sessions.expire(69_999), { ended: [], unbound: [] })
  t.same(
    sessions.expire(70_000).unbound.map(({ side, place }) => [side.node, place]),
    [['b', at(2)]],
  )
  t.same(readyFamilies(session), [])
  sessions.bind(a, at(3), 100_000)
  const { ended } = sessions.expire(130_000)
  t.same(ended, [session], 'b has been unbound for a minute')
  sessions.end(session)
  sessions.end(session)
  t.equal(sessions.count(), 0)
  t.equal(sessions.sideAt(40002), undefined)
  t.equal(ask('a', 'b')[0].port, 40004, 'its ports rest')
  t.equal(sessions.expire(60_000).ended.length, 1, 'a session that nobody binds ends')
})

t.test('sessions are bounded', async (t) => {
  const few = open(40005)
  few.ask('a', 'b')
  few.ask('a', 'c')
  t.match(few.sessions.ask('a', 'd', 0, cookie), { refused: 'all 2 sessions of the relay are in use' })
  const many = open(49999)
  for (let i = 0; i < 512; i++) many.ask('a', `n${i}`)
  t.match(many.sessions.ask('x', 'a', 0, cookie), { refused: 'a has 512 sessions already' })
})

t.test('what the relay answers', async (t) => {
  const { sessions, ask } = open()
  const [side, other] = ask('a', 'b')
  const key = randomBytes(32)
  const places = { 4: '203.0.113.10' }
  const request = (from: { cookie: Uint8Array }, username: string, nonce?: string) =>
    encodeBindRequest(randomBytes(12), { username, cookie: from.cookie }, nonce)
  const verdict = (datagram: Buffer, source = at(5001), nowMs = 0) =>
    judge(datagram, source, sessions.sideAt, places, key, nowMs)
  const nonce = nonceFor(at(5001), '40002', key, 0)

  const challenged = verdict(request(side, '40002'))
  t.equal(challenged.kind, 'challenged')
  if (challenged.kind !== 'challenged') return
  t.ok(hasIntegrity(challenged.answer, side.cookie))
  t.match(decodeStun(challenged.answer), { errorCode: { code: 438 }, nonce })
  t.equal(challenged.answer.readUInt16BE(ORIGIN_PORT_OFFSET), 40002, 'where the kernel finds the port')
  const v6 = judge(
    request(side, '40002'),
    socketAddress('2001:db8::2', 5001)!,
    sessions.sideAt,
    { 6: '2001:db8::1' },
    key,
    0,
  )
  t.equal(v6.kind === 'challenged' && v6.answer.readUInt16BE(ORIGIN_PORT_OFFSET), 40002, 'in IPv6 too')

  const rows: readonly (readonly [string, ReturnType<typeof judge>, string])[] = [
    ['the nonce came back', verdict(request(side, '40002', nonce)), 'bound'],
    ['minutes later', verdict(request(side, '40002', nonce), at(5001), 239_999), 'bound'],
    ['too late', verdict(request(side, '40002', nonce), at(5001), 240_000), 'challenged'],
    ['from another port', verdict(request(side, '40002', nonce), at(5002)), 'challenged'],
    ['for another side', verdict(request(other, '40003', nonce)), 'challenged'],
    ['with the peer’s cookie', verdict(request(other, '40002', nonce)), 'refused'],
    ['no such side', verdict(request(side, '40006', nonce)), 'refused'],
    ['no port', verdict(request(side, 'a', nonce)), 'ignored'],
    ['a family that is not served', verdict(request(side, '40002'), socketAddress('2001:db8::2', 1)!), 'ignored'],
    ['a fragment', verdict(request(side, '40002').subarray(0, 30)), 'ignored'],
  ]
  for (const [name, { kind }, expected] of rows) t.equal(kind, expected, name)
  const forged = request(side, '40006')
  const refused = verdict(forged)
  t.ok(refused.kind === 'refused' && refused.answer.length <= forged.length, 'no more than was sent')
})
