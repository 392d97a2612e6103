import { connect } from 'node:net'
import t from 'tap'
import { until } from '../lib/netns.ts'
import { decode, encode, framed, many, start, tcp, udp, type Question } from './dns-asking.ts'

t.test('answers for the cluster', async (t) => {
  const { port, dns } = await start(t, [])
  for (const address of ['127.0.0.1', '::1'])
    t.match(await udp(port, encode({ name: 'WEB.shop.svc.cluster.local', id: 4711 }), address), {
      id: 4711,
      rcode: 'NOERROR',
      flag_aa: true,
      questions: [{ name: 'WEB.shop.svc.cluster.local' }],
      answers: [{ name: 'WEB.shop.svc.cluster.local', type: 'A', ttl: 5, data: '10.96.0.5' }],
      additionals: [],
    })
  t.match(await udp(port, encode({ name: 'web.shop.svc.cluster.local', edns: 4096 })), {
    additionals: [{ type: 'OPT' }],
  })
  const rows: readonly (readonly [name: string, question: Question, rcode: string])[] = [
    ['no such name', { name: 'x.shop.svc.cluster.local' }, 'NXDOMAIN'],
    ['a transfer', { name: 'cluster.local', type: 'AXFR' }, 'REFUSED'],
    ['another class', { name: 'version.bind', type: 'TXT', class: 'CH' }, 'REFUSED'],
    ['another opcode', { name: 'web.shop.svc.cluster.local', flags: 4 << 11 }, 'NOTIMP'],
    ['an opcode that nobody has', { name: 'web.shop.svc.cluster.local', flags: 15 << 11 }, 'NOTIMP'],
  ]
  for (const [name, question, rcode] of rows) t.equal((await udp(port, encode(question)))?.rcode, rcode, name)

  const startedAt = performance.now()
  t.equal((await udp(port, encode({ name: 'example.com' })))?.rcode, 'SERVFAIL', 'no upstream')
  t.ok(performance.now() - startedAt < 200, 'said at once')
  t.ok(Object.values(dns.counts().malformed).every((count) => count === 0))
})

t.test('what does not fit', async (t) => {
  const { port } = await start(t, [])
  const question = { name: 'many.shop.svc.cluster.local' }
  const plain = await udp(port, encode(question))
  t.match(plain, { flag_tc: true })
  t.ok(plain!.answers.length > 20, 'as many as fit')
  const wide = await udp(port, encode({ ...question, edns: 4096 }))
  t.ok(wide!.flag_tc && wide!.answers.length > plain!.answers.length)

  const query = framed(encode(question))
  const two = Buffer.concat([query, query])
  const answers = await tcp(
    port,
    [two.subarray(0, 1), two.subarray(1, 20), two.subarray(20, query.length + 5), two.subarray(query.length + 5)],
    2,
  )
  for (const { flag_tc, answers: records } of answers) {
    t.equal(flag_tc, false)
    t.strictSame(records.map(({ data }) => String(data)).sort(), many.toSorted())
  }
})

t.test('what is no query is counted, and answered where it says whose it is', async (t) => {
  const { port, dns } = await start(t, [])
  const query = encode({ name: 'web.shop.svc.cluster.local', id: 4711 })
  const changed = (change: (bytes: Buffer) => void): Buffer => {
    const copy = Buffer.from(query)
    change(copy)
    return copy
  }
  const rows: readonly (readonly [name: string, message: Buffer, answered: boolean])[] = [
    ['nothing', Buffer.alloc(0), false],
    ['a byte', Buffer.from([1]), false],
    ['a response', changed((bytes) => (bytes[2]! |= 0x80)), false],
    ['no question', Buffer.alloc(12), true],
    ['two questions', changed((bytes) => bytes.writeUInt16BE(2, 4)), true],
    ['many answers', changed((bytes) => bytes.writeUInt16BE(0xffff, 6)), true],
    ['cut short', query.subarray(0, 20), true],
    ['a name that points to itself', changed((bytes) => bytes.writeUInt16BE(0xc00c, 12)), true],
    ['a record that is not there', changed((bytes) => bytes.writeUInt16BE(1, 10)), true],
  ]
  for (const [name, message, answered] of rows) {
    const response = await udp(port, message, '127.0.0.1', answered ? 3_000 : 30)
    t.equal(response?.rcode, answered ? 'FORMERR' : undefined, name)
    if (answered) t.equal(response!.id, message.readUInt16BE(0), name)
  }
  const { short, response, counts, question, record } = dns.counts().malformed
  t.strictSame(
    { short, response, counts, question, record },
    { short: 2, response: 1, counts: 3, question: 2, record: 1 },
  )
})

t.test('several queries on one connection, and no more connections than a client may have', async (t) => {
  const { port } = await start(t, [])
  const query = framed(encode({ name: 'web.shop.svc.cluster.local' }))
  const many = 200
  t.equal((await tcp(port, [Buffer.concat(Array.from({ length: many }, () => query))], many)).length, many)

  const sockets = Array.from({ length: 70 }, () => connect(port, '127.0.0.1').on('error', () => undefined))
  t.teardown(() => sockets.forEach((socket) => socket.destroy()))
  const closed = () => sockets.filter((socket) => socket.closed || socket.readableEnded).length
  for (const socket of sockets) socket.resume()
  await until('some are closed', 3_000, async () => closed() === 6)
  t.equal((await udp(port, query.subarray(2)))?.rcode, 'NOERROR', 'and UDP goes on')
})

t.test('a client that closes its side still hears', async (t) => {
  const { port } = await start(t, [])
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.end(framed(encode({ name: 'web.shop.svc.cluster.local' })))
  const chunks: Buffer[] = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  t.equal(decode(Buffer.concat(chunks).subarray(2)).rcode, 'NOERROR')
})
