import t from 'tap'
import { createHash, createHmac, randomBytes, randomInt } from 'node:crypto'
import type { SocketAddress } from '../../../lib/address.ts'
import { decodeStun, encodeStun, hasIntegrity, isStun, type StunMessage } from '../../../lib/wire/stun.ts'

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(/\s/g, ''), 'hex')

// RFC 5769 §2.1-2.3, as printed there.
const KEY = Buffer.from('VOkJxbRl1RmTxUk/WvJxBt')
const REQUEST = bytes(`
  00 01 00 58 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 10 53 54 55 4e 20 74 65 73 74 20 63 6c 69 65
  6e 74 00 24 00 04 6e 00 01 ff 80 29 00 08 93 2f f9 b1 51 26 3b 36 00 06 00 09 65 76 74 6a 3a 68 36 76 59 20 20 20
  00 08 00 14 9a ea a7 0c bf d8 cb 56 78 1e f2 b5 b2 d3 f2 49 c1 b5 71 a2 80 28 00 04 e5 7a 3b cf`)
const RESPONSE_V4 = bytes(`
  01 01 00 3c 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20 00 20
  00 08 00 01 a1 47 e1 12 a6 43 00 08 00 14 2b 91 f5 99 fd 9e 90 c3 8c 74 89 f9 2a f9 ba 53 f0 6b e7 d7 80 28 00 04
  c0 7d 4c 96`)
const RESPONSE_V6 = bytes(`
  01 01 00 48 21 12 a4 42 b7 e7 a7 01 bc 34 d6 86 fa 87 df ae 80 22 00 0b 74 65 73 74 20 76 65 63 74 6f 72 20 00 20
  00 14 00 02 a1 47 01 13 a9 fa a5 d3 f1 79 bc 25 f4 b5 be d2 b9 d9 00 08 00 14 a3 82 95 4e 4b e6 7b f1 17 84 c9 7c
  82 92 c2 75 bf e3 ed 41 80 28 00 04 c8 fb 0b 4c`)
const TRANSACTION = bytes('b7e7a701bc34d686fa87dfae')
const V4: SocketAddress = { address: '192.0.2.1', port: 32853, family: 4 }
const V6: SocketAddress = { address: '2001:db8:1234:5678:11:2233:4455:6677', port: 32853, family: 6 }

const plain = { method: 1, transactionId: TRANSACTION, classic: false, unknownAttributes: [] } as const
const vectors: readonly (readonly [string, Buffer, StunMessage])[] = [
  ['2.1 request', REQUEST, { ...plain, class: 'request', username: 'evtj:h6vY', priority: 0x6e0001ff }],
  ['2.2 IPv4 response', RESPONSE_V4, { ...plain, class: 'success', xorMappedAddress: V4 }],
  ['2.3 IPv6 response', RESPONSE_V6, { ...plain, class: 'success', xorMappedAddress: V6 }],
]
for (const [name, vector, message] of vectors) {
  t.ok(isStun(vector), name)
  t.strictSame(decodeStun(vector), message, `RFC 5769 ${name}`)
  t.ok(hasIntegrity(vector, KEY), `${name}: its key`)
  t.notOk(hasIntegrity(vector, Buffer.from('another')), `${name}: another key`)
  const damaged = Buffer.from(vector)
  damaged[30]! ^= 1
  t.equal(decodeStun(damaged), undefined, `${name}: a wrong FINGERPRINT`)
  t.notOk(hasIntegrity(damaged, KEY), `${name}: a wrong MAC`)
  t.strictSame(decodeStun(Buffer.concat([vector, bytes('ffff')])), message, `${name}: bytes behind it`)
}

// RFC 8489 appendix B.1 with erratum 6268.
const SHA256_REQUEST = bytes(`
  0001 0090 2112a442 78ad3433c6ad72c029da412e
  001e 0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
  0015 0029 ${Buffer.from('obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA').toString('hex')} 000000
  0014 000b ${Buffer.from('example.org').toString('hex')} 00
  001d 0004 00020000
  001c 0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65`)
const SHA256_KEY = createHash('sha256').update('マトリックス:example.org:TheMatrIX').digest()
t.ok(hasIntegrity(SHA256_REQUEST, SHA256_KEY), 'RFC 8489 B.1: MESSAGE-INTEGRITY-SHA256')
t.notOk(hasIntegrity(SHA256_REQUEST, KEY))
t.strictSame(decodeStun(SHA256_REQUEST), {
  ...plain,
  class: 'request',
  transactionId: bytes('78ad3433c6ad72c029da412e'),
  nonce: 'obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA',
})

