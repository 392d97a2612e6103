import packet from 'dns-packet'
import t from 'tap'
import { encodeResponse, queryFor } from '../../../lib/wire/dns-encode.ts'
import { adaptResponse, answersOf, readResponse } from '../../../lib/wire/dns-foreign.ts'
import { random } from '../random.ts'

const LIKE = { id: 7, type: 'A', class: 'IN', recursionDesired: true, checkingDisabled: false, edns: undefined }
const asked = queryFor('www.example.com', LIKE)!
const question = { name: 'www.example.com', type: 'A', class: 'IN' }
const message = (more: object): Buffer =>
  packet.encode({ type: 'response', id: 7, flags: 0x180, questions: [question], ...more })

t.test('whose answer it is', async (t) => {
  const answers = [{ name: 'www.example.com', type: 'A', ttl: 60, data: '192.0.2.1' }]
  const good = message({ answers })
  t.match(readResponse(good, 7, asked), { rcode: 0, truncated: false, answers: 1, ttlSeconds: 60 })
  t.match(readResponse(good, 7, queryFor('WWW.Example.com', LIKE)!), { answers: 1 }, 'in any case')
  const rows: readonly (readonly [name: string, bytes: Buffer, id: number])[] = [
    ['another id', good, 8],
    ['a query', message({ type: 'query', answers }), 7],
    ['another name', message({ questions: [{ ...question, name: 'www.example.org' }], answers }), 7],
    ['another type', message({ questions: [{ ...question, type: 'AAAA' }], answers }), 7],
    ['no question', message({ questions: [], answers }), 7],
    ['cut short', good.subarray(0, -1), 7],
    ['a header', good.subarray(0, 11), 7],
  ]
  for (const [name, bytes, id] of rows) t.equal(readResponse(bytes, id, asked), undefined, name)
  t.match(readResponse(message({ flags: 0x380, answers }).subarray(0, -1), 7, asked), { truncated: true, answers: 0 })
})

t.test('another client’s id, spelling and TTLs', async (t) => {
  const response = readResponse(
    message({
      answers: [
        { name: 'www.example.com', type: 'CNAME', ttl: 300, data: 'host.example.com' },
        { name: 'host.example.com', type: 'A', ttl: 60, data: '192.0.2.1' },
      ],
      additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1232, flags: 0x8000, options: [] }],
    }),
    7,
    asked,
  )!
  const other = queryFor('WWW.EXAMPLE.com', { ...LIKE, id: 99 })!
  t.match(packet.decode(adaptResponse(response, other, (ttl) => ttl - 20)), {
    id: 99,
    questions: [{ name: 'WWW.EXAMPLE.com' }],
    answers: [{ ttl: 280 }, { ttl: 40 }],
    additionals: [{ type: 'OPT', flags: 0x8000 }],
  })
})

t.test('records taken from one message to another, with their names whole', async (t) => {
  const records = [
    { name: 'www.example.com', type: 'CNAME', ttl: 300, data: 'host.example.com' },
    { name: 'host.example.com', type: 'A', ttl: 60, data: '192.0.2.1' },
    { name: 'example.com', type: 'MX', ttl: 60, data: { preference: 10, exchange: 'mail.example.com' } },
    {
      name: 'example.com',
      type: 'SRV',
      ttl: 60,
      data: { priority: 1, weight: 2, port: 3, target: 'host.example.com' },
    },
    { name: 'example.com', type: 'TXT', ttl: 60, data: [Buffer.from('one'), Buffer.from('two')] },
  ]
  const to = queryFor('vendor.shop.svc.cluster.local', LIKE)!
  const copy = (bytes: Buffer, of = asked) => {
    const foreign = answersOf(readResponse(bytes, 7, of)!, of)
    const response = {
      rcode: 'NOERROR' as const,
      authoritative: true,
      answers: [],
      foreign,
      authorities: [],
      additionals: [],
    }
    return (packet.decode(encodeResponse(to, response, 4096)) as unknown as { answers: object[] }).answers
  }
  t.match(copy(message({ answers: records })), records)

  // By hand, since the other codec writes no pointers: an owner and a target that point into the question.
  const header = message({}).subarray(0, 12 + 17 + 4)
  header.writeUInt16BE(1, 6)
  const cname = Buffer.from([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 7, 4, ...Buffer.from('host'), 0xc0, 16])
  t.match(copy(Buffer.concat([header, cname])), [
    { name: 'www.example.com', type: 'CNAME', ttl: 9, data: 'host.example.com' },
  ])
  const loop = Buffer.from([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 45])
  t.strictSame(copy(Buffer.concat([header, loop])), [], 'a name that points to itself')
})

t.test('random and mutated answers are read or not, and never more', async (t) => {
  const next = random(2)
  const good = message({
    answers: [
      { name: 'www.example.com', type: 'CNAME', ttl: 300, data: 'host.example.com' },
      { name: 'host.example.com', type: 'A', ttl: 60, data: '192.0.2.1' },
    ],
    authorities: [{ name: 'example.com', type: 'NS', ttl: 60, data: 'ns.example.com' }],
  })
  let read = 0
  for (let i = 0; i < 50_000; i++) {
    const copy = Buffer.from(good)
    for (let j = 0; j < 1 + next() * 4; j++)
      copy[33 + Math.floor(next() * (copy.length - 33))] = Math.floor(next() * 256)
    if (next() < 0.5) copy[6 + Math.floor(next() * 6)] = Math.floor(next() * 256)
    const end = next() < 0.5 ? copy.length : 33 + Math.floor(next() * (copy.length - 32))
    const response = readResponse(copy.subarray(0, end), 7, asked)
    if (response === undefined) continue
    read++
    adaptResponse(response, asked, (ttl) => ttl)
    answersOf(response, asked)
  }
  t.ok(read > 1_000)
})
