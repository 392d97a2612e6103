import t from 'tap'
import {
  decodeSignal,
  digestOf,
  digestsText,
  encodeSignal,
  readDigests,
  type SignalFrame,
} from '../../../lib/wire/signal.ts'

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
  { kind: 'hello', version: 1, role: 'gateway' },
  { kind: 'hello', version: 1, role: 'gateway', known: 'AAAAAAAABBBBBBBB' },
]
for (const frame of frames) t.same(decodeSignal(encodeSignal(frame)), frame, frame.kind)
t.equal(decodeSignal('{"kind":"udp-later","node":"h1"}'), undefined, 'a kind of a later version')

const wrong: readonly (readonly [string, object])[] = [
  ['no node', { kind: 'udp-request' }],
  ['digests that are none', { kind: 'hello', version: 1, role: 'gateway', known: ['AAAAAAAA'] }],
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

const signed = { certificate: 'c', payload: 'p', signature: 's' }
const others = [
  { ...signed, certificate: 'd' },
  { ...signed, payload: 'q' },
  { ...signed, signature: 't' },
]
const digests = readDigests(digestsText([signed, ...others]))
t.equal(digests.size, 4, 'whatever differs, the digest does')
t.ok(digests.has(digestOf({ ...signed })))
t.equal(readDigests('').size, 0)
t.ok(digestsText(Array(4096).fill(signed)).length < 60_000, 'those of as many as a gateway remembers fit into a frame')
