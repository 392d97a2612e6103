import packet from 'dns-packet'
import t from 'tap'
import { DnsAnswers } from '../../agent/dns-answers.ts'
import type { DnsRecord, DnsResponse } from '../../lib/wire/dns.ts'
import { encodeQuery, encodeResponse, queryFor } from '../../lib/wire/dns-encode.ts'

const LIKE = { id: 7, type: 'A', class: 'IN', recursionDesired: true, checkingDisabled: false, edns: undefined }
const asked = queryFor('WEB.shop.svc.cluster.local', LIKE)!
const records = (type: 'A' | 'AAAA', addresses: readonly string[]): DnsRecord[] =>
  addresses.map((data) => ({ name: asked.name, type, ttl: 5, data }))
const responseOf = (answers: readonly DnsRecord[]): DnsResponse => ({
  rcode: 'NOERROR',
  authoritative: true,
  answers,
  authorities: [],
  additionals: [],
})
const v4 = Array.from({ length: 20 }, (_, i) => `10.244.1.${i + 1}`)
const v6 = Array.from({ length: 20 }, (_, i) => `fd00::${(i + 1).toString(16)}`)
const dataOf = (message: Buffer | undefined): string[] =>
  message === undefined
    ? []
    : (packet.decode(message) as unknown as { answers: { data: string }[] }).answers.map(({ data }) => data)

t.test('the same query finds its answer with its own id, for as long as the zone is the same', async (t) => {
  const [answers, zone] = [new DnsAnswers(), {}]
  const response = responseOf(records('A', ['10.96.0.5']))
  t.equal(answers.find(zone, asked.message, Math.random), undefined)
  answers.store(zone, asked, response, encodeResponse(asked, response, 512))
  const found = answers.find(zone, encodeQuery(0xabcd, asked), Math.random)!
  t.equal(found.readUInt16BE(0), 0xabcd)
  t.match(packet.decode(found), {
    questions: [{ name: asked.name }],
    answers: [{ name: asked.name, data: '10.96.0.5' }],
  })
  const others = [
    queryFor('web.shop.svc.cluster.local', LIKE)!,
    queryFor(asked.name, { ...LIKE, type: 'AAAA' })!,
    queryFor(asked.name, { ...LIKE, recursionDesired: false })!,
    queryFor(asked.name, { ...LIKE, edns: { udpBytes: 1232, dnssec: false, version: 0, options: false } })!,
  ]
  for (const { message } of others) t.equal(answers.find(zone, message, Math.random), undefined)
  t.equal(answers.find({}, asked.message, Math.random), undefined, 'another zone')
})

t.test('addresses come in a new order each time, each as often as the others in front', async (t) => {
  for (const [type, addresses] of [
    ['A', v4],
    ['AAAA', v6],
  ] as const) {
    const [answers, zone] = [new DnsAnswers(), {}]
    const response = responseOf(records(type, addresses))
    answers.store(zone, asked, response, encodeResponse(asked, response, 4096))
    const rounds = 4_000
    const first = new Map<string, number>()
    for (let i = 0; i < rounds; i++) {
      const data = dataOf(answers.find(zone, asked.message, Math.random))
      first.set(data[0]!, (first.get(data[0]!) ?? 0) + 1)
      if (i % 500 === 0) t.strictSame(data.toSorted(), [...addresses].sort())
    }
    // The expectation is 200; 100 off would be seven standard deviations.
    for (const address of addresses) t.ok(Math.abs((first.get(address) ?? 0) - rounds / 20) < 100, address)
  }
})

t.test('what is not kept', async (t) => {
  const zone = {}
  const srv = (port: number): DnsRecord => ({
    name: asked.name,
    type: 'SRV',
    ttl: 5,
    data: { priority: 0, weight: 1, port, target: 'a.example' },
  })
  const options = { udpBytes: 1232, dnssec: false, version: 0, options: true }
  const rows: readonly { name: string; response: DnsResponse; maxBytes?: number; query?: typeof asked }[] = [
    { name: 'a truncated answer', response: responseOf(records('A', v4)), maxBytes: 200 },
    { name: 'records whose order counts', response: responseOf([srv(1), srv(2)]) },
    {
      name: 'an answer without all that belongs to it',
      response: { ...responseOf([srv(1)]), additionals: records('A', v4) },
      maxBytes: 200,
    },
    {
      name: 'a query with options, which may be new each time',
      response: responseOf([]),
      query: queryFor('b.example', { ...LIKE, edns: options })!,
    },
  ]
  for (const { name, response, maxBytes = 4096, query = asked } of rows) {
    const answers = new DnsAnswers()
    answers.store(zone, query, response, encodeResponse(query, response, maxBytes))
    t.equal(answers.find(zone, query.message, Math.random), undefined, name)
  }
})

t.test('what is asked for stays, however much else is asked once', async (t) => {
  const [answers, zone] = [new DnsAnswers(), {}]
  const store = (query: typeof asked) =>
    answers.store(zone, query, responseOf([]), encodeResponse(query, responseOf([]), 512))
  store(asked)
  const names = Array.from({ length: 20_000 }, (_, i) => queryFor(`n${i}.example`, LIKE)!)
  for (const query of names) {
    store(query)
    if (answers.find(zone, asked.message, Math.random) === undefined) return t.fail(query.name)
  }
  t.equal(answers.find(zone, names[0]!.message, Math.random), undefined)
  t.ok(answers.find(zone, names.at(-1)!.message, Math.random))
})
