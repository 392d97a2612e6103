import t from 'tap'
import { addressIn, AF, encodeSockaddr, SOCKADDR_BYTES } from '../../../lib/net/sockaddr.ts'
import { random } from '../random.ts'

const rows: readonly (readonly [address: string, family: 4 | 6, port: number, hex: string])[] = [
  ['192.0.2.1', 4, 443, '020001bb c0000201 0000000000000000'],
  ['0.0.0.0', 4, 0, '02000000 00000000 0000000000000000'],
  ['2001:db8::1', 6, 51820, '0a00ca6c 00000000 20010db8000000000000000000000001 00000000'],
  ['::', 6, 0, '0a000000 00000000 00000000000000000000000000000000 00000000'],
]

t.test('addresses as the kernel has them', async (t) => {
  for (const [address, family, port, hex] of rows) {
    const name = encodeSockaddr(address, family, port)
    t.equal(name.toString('hex'), hex.replaceAll(' ', ''), address)
    t.equal(name.length, SOCKADDR_BYTES[family])
    t.equal(addressIn(name), address)
    t.equal(addressIn(Buffer.concat([name, Buffer.alloc(4)])), address, 'in a longer buffer')
    t.equal(addressIn(name.subarray(0, -1)), undefined, 'cut short')
  }
  t.throws(() => encodeSockaddr('192.0.2.1', 6, 1), TypeError)
})

t.test('what is no address', async (t) => {
  const next = random(3)
  for (let i = 0; i < 1_000; i++) {
    const bytes = Buffer.from(Array.from({ length: Math.floor(next() * 40) }, () => Math.floor(next() * 256)))
    const isOne = bytes.length >= SOCKADDR_BYTES[4] && bytes[1] === 0 && [AF[4], AF[6]].includes(bytes[0]!)
    if (!isOne) t.equal(addressIn(bytes), undefined, bytes.toString('hex'))
  }
})
