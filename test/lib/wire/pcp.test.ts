// PCP and NAT-PMP as RFC 6887 §7, §11 and RFC 6886 §3 draw them, and answers that a miniupnpd 2.3.1 gave.

import { randomBytes, randomInt } from 'node:crypto'
import t from 'tap'
import {
  decodeMappingReply,
  encodeAnnounceRequest,
  encodeMapRequest,
  encodePmpAddressRequest,
  encodePmpMapRequest,
  resultText,
} from '../../../lib/wire/pcp.ts'

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex')
const nonce = hex('0102030405060708090a0b0c')
const V4 = '0000 0000 0000 0000 0000 ffff'

t.test('requests have these bytes', async (t) => {
  const request = { client: '192.168.1.2', nonce, internalPort: 22_000, lifetimeSeconds: 7_200 }
  t.same(
    encodeMapRequest(request),
    hex(`02 01 0000 00001c20 ${V4} c0a80102  0102030405060708090a0b0c 11 000000 55f0 55f0 ${V4} 00000000`),
    'MAP, any external address of the same family',
  )
  const external = { address: '198.51.100.1', port: 4500, family: 4 } as const
  t.same(
    encodeMapRequest({ ...request, external }),
    hex(`02 01 0000 00001c20 ${V4} c0a80102  0102030405060708090a0b0c 11 000000 55f0 1194 ${V4} c6336401`),
    'MAP, as before',
  )
  t.same(
    encodeMapRequest({ ...request, client: '2001:db8::2' }),
    hex(
      `02 01 0000 00001c20 20010db8000000000000000000000002
       0102030405060708090a0b0c 11 000000 55f0 55f0 00000000000000000000000000000000`,
    ),
    'MAP of an IPv6 address',
  )
  t.same(encodeAnnounceRequest('192.168.1.2'), hex(`02 00 0000 00000000 ${V4} c0a80102`), 'ANNOUNCE')
  t.same(encodePmpAddressRequest(), hex('00 00'))
  t.same(
    encodePmpMapRequest({ internalPort: 22_000, external, lifetimeSeconds: 7_200 }),
    hex('00 01 0000 55f0 1194 00001c20'),
  )
  t.throws(() => encodeAnnounceRequest('router'), TypeError)
})

t.test('answers are read', async (t) => {
  const mapped = hex(
    `02 81 00 00 00001c20 00000001 000000000000000000000000
     0102030405060708090a0b0c 11 000000 55f0 55f1 ${V4} c6140001`,
  )
  const expected = {
    kind: 'pcp-map',
    result: 0,
    lifetimeSeconds: 7_200,
    epochSeconds: 1,
    nonce,
    protocol: 17,
    internalPort: 22_000,
    external: { address: '198.20.0.1', port: 22_001, family: 4 },
  }
  t.same(decodeMappingReply(mapped), expected, 'a mapping')
  t.same(decodeMappingReply(Buffer.concat([mapped, hex('03000000')])), expected, 'with an option behind it')
  t.same(
    decodeMappingReply(
      hex(
        `02 81 00 08 0000001e 00000009 000000000000000000000000
         0102030405060708090a0b0c 11 000000 55f0 55f0 20010db8000200000000000000000002`,
      ),
    ),
    {
      ...expected,
      result: 8,
      lifetimeSeconds: 30,
      epochSeconds: 9,
      external: { address: '2001:db8:2::2', port: 22_000, family: 6 },
    },
    'a refusal',
  )
  t.same(decodeMappingReply(hex('02 80 00 00 00000000 00000007 000000000000000000000000')), {
    kind: 'pcp-announce',
    result: 0,
    epochSeconds: 7,
  })
  t.same(decodeMappingReply(hex('00 80 0000 00000003 c6140001')), {
    kind: 'pmp-address',
    result: 0,
    epochSeconds: 3,
    address: '198.20.0.1',
  })
  t.same(
    decodeMappingReply(hex('00 80 0003 00000003')),
    { kind: 'pmp-address', result: 3, epochSeconds: 3, address: '0.0.0.0' },
    'no address',
  )
  t.same(decodeMappingReply(hex('00 81 0000 00000003 55f0 55f1 00001c20')), {
    kind: 'pmp-map',
    result: 0,
    epochSeconds: 3,
    internalPort: 22_000,
    externalPort: 22_001,
    lifetimeSeconds: 7_200,
  })
  for (const [name, bytes, version] of [
    ['a router that knows NAT-PMP only', '00 81 0001 00000003', 0],
    ['one that knows a draft of PCP only', '01 81 00 01 00000000 00000003 000000000000000000000000', 1],
  ] as const)
    t.same(decodeMappingReply(hex(bytes)), { kind: 'unsupported-version', version }, name)
})

t.test('what is no answer is none', async (t) => {
  for (const [name, bytes] of [
    ['nothing', ''],
    ['a request', '02 01 0000 00001c20'],
    ['a request of NAT-PMP', '00 00 0000'],
    ['half a header', '02 81 00 00 00001c20 0000'],
    ['half a mapping', `02 81 00 00 00001c20 00000001 000000000000000000000000 0102030405060708090a0b0c 11`],
    ['a version to come', '03 81 00 00 00001c20 00000001 000000000000000000000000'],
    ['another opcode', '02 82 00 00 00001c20 00000001 000000000000000000000000'],
    ['a short NAT-PMP mapping', '00 81 0000 00000003 55f0'],
    ['a NAT-PMP mapping of TCP', '00 82 0000 00000003 55f0 55f1 00001c20'],
  ] as const)
    t.equal(decodeMappingReply(hex(bytes)), undefined, name)
  const long = Buffer.alloc(1_101)
  long.set(hex('02 80'))
  t.equal(decodeMappingReply(long), undefined, 'longer than PCP may be')
})

t.test('random bytes do no harm', async (t) => {
  for (let i = 0; i < 20_000; i++) {
    const bytes = randomBytes(randomInt(0, 80))
    if (bytes.length > 3) bytes.set([randomInt(0, 4), randomInt(0x80, 0x84), 0, randomInt(0, 3)])
    decodeMappingReply(bytes)
  }
  t.pass()
})

t.test('results in words', async (t) => {
  t.match(resultText('pcp', 12), /another NAT/)
  t.equal(resultText('nat-pmp', 3), 'network failure')
  t.equal(resultText('pcp', 99), 'result code 99')
})
