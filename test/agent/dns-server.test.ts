// The server on real sockets, asked with dns-packet, and with an upstream of our own.

import { createSocket } from 'node:dgram'
import { connect, createServer } from 'node:net'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import packet from 'dns-packet'
import t, { type Test } from 'tap'
import { clusterOf } from '../../agent/cluster.ts'
import { runDnsServer, type DnsServer } from '../../agent/dns-server.ts'
import { openUpstream, parseResolvConf } from '../../agent/dns-upstream-client.ts'
import { zoneOf } from '../../agent/dns.ts'
import { hereOf } from '../../agent/topology.ts'
import { createLog } from '../../lib/log.ts'

type Message = {
  id: number
  rcode: string
  flag_tc: boolean
  flag_aa: boolean
  questions: { name: string; type: string }[]
  answers: { name: string; type: string; ttl: number; data: unknown }[]
  additionals: { type: string }[]
}
const decode = (bytes: Buffer) => packet.decode(bytes) as unknown as Message

const log = createLog('test', 'silent')
const many = Array.from({ length: 120 }, (_, i) => `10.244.3.${i + 1}`)
const cluster = clusterOf({
  services: [
    { metadata: { namespace: 'shop', name: 'web' }, spec: { clusterIP: '10.96.0.5' } },
    { metadata: { namespace: 'shop', name: 'many' }, spec: { clusterIP: 'None' } },
    {
      metadata: { namespace: 'shop', name: 'vendor' },
      spec: { type: 'ExternalName', externalName: 'api.example.com' },
    },
  ],
  slices: [
    {
      metadata: { namespace: 'shop', name: 'many', labels: { 'kubernetes.io/service-name': 'many' } },
      addressType: 'IPv4',
      endpoints: many.map((address) => ({ addresses: [address] })),
      ports: [],
    },
  ],
  nodes: [],
  nodePools: [],
  gateways: [],
})
const zone = zoneOf({ cluster, here: hereOf(cluster, 'h1'), domain: 'cluster.local', servers: [] })

let lastPort = 20_000 + (process.pid % 10_000)
/** A server with upstreams; ends with the test. */
async function start(
  t: Test,
  servers: readonly string[],
  resolvConf = '/nonexistent',
): Promise<{ port: number; dns: DnsServer; address: string }> {
  const controller = new AbortController()
  const port = ++lastPort
  const upstream = openUpstream({ servers, resolvConf, except: () => [] }, controller.signal)
  const dns = runDnsServer(
    { addresses: ['127.0.0.1', '::1'], port, ensureAddress: async () => undefined, zone: () => zone, upstream, log },
    controller.signal,
  )
  while (dns.listening().length < 2) await sleep(5)
  t.teardown(async () => {
    controller.abort()
    await dns.done
  })
  return { port, dns, address: '127.0.0.1' }
}

type Question = {
  name: string
  type?: string
  edns?: number
  id?: number
  flags?: number
  opcode?: string
  class?: string
}
const encode = ({ name, type = 'A', edns, id = 7, flags = packet_RD, ...rest }: Question) =>
  packet.encode({
    type: 'query',
    id,
    flags,
    questions: [{ name, type, class: rest.class ?? 'IN' }],
    additionals: edns === undefined ? [] : [{ type: 'OPT', name: '.', udpPayloadSize: edns, flags: 0, options: [] }],
    ...rest,
  })
const packet_RD = 0x100

async function udp(port: number, message: Buffer, address = '127.0.0.1', waitMs = 3_000): Promise<Message | undefined> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  try {
    socket.send(message, port, address)
    return await Promise.race([
      new Promise<Message>((resolve) => socket.on('message', (bytes) => resolve(decode(bytes)))),
      sleep(waitMs, undefined),
    ])
  } finally {
    socket.close()
  }
}

