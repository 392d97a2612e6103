// ClientHellos as real clients send them, cut into every two pieces; and what is none.

import { execFileSync } from 'node:child_process'
import t from 'tap'
import { MAX_HELLO_BYTES, nameInHello } from '../../../lib/wire/client-hello.ts'
import { helloOf } from '../client-hello.ts'
import { random } from '../random.ts'

/** As another record layout carries it: `size` bytes of the handshake in each record. */
function inRecords(hello: Buffer, size: number): Buffer {
  const body = hello.subarray(5)
  const records = []
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size)
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part)
  }
  return Buffer.concat(records)
}

t.test('the name, however the hello comes', async (t) => {
  const ciphers = execFileSync('openssl', ['ciphers', 'ALL'], { encoding: 'utf8' }).trim()
  const rows: readonly [name: string, hello: Buffer, expected: string | undefined][] = [
    ['a name', await helloOf('edge-7'), 'edge-7'],
    ['in capitals', await helloOf('Edge-7.Example'), 'edge-7.example'],
    ['TLS 1.2', await helloOf('edge-7', { maxVersion: 'TLSv1.2' }), 'edge-7'],
    ['many ciphers', await helloOf('edge-7', { ciphers }), 'edge-7'],
    ['many protocols', await helloOf('edge-7', { ALPNProtocols: Array(200).fill('http/1.1') }), 'edge-7'],
    ['an address, which is no name', await helloOf(''), undefined],
    ['in two records', inRecords(await helloOf('edge-7'), 100), 'edge-7'],
    ['in records of 20 bytes', inRecords(await helloOf('edge-7'), 20), 'edge-7'],
  ]
  for (const [name, hello, expected] of rows) {
    t.same(nameInHello(hello), { kind: 'hello', name: expected }, name)
    let partial = 0
    for (let length = 0; length < hello.length; length++)
      if (nameInHello(hello.subarray(0, length)).kind === 'partial') partial++
    t.equal(partial, hello.length, `${name}: a part is no whole`)
  }
})

t.test('what is no hello', async (t) => {
  const hello = await helloOf('edge-7')
  const changed = (at: number, ...bytes: number[]): Buffer => {
    const copy = Buffer.from(hello)
    copy.set(bytes, at)
    return copy
  }
  const long = inRecords(
    Buffer.concat([hello.subarray(0, 5), Buffer.from([1, 0, 0x80, 0]), Buffer.alloc(40_000)]),
    16_384,
  )
  const rows: readonly [name: string, bytes: Buffer, reason: RegExp][] = [
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n'), /speaks no TLS/],
    ['SSL 2', changed(1, 2), /speaks no TLS/],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0, 0]), /speaks no TLS/],
    ['a record too long', Buffer.from([22, 3, 1, 0xff, 0xff, 1]), /speaks no TLS/],
    ['another message', changed(5, 2), /no ClientHello/],
    ['a hello too long', long, /has 32772 bytes/],
    ['a session id beyond the end', changed(5 + 4 + 34, 255), /cut off inside|no hello/],
    ['records without end', Buffer.concat(Array(9000).fill(Buffer.from([22, 3, 1, 0, 1, 1]))), /./],
  ]
  for (const [name, bytes, reason] of rows) {
    const found = nameInHello(bytes)
    t.match(found.kind === 'no hello' ? found.reason : found.kind, reason, name)
  }
})

t.test('random changes never throw', async (t) => {
  const hello = await helloOf('edge-7.example')
  const next = random(3)
  const kinds = new Set<string>()
  for (let i = 0; i < 20_000; i++) {
    const copy = Buffer.from(hello)
    for (let j = 0; j < 1 + next() * 3; j++) copy[Math.floor(next() * 300)] = Math.floor(next() * 256)
    kinds.add(nameInHello(copy.subarray(0, Math.floor(next() * (copy.length + 1)))).kind)
  }
  t.same([...kinds].toSorted(), ['hello', 'no hello', 'partial'])
  t.ok(MAX_HELLO_BYTES >= 16_384)
})
