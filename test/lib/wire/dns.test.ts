// The codec against dns-packet, which is another's, and against bytes that mean harm.

import packet from 'dns-packet'
import t from 'tap'
import {
  decodeQuery,
  headerOnly,
  udpBytesFor,
  type DnsQuery,
  type DnsRecord,
  type Malformed,
} from '../../../lib/wire/dns.ts'
import { encodeQuery, encodeResponse, queryFor } from '../../../lib/wire/dns-encode.ts'
import { random } from '../random.ts'

type Message = {
  id: number
  rcode: string
  flag_tc: boolean
  flag_aa: boolean
  flag_rd: boolean
  questions: { name: string; type: string }[]
  answers: Record<string, unknown>[]
  authorities: Record<string, unknown>[]
  additionals: Record<string, unknown>[]
}
const decode = (bytes: Buffer) => packet.decode(bytes) as unknown as Message
const LIKE = { id: 4711, type: 'A', class: 'IN', recursionDesired: true, checkingDisabled: false, edns: undefined }
const EDNS = { udpBytes: 1232, dnssec: false, version: 0, options: false }
const web = queryFor('WEB.shop.svc.cluster.local', LIKE)!

const read = (message: Uint8Array): DnsQuery | undefined => {
  const received = decodeQuery(message)
  return received.kind === 'query' ? received.query : undefined
}

t.test('queries of another’s codec', async (t) => {
  const rows: readonly (readonly [question: object, more: object, expected: Partial<DnsQuery>])[] = [
    [
      { name: 'Web.Shop.svc.cluster.local', type: 'A' },
      {},
      { name: 'Web.Shop.svc.cluster.local', type: 'A', class: 'IN' },
    ],
    [{ name: '.', type: 'NS' }, {}, { name: '.', type: 'NS' }],
    [{ name: '_http._tcp.web', type: 'SRV' }, { flags: 0x110 }, { recursionDesired: true, checkingDisabled: true }],
    [{ name: 'example.com', type: 'UNKNOWN_65' }, {}, { type: 'TYPE65' }],
    [{ name: 'version.bind', type: 'TXT', class: 'CH' }, {}, { class: 'CLASS3' }],
    [
      { name: 'example.com', type: 'ANY' },
      { additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0x8000, options: [] }] },
      { type: 'ANY', edns: { udpBytes: 4096, dnssec: true, version: 0, options: false } },
    ],
    [
      { name: 'example.com', type: 'A' },
      {
        additionals: [
          { type: 'OPT', name: '.', udpPayloadSize: 100, flags: 0, options: [{ code: 10, data: Buffer.alloc(8) }] },
        ],
      },
      { edns: { udpBytes: 512, dnssec: false, version: 0, options: true } },
    ],
  ]
  for (const [question, more, expected] of rows) {
    const message = packet.encode({ type: 'query', id: 7, questions: [question], ...more })
    t.match(read(message), { id: 7, ...expected }, JSON.stringify(question))
  }
})

t.test('labels that are no text', async (t) => {
  const message = Buffer.concat([
    encodeQuery(1, web).subarray(0, 12),
    Buffer.from([5, 0x61, 0x2e, 0x62, 0x5c, 0x00, 2, 0xc3, 0xa4, 0, 0, 1, 0, 1]),
  ])
  t.equal(read(message)?.name, 'a\\046b\\092\\000.\\195\\164')
})

t.test('what is no query', async (t) => {
  const plain = encodeQuery(7, web)
  const changed = (change: (bytes: Buffer) => void, extra: readonly number[] = []): Buffer => {
    const copy = Buffer.concat([plain, Buffer.from(extra)])
    change(copy)
    return copy
  }
  const additionals = (count: number) => (bytes: Buffer) => void bytes.writeUInt16BE(count, 10)
  const opt = [0, 0, 41, 4, 208, 0, 0, 0, 0]
  const rows: readonly (readonly [name: string, message: Buffer, reason: Malformed])[] = [
    ['eleven bytes', plain.subarray(0, 11), 'short'],
    ['an answer', changed((bytes) => (bytes[2]! |= 0x80)), 'response'],
    ['no question', changed((bytes) => bytes.writeUInt16BE(0, 4)), 'counts'],
    ['65535 of everything', changed((bytes) => bytes.fill(0xff, 4, 12)), 'counts'],
    ['no type and class', plain.subarray(0, -1), 'question'],
    ['a pointer to itself', changed((bytes) => bytes.writeUInt16BE(0xc00c, 12)), 'question'],
    ['a label of a type that nobody has', changed((bytes) => (bytes[12] = 0x80)), 'question'],
    ['a record that is not there', changed(additionals(1)), 'record'],
    ['a record longer than the message', changed(additionals(1), [...opt, 0, 1]), 'record'],
    ['two OPTs', changed(additionals(2), [...opt, 0, 0, ...opt, 0, 0]), 'edns'],
    ['an OPT with a name', changed(additionals(1), [1, 0x61, ...opt, 0, 0]), 'edns'],
    ['an OPT among the answers', changed((bytes) => bytes.writeUInt16BE(1, 6), [...opt, 0, 0]), 'edns'],
    ['an option that is cut short', changed(additionals(1), [...opt, 0, 5, 0, 10, 0, 2, 0]), 'edns'],
  ]
  for (const [name, message, reason] of rows)
    t.match(
      decodeQuery(message),
      { kind: 'malformed', reason, answerable: reason !== 'short' && reason !== 'response' },
      name,
    )
  t.equal(decodeQuery(changed((bytes) => (bytes[2]! |= 0x28))).kind, 'opcode')
  t.equal(read(Buffer.concat([plain, Buffer.alloc(40)]))?.name, web.name, 'what comes behind it is nothing to us')
})

