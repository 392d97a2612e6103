// The way of one message through the responder, without sockets: what harms nobody, what is counted, what is said once.

import packet from 'dns-packet'
import t from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { createResponder, type Responder } from '../../agent/dns-respond.ts'
import { zoneOf } from '../../agent/dns-zone.ts'
import { hereOf } from '../../agent/topology.ts'
import type { Service } from '../../lib/k8s/objects.ts'
import type { Log } from '../../lib/log.ts'
import type { DnsQuery } from '../../lib/wire/dns.ts'
import { random } from '../lib/random.ts'
import { decode, encode } from './dns-asking.ts'

const service = (name: string, spec: NonNullable<Service['spec']>): Service => ({
  metadata: { namespace: 'shop', name },
  spec,
})
const cluster = clusterOf({
  services: [
    service('web', { clusterIP: '10.96.0.5', ports: [{ name: 'http', protocol: 'TCP', port: 80 }] }),
    service('vendor', { type: 'ExternalName', externalName: 'api.example.com' }),
    // No API server takes it, a folder of manifests does.
    service('a name with blanks', { clusterIP: '10.96.0.6' }),
  ],
  slices: [],
  nodes: [],
  nodePools: [],
  gateways: [],
})
const zone = zoneOf({ cluster, here: hereOf(cluster, 'h1'), domains: ['cluster.local'], servers: ['169.254.20.53'] })

function responder(resolve: (query: DnsQuery) => Promise<Buffer | undefined> = async () => undefined) {
  const said: string[] = []
  const say = (_: unknown, message?: string): void => void said.push(message ?? '')
  const log = { debug: say, info: say, warn: say, error: say } as unknown as Log
  return { ...createResponder({ zone: () => zone, upstream: { resolve }, random: random(3), log }), said }
}
const ask = async ({ respond }: Responder, message: Buffer, overTcp = false) => {
  const answered = await respond(message, overTcp, () => '192.0.2.1')
  return answered && decode(answered)
}

t.test('random and mutated messages, loops of pointers and huge counts', async (t) => {
  const next = random(4)
  const upstreamAnswer = (query: DnsQuery): Buffer => {
    const copy = Buffer.concat([query.message, Buffer.from([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12])])
    for (let i = 0; i < next() * 5; i++) copy[2 + Math.floor(next() * (copy.length - 2))] = Math.floor(next() * 256)
    copy[2]! |= 0x80
    return copy
  }
  const tried = responder(async (query) => (next() < 0.3 ? undefined : upstreamAnswer(query)))
  const names = [
    'web.shop.svc.cluster.local',
    'vendor.shop.svc.cluster.local',
    'example.com',
    '5.0.96.10.in-addr.arpa',
    '.',
  ]
  const seeds = names.flatMap((name) => [
    encode({ name, edns: 1232 }),
    encode({ name, type: 'SRV' }),
    encode({ name, type: 'ANY' }),
  ])
  let [answered, formerr] = [0, 0]
  for (let i = 0; i < 30_000; i++) {
    const message = Buffer.from(seeds[Math.floor(next() * seeds.length)]!)
    for (let j = 0; j < next() * 6; j++) message[Math.floor(next() * message.length)] = Math.floor(next() * 256)
    if (next() < 0.1) message.writeUInt16BE(0xc000 | Math.floor(next() * message.length), 12)
    if (next() < 0.1) message.fill(0xff, 4, 12)
    const sent = message.subarray(0, next() < 0.7 ? message.length : Math.floor(next() * (message.length + 1)))
    const answer = await tried.respond(sent, next() < 0.5, () => '192.0.2.1')
    if (answer === undefined) continue
    answered++
    if (answer.readUInt16BE(0) !== sent.readUInt16BE(0) || answer.length < 12 || !(answer[2]! & 0x80))
      t.fail('no answer to it')
    if ((answer[3]! & 15) === 1) formerr++
  }
  const { queries, malformed, answers } = tried.counts()
  const dropped = malformed.short + malformed.response
  const wrong = Object.values(malformed).reduce((sum, count) => sum + count, 0)
  t.equal(answered + dropped, 30_000, 'each is answered or counted')
  t.equal(queries + wrong, 30_000)
  t.ok(formerr >= wrong - dropped && answers.FORMERR >= formerr - 1_000, 'FORMERR for what is malformed')
  t.ok(
    Object.values(malformed).every((count) => count > 0),
    JSON.stringify(malformed),
  )
  const warnings = tried.said.filter((text) => text.startsWith('a message to the DNS'))
  t.equal(warnings.length, Object.keys(malformed).length, 'each kind is said once')
  t.equal(tried.said.length, warnings.length, 'and nothing went wrong inside')
})

t.test('one bad name costs its own answer only', async (t) => {
  const tried = responder()
  const question = encode({ name: '6.0.96.10.in-addr.arpa', type: 'PTR', id: 99 })
  for (let i = 0; i < 3; i++) t.match(await ask(tried, question), { id: 99, rcode: 'SERVFAIL' })
  t.equal(tried.said.length, 1, 'said once')
  t.match(await ask(tried, encode({ name: 'web.shop.svc.cluster.local' })), { rcode: 'NOERROR' })
})

t.test('an upstream that fails in some way is a SERVFAIL', async (t) => {
  const rows: readonly { name: string; resolve: () => Promise<Buffer | undefined> }[] = [
    { name: 'nobody answers', resolve: async () => undefined },
    { name: 'an error', resolve: () => Promise.reject(new Error('no sockets left')) },
  ]
  for (const { name, resolve } of rows) {
    const tried = responder(resolve)
    t.match(await ask(tried, encode({ name: 'example.com', id: 7 })), { id: 7, rcode: 'SERVFAIL' }, name)
    t.match(await ask(tried, encode({ name: 'vendor.shop.svc.cluster.local' })), { rcode: 'SERVFAIL' }, name)
    t.equal(tried.counts().answers.SERVFAIL, 2)
  }
})

t.test('answers of others that do not fit are cut for UDP and whole for TCP', async (t) => {
  const answers = Array.from({ length: 100 }, (_, i) => ({
    name: 'example.com',
    type: 'A',
    ttl: 60,
    data: `192.0.2.${i}`,
  }))
  const whole = packet.encode({
    type: 'response',
    id: 7,
    flags: 0x180,
    questions: [{ name: 'example.com', type: 'A', class: 'IN' }],
    answers,
  })
  const tried = responder(async () => Buffer.from(whole))
  t.match(await ask(tried, encode({ name: 'example.com', edns: 1232 })), {
    flag_tc: true,
    answers: [],
    additionals: [{ type: 'OPT' }],
  })
  const found = await ask(tried, encode({ name: 'example.com' }), true)
  t.equal(found!.flag_tc, false)
  t.equal(found!.answers.length, 100)
})

t.test('what was answered before is counted as well', async (t) => {
  const tried = responder()
  for (const name of ['web', 'web', 'web', 'nobody', 'nobody'])
    await ask(tried, encode({ name: `${name}.shop.svc.cluster.local` }))
  t.match(tried.counts(), { queries: 5, answers: { NOERROR: 3, NXDOMAIN: 2 } })
})