/** All answers to what is written in pieces over one connection. */
async function tcp(port: number, pieces: readonly Buffer[], answers: number): Promise<Message[]> {
  const socket = connect(port, '127.0.0.1').setNoDelay()
  const found: Message[] = []
  let received = Buffer.alloc(0)
  const done = (async () => {
    for await (const chunk of socket) {
      received = Buffer.concat([received, chunk as Buffer])
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        found.push(decode(received.subarray(2, 2 + received.readUInt16BE(0))))
        received = received.subarray(2 + received.readUInt16BE(0))
      }
      if (found.length === answers) break
    }
  })()
  for (const piece of pieces) {
    socket.write(piece)
    await sleep(10)
  }
  await done
  return found
}
const framed = (message: Buffer) => Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message])

/** An upstream over UDP and TCP; `reply` returns undefined to stay silent. */
async function upstreamServer(t: Test, reply: (query: Message, overTcp: boolean) => object | undefined) {
  const port = ++lastPort
  const seen: { id: number; port: number }[] = []
  const socket = createSocket('udp4')
  const response = (bytes: Buffer, overTcp: boolean): Buffer | undefined => {
    const query = decode(bytes)
    const answer = reply(query, overTcp)
    return (
      answer && packet.encode({ type: 'response', id: query.id, flags: 0x180, questions: query.questions, ...answer })
    )
  }
  socket.on('message', (bytes, from) => {
    seen.push({ id: bytes.readUInt16BE(0), port: from.port })
    const message = response(bytes, false)
    if (message !== undefined) socket.send(message, from.port, from.address)
  })
  const server = createServer((client) => {
    client.on('error', () => undefined)
    client.on('data', (bytes: Buffer) => {
      const message = response(bytes.subarray(2), true)
      if (message !== undefined) client.write(framed(message))
    })
  })
  await new Promise<void>((resolve) => socket.bind(port, '127.0.0.1', resolve))
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  let open = true
  const close = (): void => {
    if (open) socket.close()
    open = false
  }
  t.teardown(() => {
    close()
    server.close()
  })
  return { address: `127.0.0.1:${port}`, seen, close }
}

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

t.test('names of others', async (t) => {
  let silent = false
  const upstream = await upstreamServer(t, ({ questions: [question] }, overTcp) => {
    if (silent) return undefined
    const { name, type } = question!
    if (name.startsWith('big') && !overTcp) return { flags: 0x380, answers: [] }
    if (name.startsWith('none')) return { flags: 0x183, answers: [] }
    return { answers: [{ name, type, ttl: 600, data: name.startsWith('big') ? '192.0.2.2' : '192.0.2.1' }] }
  })
  const { port } = await start(t, [upstream.address])
  t.match(await udp(port, encode({ name: 'Example.com', id: 99 })), {
    id: 99,
    rcode: 'NOERROR',
    questions: [{ name: 'Example.com' }],
    answers: [{ data: '192.0.2.1', ttl: 600 }],
  })
  t.match(await udp(port, encode({ name: 'EXAMPLE.com', id: 5 })), {
    id: 5,
    questions: [{ name: 'EXAMPLE.com' }],
    answers: [{ data: '192.0.2.1' }],
  })
  t.equal(upstream.seen.length, 1, 'the second from the cache, whatever its case')
  t.equal((await udp(port, encode({ name: 'none.example.com' })))?.rcode, 'NXDOMAIN')
  t.match(await udp(port, encode({ name: 'vendor.shop.svc.cluster.local' })), {
    answers: [
      { type: 'CNAME', data: 'api.example.com' },
      { type: 'A', name: 'api.example.com', data: '192.0.2.1' },
    ],
  })
  t.match(await udp(port, encode({ name: 'big.example.com' })), { flag_tc: true, answers: [] })
  t.match(await tcp(port, [framed(encode({ name: 'big.example.com' }))], 1), [
    { flag_tc: false, answers: [{ data: '192.0.2.2' }] },
  ])

  const asked = upstream.seen.length
  await Promise.all(Array.from({ length: 20 }, (_, i) => udp(port, encode({ name: 'same.example.com', id: i }))))
  t.equal(upstream.seen.length, asked + 1, 'the same question at the same time is asked once')
  await Promise.all(Array.from({ length: 20 }, (_, i) => udp(port, encode({ name: `r${i}.example.com`, id: i }))))
  t.ok(
    new Set(upstream.seen.map(({ id }) => id)).size > 15 && new Set(upstream.seen.map(({ port }) => port)).size > 15,
    'ids and ports are random',
  )

  silent = true
  const startedAt = performance.now()
  t.equal((await udp(port, encode({ name: 'lost.example.com' }), '127.0.0.1', 6_000))?.rcode, 'SERVFAIL')
  t.ok(performance.now() - startedAt > 3_500, 'two tries of two seconds')
  const afterwards = performance.now()
  const probe = udp(port, encode({ name: 'lost2.example.com' }), '127.0.0.1', 6_000)
  await Promise.all([1, 2, 3].map((i) => udp(port, encode({ name: `lost${i}0.example.com` }))))
  t.ok(performance.now() - afterwards < 1_000, 'a dead upstream costs the others nothing')
  silent = false
  await probe
  await sleep(1_100)
  t.equal((await udp(port, encode({ name: 'back.example.com' })))?.rcode, 'NOERROR', 'and it is found again')
})