t.test('names have 255 bytes at most, and labels 63', async (t) => {
  const label = 'a'.repeat(63)
  const longest = [label, label, label, 'a'.repeat(61)].join('.')
  const bytes = (name: string) =>
    Buffer.concat([
      ...name.split('.').map((part) => Buffer.from([part.length, ...Buffer.from(part)])),
      Buffer.from([0, 0, 1, 0, 1]),
    ])
  const header = encodeQuery(7, web).subarray(0, 12)
  t.equal(read(Buffer.concat([header, bytes(longest)]))?.name, longest)
  t.equal(read(Buffer.concat([header, bytes(`${longest}a`)])), undefined)
  t.equal(queryFor(longest, LIKE)?.name, longest)
  for (const name of [`${longest}a`, `${label}a.b`, 'a..b', '', 'a b', 'ä', 'a\\b'])
    t.equal(queryFor(name, LIKE), undefined, name)
})

t.test('every kind of record reads the same elsewhere', async (t) => {
  const soa = {
    mname: 'ns.dns.cluster.local',
    rname: 'hostmaster.cluster.local',
    serial: 1,
    refresh: 7200,
    retry: 1800,
    expire: 86400,
    minimum: 5,
  }
  const srv = { priority: 0, weight: 50, port: 80, target: 'a.web.shop.svc.cluster.local' }
  const records: readonly DnsRecord[] = [
    { name: web.name, type: 'A', ttl: 5, data: '10.96.0.5' },
    { name: web.name, type: 'AAAA', ttl: 5, data: 'fd00:96::5' },
    { name: web.name, type: 'CNAME', ttl: 5, data: 'api.example.com' },
    { name: 'api.example.com', type: 'PTR', ttl: 5, data: 'svc.cluster.local' },
    { name: 'cluster.local', type: 'NS', ttl: 5, data: 'ns.dns.cluster.local' },
    { name: 'cluster.local', type: 'SOA', ttl: 5, data: soa },
    { name: web.name, type: 'SRV', ttl: 5, data: srv },
    { name: srv.target, type: 'A', ttl: 5, data: '10.244.1.5' },
    { name: '.', type: 'NS', ttl: 5, data: '.' },
  ]
  for (const edns of [undefined, EDNS]) {
    const query = queryFor(web.name, { ...LIKE, edns })!
    const response = {
      rcode: 'NXDOMAIN' as const,
      authoritative: true,
      answers: records.slice(0, 4),
      authorities: records.slice(4, 6),
      additionals: records.slice(6),
    }
    const message = encodeResponse(query, response, 4096)
    const found = decode(message)
    t.match(found, {
      id: 4711,
      rcode: 'NXDOMAIN',
      flag_aa: true,
      flag_tc: false,
      flag_rd: true,
      questions: [{ name: web.name }],
    })
    const all = [...found.answers, ...found.authorities, ...found.additionals]
    t.equal(all.length, records.length + (edns === undefined ? 0 : 1))
    records.forEach((record, i) => t.match(all[i], record))
  }
  const texts = encodeResponse(
    web,
    {
      rcode: 'NOERROR',
      authoritative: true,
      answers: [
        { name: web.name, type: 'TXT', ttl: 1, data: '1.1.0' },
        { name: web.name, type: 'HINFO', ttl: 1, data: 'RFC8482' },
      ],
      authorities: [],
      additionals: [],
    },
    512,
  )
  t.match(decode(texts).answers, [{ data: [Buffer.from('1.1.0')] }, { data: { cpu: 'RFC8482', os: '' } }])
})

