import t from 'tap'
import { formatSocketAddress, parseSocketAddress, readAddress, socketAddress, writeAddress } from '../../lib/address.ts'

const texts: readonly (readonly [string, string | undefined])[] = [
  ['192.0.2.1:3478', '192.0.2.1:3478'],
  ['[2001:DB8:0::1]:3478', '[2001:db8::1]:3478'],
  ['[::ffff:192.0.2.1]:65535', '192.0.2.1:65535'],
  ['[::]:1', '[::]:1'],
  ['192.0.2.1', undefined],
  ['192.0.2.1:', undefined],
  ['192.0.2.1:0', undefined],
  ['192.0.2.1:03', undefined],
  ['192.0.2.1:65536', undefined],
  ['[192.0.2.1]:1', undefined],
  ['2001:db8::1:3478', undefined],
  ['[fe80::1%eth0]:1', undefined],
  ['10.1:53', undefined],
  ['localhost:53', undefined],
  ['', undefined],
]
for (const [text, expected] of texts) {
  const parsed = parseSocketAddress(text)
  t.equal(parsed && formatSocketAddress(parsed), expected, JSON.stringify(text))
}

const sources: readonly (readonly [string, number, ReturnType<typeof socketAddress>])[] = [
  ['::ffff:10.0.0.1', 9, { address: '10.0.0.1', port: 9, family: 4 }],
  ['::FFFF:a00:1', 9, { address: '10.0.0.1', port: 9, family: 4 }],
  ['::ffff:0:a00:1', 9, { address: '::ffff:0:a00:1', port: 9, family: 6 }],
  ['fe80::1%eth0', 9, { address: 'fe80::1', port: 9, family: 6 }],
  ['10.0.0.1', 65536, undefined],
  ['host', 1, undefined],
]
for (const [address, port, expected] of sources) t.strictSame(socketAddress(address, port), expected, address)

for (const [address, family] of [
  ['0.0.0.0', 4],
  ['255.254.10.9', 4],
  ['::', 6],
  ['2001:db8::ff00:0:1', 6],
  ['::ffff:1.2.3.4', 6],
] as const) {
  const bytes = Buffer.alloc(20, 0xee)
  writeAddress(address, family, bytes, 2)
  const written = readAddress(bytes, family, 2)
  t.strictSame(socketAddress(written, 1), socketAddress(address, 1), `${address} as bytes`)
  t.strictSame([bytes[1], bytes[family === 4 ? 6 : 18]], [0xee, 0xee], 'and nothing beside them')
}