t.test('answers of strangers and of dead upstreams', async (t) => {
  const forger = createSocket('udp4')
  const port = ++lastPort
  forger.on('message', (bytes, from) => {
    const query = decode(bytes)
    const fake = (id: number, name: string) =>
      packet.encode({
        type: 'response',
        id,
        flags: 0x180,
        questions: [{ name, type: 'A' }],
        answers: [{ name, type: 'A', ttl: 60, data: '203.0.113.66' }],
      })
    forger.send(fake(query.id ^ 1, query.questions[0]!.name), from.port, from.address)
    forger.send(fake(query.id, 'other.example.com'), from.port, from.address)
  })
  await new Promise<void>((resolve) => forger.bind(port, '127.0.0.1', resolve))
  t.teardown(() => forger.close())
  const good = await upstreamServer(t, ({ questions }) => ({
    answers: [{ name: questions[0]!.name, type: 'A', ttl: 1, data: '192.0.2.1' }],
  }))
  const { port: own } = await start(t, [`127.0.0.1:${port}`, good.address])
  t.match(
    await udp(own, encode({ name: 'example.com' })),
    { answers: [{ data: '192.0.2.1' }] },
    'the wrong id and the wrong question count for nothing',
  )
})

t.test('a closed port is no two seconds, and what was known is served', async (t) => {
  const upstream = await upstreamServer(t, ({ questions }) => ({
    answers: [{ name: questions[0]!.name, type: 'A', ttl: 1, data: '192.0.2.1' }],
  }))
  const { port } = await start(t, [upstream.address])
  t.match(await udp(port, encode({ name: 'example.com' })), { answers: [{ data: '192.0.2.1' }] })
  upstream.close()
  const startedAt = performance.now()
  t.equal((await udp(port, encode({ name: 'new.example.com' })))?.rcode, 'SERVFAIL')
  t.ok(performance.now() - startedAt < 500)
  await sleep(5_100)
  t.match(await udp(port, encode({ name: 'example.com' })), { answers: [{ data: '192.0.2.1', ttl: 30 }] }, 'stale')
})

t.test('resolv.conf', async (t) => {
  const text =
    '# comment\nsearch example.com\nnameserver 192.0.2.53\n nameserver fe80::1%eth0\nnameserver nonsense\nnameserver 2001:db8::53\n'
  t.strictSame(
    parseResolvConf(text).map(({ address, port }) => `${address} ${port}`),
    ['192.0.2.53 53', 'fe80::1%eth0 53', '2001:db8::53 53'],
  )
  const file = join(t.testdir(), 'resolv.conf')
  writeFileSync(file, 'nameserver 169.254.20.53\nnameserver 192.0.2.53\n')
  const upstream = openUpstream(
    { servers: [], resolvConf: file, except: () => ['169.254.20.53'] },
    new AbortController().signal,
  )
  t.strictSame(
    upstream.servers().map(({ address }) => address),
    ['192.0.2.53'],
    'never ourselves',
  )
})
