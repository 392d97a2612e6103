import t from 'tap'
import type { SocketAddress } from '../../lib/address.ts'
import { decodeStun, encodeStun, type StunMessage } from '../../lib/wire/stun.ts'
import { respond, type StunSockets } from '../../relay/stun.ts'

const at = (address: string, port: number): SocketAddress => ({ address, port, family: 4 })
const [A1, A2, B1, B2] = [
  at('203.0.113.10', 3478),
  at('203.0.113.10', 3479),
  at('203.0.113.11', 3478),
  at('203.0.113.11', 3479),
]
const TWO: StunSockets = [A1, A2, B1, B2]
const ONE: StunSockets = [A1, A2]
const ANY: StunSockets = [at('0.0.0.0', 3478), at('0.0.0.0', 3479)]
const SOURCE = at('198.51.100.7', 40000)

const request: StunMessage = {
  class: 'request',
  method: 1,
  transactionId: Buffer.from('0102030405060708090a0b0c', 'hex'),
  classic: false,
  unknownAttributes: [],
}
const change = (address: boolean, port: boolean): StunMessage => ({ ...request, changeRequest: { address, port } })
const classic: StunMessage = { ...request, classic: true, transactionId: Buffer.alloc(16, 7) }
const unknown = Buffer.concat([encodeStun(request), Buffer.from('7f0000047f0100007f7f0000', 'hex')])
unknown.writeUInt16BE(12, 2)

type Expected = { readonly from: number; readonly port?: number; readonly message: Partial<StunMessage> }
const mapped = { class: 'success', xorMappedAddress: SOURCE, mappedAddress: SOURCE } as const
const refused = (attribute: number) =>
  ({ class: 'error', errorCode: { code: 420, reason: 'Unknown Attribute' }, unknownAttributes: [attribute] }) as const
const bad = { class: 'error', errorCode: { code: 400, reason: 'Bad Request' } } as const

const rows: readonly (readonly [string, StunSockets, number, StunMessage | Buffer, Expected | undefined])[] = [
  ['plain to A:p1', TWO, 0, request, { from: 0, message: { ...mapped, responseOrigin: A1, otherAddress: B2 } }],
  ['plain to B:p2', TWO, 3, request, { from: 3, message: { ...mapped, responseOrigin: B2, otherAddress: A1 } }],
  ['plain to A:p2', TWO, 1, request, { from: 1, message: { ...mapped, responseOrigin: A2, otherAddress: B1 } }],
  ['change nothing', TWO, 0, change(false, false), { from: 0, message: { ...mapped, responseOrigin: A1 } }],
  [
    'change port',
    TWO,
    0,
    change(false, true),
    { from: 1, message: { ...mapped, responseOrigin: A2, otherAddress: B2 } },
  ],
  [
    'change address',
    TWO,
    0,
    change(true, false),
    { from: 2, message: { ...mapped, responseOrigin: B1, otherAddress: B2 } },
  ],
  [
    'change both',
    TWO,
    0,
    change(true, true),
    { from: 3, message: { ...mapped, responseOrigin: B2, otherAddress: B2 } },
  ],
  [
    'change both on B:p1',
    TWO,
    2,
    change(true, true),
    { from: 1, message: { ...mapped, responseOrigin: A2, otherAddress: A2 } },
  ],
  ['one address', ONE, 0, request, { from: 0, message: { ...mapped, responseOrigin: A1, otherAddress: undefined! } }],
  ['one address, change nothing', ONE, 0, change(false, false), { from: 0, message: refused(3) }],
  [
    'one address, RFC 3489, change nothing',
    ONE,
    0,
    { ...classic, changeRequest: { address: false, port: false } },
    { from: 0, message: { class: 'success', mappedAddress: SOURCE } },
  ],
  ['one address, change port', ONE, 1, change(false, true), { from: 1, message: refused(3) }],
  ['one address, change both', ONE, 0, change(true, true), { from: 0, message: refused(3) }],
  ['any address', ANY, 0, request, { from: 0, message: { ...mapped, responseOrigin: undefined! } }],
  ['response port', TWO, 0, { ...request, responsePort: 5000 }, { from: 0, port: 5000, message: mapped }],
  ['response port 0', TWO, 0, { ...request, responsePort: 0 }, { from: 0, message: bad }],
  ['padding', TWO, 0, { ...request, padding: 1400 }, { from: 0, message: { ...mapped, padding: 1400 } }],
  ['padding to another port', TWO, 0, { ...request, padding: 4, responsePort: 9 }, { from: 0, message: bad }],
  [
    'RFC 3489',
    TWO,
    0,
    classic,
    { from: 0, message: { class: 'success', classic: true, mappedAddress: SOURCE, otherAddress: B2 } },
  ],
  [
    'RFC 3489, change both',
    TWO,
    0,
    { ...classic, changeRequest: { address: true, port: true } },
    { from: 3, message: { mappedAddress: SOURCE } },
  ],
  [
    'a malformed attribute',
    TWO,
    0,
    Buffer.concat([unknown.subarray(0, 20), Buffer.from('00200004000000000000000000', 'hex')]),
    undefined,
  ],
  ['another method', TWO, 0, { ...request, method: 3 }, undefined],
  ['an indication', TWO, 0, { ...request, class: 'indication' }, undefined],
  ['an answer', TWO, 0, { ...request, class: 'success' }, undefined],
  ['no STUN', TWO, 0, Buffer.from('GET / HTTP/1.1\r\n\r\n      '), undefined],
]
for (const [name, sockets, received, input, expected] of rows) {
  const datagram = Buffer.isBuffer(input) ? input : encodeStun(input)
  const reply = respond(sockets, received, datagram, SOURCE)
  if (expected === undefined) {
    t.equal(reply, undefined, name)
    continue
  }
  t.equal(reply?.from, expected.from, `${name}: socket`)
  t.equal(reply?.port, expected.port ?? SOURCE.port, `${name}: port`)
  const message: Partial<StunMessage> = decodeStun(reply!.datagram)!
  for (const [key, value] of Object.entries(expected.message))
    t.strictSame(message[key as keyof StunMessage], value, `${name}: ${key}`)
}

t.test('every attribute that is not understood is named', async (t) => {
  const reply = respond(TWO, 0, unknown, SOURCE)
  t.match(decodeStun(reply!.datagram), { errorCode: { code: 420 }, unknownAttributes: [0x7f00, 0x7f7f] })
})

t.test('an answer is at most four addresses longer than its request', async (t) => {
  const v6 = (address: string, port: number): SocketAddress => ({ address, port, family: 6 })
  const sockets: StunSockets = [v6('2001:db8::1', 1), v6('2001:db8::1', 2), v6('2001:db8::2', 1), v6('2001:db8::2', 2)]
  for (const padding of [undefined, 4, 1400, 8000]) {
    const datagram = encodeStun({ ...request, ...(padding === undefined ? {} : { padding }) })
    const reply = respond(sockets, 0, datagram, v6('2001:db8:7::1', 40000))!.datagram
    t.ok(reply.length - datagram.length <= 96, `${datagram.length} bytes are answered by ${reply.length}`)
  }
})