t.test('of two proofs the SHA-256 one counts', async (t) => {
  const key = randomBytes(32)
  const both = (first: Buffer, second: Buffer): Buffer => {
    const seal = (datagram: Buffer, type: string, algorithm: string, key: Buffer): Buffer => {
      const macBytes = algorithm === 'sha1' ? 20 : 32
      datagram.writeUInt16BE(datagram.length - 20 + 4 + macBytes, 2)
      const mac = createHmac(algorithm, key).update(datagram).digest()
      return Buffer.concat([datagram, bytes(type), mac])
    }
    const request = encodeStun({ ...plain, class: 'request', username: 'evtj:h6vY' })
    return seal(seal(request, '00080014', 'sha1', first), '001c0020', 'sha256', second)
  }
  t.ok(hasIntegrity(both(key, key), key))
  t.ok(hasIntegrity(both(KEY, key), key))
  t.notOk(hasIntegrity(both(key, KEY), key))
})

const all: StunMessage = {
  ...plain,
  class: 'request',
  mappedAddress: V4,
  xorMappedAddress: V6,
  responseOrigin: V6,
  otherAddress: V4,
  changeRequest: { address: true, port: false },
  responsePort: 65535,
  priority: 0xffffffff,
  username: 'größe',
  nonce: 'once',
  padding: 1200,
}
const CLASSIC_TRANSACTION = bytes('000102030405060708090a0b0c0d0e0f')
const messages: readonly (readonly [string, StunMessage])[] = [
  ['nothing but a header', { ...plain, class: 'indication' }],
  ['every attribute', all],
  ['the highest method', { ...plain, class: 'success', method: 0xfff }],
  ['any other method', { ...plain, class: 'error', method: 0x5a5 }],
  [
    'an error that names attributes',
    { ...plain, class: 'error', errorCode: { code: 420, reason: 'Unknown Attribute' }, unknownAttributes: [3, 0x7fff] },
  ],
  ['the lowest and the highest error', { ...plain, class: 'error', errorCode: { code: 300, reason: '' } }],
  ['the highest error', { ...plain, class: 'error', errorCode: { code: 699, reason: 'x'.repeat(763) } }],
  [
    'RFC 3489',
    {
      ...plain,
      class: 'success',
      classic: true,
      transactionId: CLASSIC_TRANSACTION,
      mappedAddress: V4,
      otherAddress: V4,
    },
  ],
]
for (const [name, message] of messages) {
  const key = randomBytes(32)
  for (const [proofs, options] of [
    ['plain', {}],
    ['fingerprint', { fingerprint: true }],
    ['integrity', { integrityKey: key }],
    ['both', { integrityKey: key, fingerprint: true }],
  ] as const) {
    const datagram = encodeStun(message, options)
    t.strictSame(decodeStun(datagram), message, `${name}, ${proofs}: round trip`)
    t.equal(datagram.length % 4, 0)
    t.equal(isStun(datagram), !message.classic)
    const sealed = 'integrityKey' in options && !message.classic
    t.equal(hasIntegrity(datagram, key), sealed, `${name}, ${proofs}: integrity`)
    if (!sealed) continue
    t.notOk(hasIntegrity(datagram, randomBytes(32)), `${name}, ${proofs}: another key`)
    datagram[8]! ^= 1
    t.notOk(hasIntegrity(datagram, key), `${name}, ${proofs}: another transaction`)
  }
}

const header = (type: string, length: number): string =>
  `${type} ${length.toString(16).padStart(4, '0')} 2112a442 ${TRANSACTION.toString('hex')}`
