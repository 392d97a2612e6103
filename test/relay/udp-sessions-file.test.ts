import t from 'tap'
import { socketAddress } from '../../lib/address.ts'
import { createPortPairs } from '../../relay/udp-relay.ts'
import { formatSessions, readSessions, type KeptSession } from '../../relay/udp-sessions-file.ts'
import { createUdpSessions, isWanted, readyFamilies } from '../../relay/udp-sessions.ts'

const PLACES = { 4: '203.0.113.10' }
const PORTS = { first: 40_000, last: 40_007 }
const cookie = Buffer.alloc(32, 7)

t.test('there and back', async (t) => {
  const before = createUdpSessions(createPortPairs(PORTS))
  const asked = before.ask('a', 'b', 0, () => cookie)
  if ('refused' in asked) throw new Error(asked.refused)
  const [a, b] = asked.session
  before.bind(a, socketAddress('192.0.2.2', 5001)!, 10)
  before.forwarded(a, 4)
  before.bind(b, socketAddress('198.51.100.2', 5002)!, 10)
  before.forwarded(b, 4)

  const text = formatSessions(PLACES, PORTS, before.kept(20))
  const after = createUdpSessions(createPortPairs(PORTS))
  const [session, ...more] = after.restore(readSessions(text, PLACES, PORTS), 1_000_000)
  t.same(more, [])
  t.same(
    session!.map(({ node, port, cookie, bound }) => [node, port, cookie, bound.get(4)?.place]),
    [a, b].map(({ node, port, cookie, bound }) => [node, port, cookie, bound.get(4)?.place]),
  )
  t.same(
    session!.map((side) => isWanted(side, 1_000_001)),
    [true, false],
  )
  t.same(readyFamilies(session!), [4], 'packets pass')
  after.doubt('a')
  after.doubt('b')
  t.same(readyFamilies(session!), [4], 'still, when the gateways greet the relay that was restarted')
  after.doubt('a')
  t.same(readyFamilies(session!), [], 'and not when one of them begins anew after that')

  t.equal(after.restore(readSessions(text, PLACES, PORTS), 0).length, 0, 'twice is once')
  const next = after.ask('a', 'c', 0, () => cookie)
  t.ok('session' in next && next.session[0].port !== a.port, 'its ports are taken')
  after.end(session!)
  t.same(after.kept(0).length, 1)
})

t.test('what cannot be read is nothing', async (t) => {
  const side = (node: string, places: readonly string[] = []) => ({ node, cookie: '', wanted: false, places })
  const good = { port: 40_002, sides: [side('a', ['192.0.2.2:1']), side('b')] }
  const read = (sessions: unknown, of: unknown = '203.0.113.10  40000-40007'): readonly KeptSession[] =>
    readSessions(JSON.stringify({ of, sessions }), PLACES, PORTS)
  t.equal(read([good]).length, 1)
  t.match(read([good])[0]?.sides[0].places, [{ address: '192.0.2.2', port: 1 }])
  t.same(read([{ ...good, sides: [side('a', ['nonsense', '[2001:db8::1]:1']), side('b')] }])[0]?.sides[0].places, [])
  for (const wrong of [
    null,
    7,
    {},
    { ...good, port: '1' },
    { ...good, sides: [side('a')] },
    { port: 2, sides: [1, 2] },
  ])
    t.same(read([wrong, good]).length, 1, JSON.stringify(wrong))
  t.same(read([good], '203.0.113.11  40000-40007'), [], 'of another address')
  t.same(read([good], '203.0.113.10  40000-40009'), [], 'of other ports')
  for (const text of ['', '{', '[]', 'null', '{"of":1}']) t.same(readSessions(text, PLACES, PORTS), [], text)
  const { restore } = createUdpSessions(createPortPairs(PORTS))
  const sessions = [40_000, 40_003, 40_008, 40_002].map((port) => ({ ...good, port }) as unknown as KeptSession)
  const odd = read(sessions)
  t.same(
    restore(odd, 0).map(([{ port }]) => port),
    [40_002],
    'a port that is none of a session’s',
  )
})
