import { createSocket } from 'node:dgram'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { encode, framed, many, start, tcp, udp, type Question } from './dns-asking.ts'

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
  ]
  for (const [name, question, rcode] of rows) t.equal((await udp(port, encode(question)))?.rcode, rcode, name)

  const startedAt = performance.now()
  t.equal((await udp(port, encode({ name: 'example.com' })))?.rcode, 'SERVFAIL', 'no upstream')
  t.ok(performance.now() - startedAt < 200, 'said at once')
  t.equal(dns.malformed(), 0)
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

t.test('what is no query is counted and dropped', async (t) => {
  const { port, dns } = await start(t, [])
  const query = encode({ name: 'web.shop.svc.cluster.local' })
  const response = Buffer.from(query)
  response[2]! |= 0x80
  const counts = Buffer.from(query)
  counts.writeUInt16BE(0xffff, 6)
  const bad = [Buffer.alloc(0), Buffer.from([1]), query.subarray(0, 20), response, counts, Buffer.alloc(12)]
  for (const message of bad) t.equal(await udp(port, message, '127.0.0.1', 30), undefined)
  t.equal(dns.malformed(), bad.length)
  let seed = 1
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647
  const socket = createSocket('udp4')
  for (let i = 0; i < 5_000; i++) {
    const message = Buffer.from(query)
    for (let j = 0; j < 1 + random() * 6; j++)
      message[Math.floor(random() * message.length)] = Math.floor(random() * 256)
    socket.send(message.subarray(0, Math.floor(random() * (message.length + 1))), port, '127.0.0.1')
    if (i % 200 === 0) await sleep(2)
  }
  await sleep(50)
  socket.close()
  t.equal((await udp(port, query))?.rcode, 'NOERROR', 'and it lives on')
})