const odd: readonly (readonly [string, string, Partial<StunMessage> | undefined])[] = [
  ['an unknown attribute that may be ignored', header('0001', 8) + 'c057 0004 00000001', { unknownAttributes: [] }],
  [
    'unknown ones that must be understood',
    header('0001', 12) + '7f00 0000 7f01 0004 00000001',
    { unknownAttributes: [0x7f00, 0x7f01] },
  ],
  [
    'REALM and NONCE mean nothing here',
    header('0001', 16) + '0014 0003 61626300 0015 0001 61000000',
    { unknownAttributes: [] },
  ],
  ['of two the first counts', header('0001', 16) + '0024 0004 00000001 0024 0004 00000002', { priority: 1 }],
  ['RESPONSE-PORT of 2 bytes', header('0001', 8) + '0027 0002 d431 0000', { responsePort: 54321 }],
  ['a length that is no multiple of 4', header('0001', 2) + '0000', undefined],
  ['an attribute longer than the message', header('0001', 8) + '0006 0008 61626364', undefined],
  ['a message longer than the datagram', header('0001', 12) + '0006 0004 61626364', undefined],
  ['an address of no family', header('0101', 12) + '0020 0008 0003 1234 01020304', undefined],
  ['an IPv4 address of 16 bytes', header('0101', 24) + '0020 0014 0001 1234' + '00'.repeat(16), undefined],
  ['CHANGE-REQUEST without a value', header('0001', 4) + '0003 0000', undefined],
  ['a first byte over 3f', header('8001', 0), undefined],
]
for (const [name, hex, expected] of odd) {
  const message = decodeStun(bytes(hex))
  if (expected === undefined) t.equal(message, undefined, name)
  else t.match(message, expected, name)
}

t.test('what stands behind an integrity attribute is neither read nor counted', async (t) => {
  const key = randomBytes(20)
  const sealed = encodeStun({ ...plain, class: 'request', username: 'a' }, { integrityKey: key })
  const forged = Buffer.concat([sealed, bytes('0024 0004 00000007 0003 0004 00000006')])
  forged.writeUInt16BE(forged.length - 20, 2)
  t.strictSame(decodeStun(forged), { ...plain, class: 'request', username: 'a' })
  t.ok(hasIntegrity(forged, key), 'the covered part is as it was')
  const empty = Buffer.concat([encodeStun({ ...plain, class: 'request' }), bytes('001c 0000')])
  empty.writeUInt16BE(4, 2)
  t.notOk(hasIntegrity(empty, key), 'a MAC of no bytes matches nothing')
})

const refused: readonly (readonly [string, StunMessage, RegExp])[] = [
  ['a short transaction id', { ...plain, class: 'request', transactionId: Buffer.alloc(8) }, /8 bytes instead of 12/],
  ['a long user name', { ...plain, class: 'request', username: 'x'.repeat(509) }, /USERNAME of 509/],
  ['a long nonce', { ...plain, class: 'request', nonce: 'x'.repeat(764) }, /NONCE of 764/],
  ['no error code', { ...plain, class: 'error', errorCode: { code: 200, reason: '' } }, /300 to 699/],
  ['no address', { ...plain, class: 'success', mappedAddress: { address: '1.2.3', port: 1, family: 4 } }, /1\.2\.3/],
  ['an address of another family', { ...plain, class: 'success', mappedAddress: { ...V6, family: 4 } }, /IPv4/],
  ['no port', { ...plain, class: 'success', mappedAddress: { ...V4, port: 65536 } }, /range/],
  ['a response port over 16 bits', { ...plain, class: 'request', responsePort: 65536 }, /range/],
  ['odd padding', { ...plain, class: 'request', padding: 3 }, /multiple of 4/],
  ['more than a datagram', { ...plain, class: 'request', padding: 65504 }, /datagram/],
  ['a method of 13 bits', { ...plain, class: 'request', method: 0x1000 }, /12 bits/],
]
for (const [name, message, pattern] of refused) t.throws(() => encodeStun(message), pattern, name)

t.test('random bytes and truncations never throw', async (t) => {
  const seeds = [REQUEST, RESPONSE_V4, RESPONSE_V6, encodeStun(all, { integrityKey: KEY })]
  let decoded = 0
  const read = (datagram: Buffer): void => {
    if (decodeStun(datagram) !== undefined) decoded++
    hasIntegrity(datagram, KEY)
  }
  for (const seed of seeds)
    for (let length = 0; length < Math.min(seed.length, 200); length++) read(seed.subarray(0, length))
  t.equal(decoded, 0, 'no truncation is a message')
  for (let round = 0; round < 20_000; round++) {
    const datagram = randomBytes(randomInt(0, 120))
    // Most rounds look like STUN, or nothing behind the header would be read.
    if (datagram.length >= 20 && round % 4 !== 0) {
      bytes('0001').copy(datagram, 0)
      datagram.writeUInt16BE((datagram.length - 20) & ~3, 2)
      bytes('2112a442').copy(datagram, 4)
      if (datagram.length >= 24) datagram.writeUInt16BE(randomInt(0, datagram.length), 22)
      if (datagram.length >= 24 && round % 2 === 0) datagram.writeUInt16BE(randomInt(0, 0x30), 20)
    }
    read(datagram)
  }
  t.ok(decoded > 10, `${decoded} of them were messages`)
})
