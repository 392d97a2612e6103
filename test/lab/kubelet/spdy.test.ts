import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import t from 'tap'
import { DICTIONARY, FrameReader, HeaderBlocks, encodeData, encodePing, SpdyError } from './spdy.ts'
import { SpdyConnection, type SpdyStream } from './spdy-connection.ts'

/** Adler-32 as zlib tells a dictionary by it. */
function adler(bytes: Buffer): string {
  let [a, b] = [1, 0]
  for (const byte of bytes) {
    a = (a + byte) % 65_521
    b = (b + a) % 65_521
  }
  return (b * 65_536 + a).toString(16)
}

t.test('the dictionary is that of SPDY/3', async (t) => {
  t.equal(DICTIONARY.length, 1_423)
  t.equal(adler(DICTIONARY), 'e3c6a7c2')
})

t.test('header blocks depend on those before', async (t) => {
  const [there, here] = [new HeaderBlocks(), new HeaderBlocks()]
  for (const headers of [{ streamtype: 'stdin' }, { streamtype: 'data', port: '80', requestid: '1' }, {}])
    t.same(await here.decode(await there.encode(headers)), headers)
  await t.rejects(new HeaderBlocks().decode(Buffer.from('no zlib at all')), SpdyError)
})

t.test('frames in any pieces', async (t) => {
  const bytes = Buffer.concat([
    ...encodeData(5, Buffer.from('hello'), true),
    encodePing(7),
    ...encodeData(5, Buffer.alloc(0), false),
  ])
  for (const size of [1, 3, 8, 1_000]) {
    const reader = new FrameReader()
    const kinds: string[] = []
    for (let at = 0; at < bytes.length; at += size)
      for (const frame of reader.push(bytes.subarray(at, at + size)))
        kinds.push(frame.kind === 'data' ? `${frame.stream} ${frame.bytes.toString()} ${frame.fin}` : frame.kind)
    t.same(kinds, ['5 hello true', 'ping', '5  false'], `of ${size} bytes`)
  }
  t.throws(() => new FrameReader().push(Buffer.from('00000001ffffffff', 'hex')), SpdyError)
  t.throws(() => new FrameReader().push(Buffer.from('8002000100000000', 'hex')), SpdyError)
})

t.test('a stream has two ends, and a client that goes ends them', async (t) => {
  const [client, server] = duplexPair()
  const opened = Promise.withResolvers<SpdyStream>()
  const connection = new SpdyConnection(server, opened.resolve)
  const block = await new HeaderBlocks().encode({ streamType: 'stdin' })
  const head = Buffer.from('8003000100000000000000010000000000000000'.slice(0, 36), 'hex')
  head.writeUIntBE(10 + block.length, 5, 3)
  client.write(Buffer.concat([head, block, ...encodeData(1, Buffer.from('in'), true)]))
  const stream = await opened.promise
  t.same(stream.headers, { streamtype: 'stdin' })
  const read: string[] = []
  stream.on('data', (chunk: Buffer) => read.push(chunk.toString()))
  await once(stream, 'end')
  t.same(read, ['in'], 'the client’s half ends, and ours does not')
  stream.write('out')
  const closed = once(stream, 'close')
  const aborted = once(connection.signal, 'abort')
  client.destroy()
  await Promise.all([closed, aborted])
  t.equal(connection.size, 0)
})
