import t from 'tap'
import { decodeSignal, encodeSignal, type SignalFrame } from '../../../lib/wire/signal.ts'

const endpoint = { address: '203.0.113.10', port: 40002, family: 4, ready: true } as const
const session: SignalFrame = {
  kind: 'udp-session',
  node: 'h1',
  username: '40002',
  cookie: 'abc',
  wanted: true,
  endpoints: [endpoint, { address: '2001:db8::10', port: 40002, family: 6, ready: false }],
}
const frames: readonly SignalFrame[] = [
  session,
  { kind: 'udp-request', node: 'h1' },
  { kind: 'udp-end', node: 'h1', reason: 'no port' },
  { kind: 'call', node: 'h1', reply: false },
]
for (const frame of frames) t.same(decodeSignal(encodeSignal(frame)), frame, frame.kind)
t.equal(decodeSignal('{"kind":"udp-later","node":"h1"}'), undefined, 'a kind of a later version')

const wrong: readonly (readonly [string, object])[] = [
  ['no node', { kind: 'udp-request' }],
  ['no cookie', { ...session, cookie: '' }],
  ['a long user name', { ...session, username: 'x'.repeat(65) }],
  ['no endpoints', { ...session, endpoints: 'x' }],
  ['three endpoints', { ...session, endpoints: [endpoint, endpoint, endpoint] }],
  ['an endpoint that is none', { ...session, endpoints: ['203.0.113.10:40002'] }],
  ['a name for an address', { ...session, endpoints: [{ ...endpoint, address: 'relay.example' }] }],
  ['port 0', { ...session, endpoints: [{ ...endpoint, port: 0 }] }],
  ['port 65536', { ...session, endpoints: [{ ...endpoint, port: 65536 }] }],
]
for (const [name, frame] of wrong)
  t.throws(() => decodeSignal(JSON.stringify(frame)), { code: 'FULMAR_PROTOCOL' }, name)