t.test('names that were written are pointed to', async (t) => {
  const address = (name: string): DnsRecord => ({ name, type: 'A', ttl: 5, data: '10.0.0.1' })
  const size = (answers: readonly DnsRecord[]) =>
    encodeResponse(web, { rcode: 'NOERROR', authoritative: true, answers, authorities: [], additionals: [] }, 4096)
      .length
  const record = 2 + 10 + 4
  t.equal(size([address(web.name)]), web.message.length + record)
  t.equal(size([address('cluster.local')]), web.message.length + record, 'the end of the question')
  t.equal(size([address('other.example'), address('other.example')]), web.message.length + 2 * record + 13)
})

t.test('what does not fit', async (t) => {
  const answers = Array.from({ length: 100 }, (_, i): DnsRecord => ({
    name: web.name,
    type: 'A',
    ttl: 5,
    data: `10.0.0.${i}`,
  }))
  const response = { rcode: 'NOERROR' as const, authoritative: true, answers, authorities: [], additionals: answers }
  for (const maxBytes of [512, 513, 1232]) {
    const query = queryFor(web.name, { ...LIKE, edns: EDNS })!
    const message = encodeResponse(query, response, maxBytes)
    t.ok(message.length <= maxBytes && message.length > maxBytes - 16)
    t.match(decode(message), { flag_tc: true, additionals: [{ type: 'OPT' }] })
  }
  const whole = decode(encodeResponse(web, response, 100 * 16 + 60))
  t.equal(whole.flag_tc, false, 'what may be left out is no truncation')
  t.equal(whole.answers.length, 100)
  t.ok(whole.additionals.length < 100)
  const huge = Array.from({ length: 5000 }, () => answers[0]!)
  const most = encodeResponse(web, { ...response, answers: huge, additionals: [] }, 0xffff)
  t.ok(most.length <= 0xffff)
  t.equal(decode(most).flag_tc, true)
})

t.test('EDNS: our size, the client’s DO bit, versions', async (t) => {
  const answer = (edns: DnsQuery['edns'], rcode: 'NOERROR' | 'BADVERS') =>
    encodeResponse(
      queryFor(web.name, { ...LIKE, edns })!,
      { rcode, authoritative: false, answers: [], authorities: [], additionals: [] },
      512,
    )
  t.match(decode(answer({ ...EDNS, dnssec: true }, 'NOERROR')).additionals, [
    { type: 'OPT', udpPayloadSize: 1232, flag_do: true, ednsVersion: 0 },
  ])
  t.match(decode(answer({ ...EDNS, version: 1 }, 'BADVERS')), {
    rcode: 'NOERROR',
    additionals: [{ extendedRcode: 1, ednsVersion: 0 }],
  })
  t.equal(udpBytesFor(queryFor('a', { ...LIKE, edns: { ...EDNS, udpBytes: 4096 } })!), 1232)
  t.equal(udpBytesFor(queryFor('a', LIKE)!), 512)
})

t.test('an answer without a question', async (t) => {
  const message = headerOnly(Buffer.concat([Buffer.from([0x12, 0x34, 0x29, 0x30]), Buffer.alloc(40, 0xff)]), 'NOTIMP')
  t.same(message, Buffer.from([0x12, 0x34, 0xa9, 0x04, 0, 0, 0, 0, 0, 0, 0, 0]))
})

t.test('random and mutated messages are read or not, and never more', async (t) => {
  const next = random(1)
  const seeds = [
    encodeQuery(7, web),
    encodeQuery(7, { ...web, edns: EDNS }),
    encodeResponse(
      web,
      {
        rcode: 'NOERROR',
        authoritative: true,
        answers: [{ name: web.name, type: 'A', ttl: 5, data: '10.0.0.1' }],
        authorities: [],
        additionals: [],
      },
      512,
    ),
  ]
  const kinds = new Map<string, number>()
  for (let i = 0; i < 50_000; i++) {
    const seed = seeds[Math.floor(next() * seeds.length)]!
    const message =
      i % 3 === 0
        ? Buffer.from(Array.from({ length: Math.floor(next() * 80) }, () => Math.floor(next() * 256)))
        : Buffer.from(seed)
    for (let j = 0; j < 1 + next() * 6; j++) message[Math.floor(next() * message.length)] = Math.floor(next() * 256)
    const received = decodeQuery(message.subarray(0, Math.floor(next() * (message.length + 1))))
    kinds.set(received.kind, (kinds.get(received.kind) ?? 0) + 1)
    if (received.kind !== 'query') continue
    const { query } = received
    const answered = encodeResponse(
      query,
      { rcode: 'NXDOMAIN', authoritative: true, answers: [], authorities: [], additionals: [] },
      udpBytesFor(query),
    )
    if (!answered.subarray(12, 12 + query.question.length).equals(query.question)) t.fail('another question')
  }
  t.strictSame([...kinds.keys()].sort(), ['malformed', 'opcode', 'query'])
})
