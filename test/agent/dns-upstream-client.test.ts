// Names of others, asked through the agent's server: resolvers that answer, that lie, that stay silent and that come back.

import { createSocket } from 'node:dgram'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import packet from 'dns-packet'
import t from 'tap'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { until } from '../lib/netns.ts'
import { decode, encode, framed, start, tcp, udp, upstreamServer } from './dns-asking.ts'

// They mostly wait.
t.jobs = 8

t.test('names of others', { buffered: true }, async (t) => {
  let silent = false
  const big = Array.from({ length: 60 }, (_, i) => `192.0.2.${i + 1}`)
  const upstream = await upstreamServer(t, ({ questions: [question] }, overTcp) => {
    if (silent) return undefined
    const { name, type } = question!
    if (/^(big|some)/.test(name) && !overTcp) return { flags: 0x380, answers: [] }
    if (name.startsWith('none')) return { flags: 0x183, answers: [] }
    const addresses = name.startsWith('big') ? big : name.startsWith('some') ? big.slice(0, 3) : ['192.0.2.1']
    return { answers: addresses.map((data) => ({ name, type, ttl: 600, data })) }
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
  const [whole] = await tcp(port, [framed(encode({ name: 'big.example.com' }))], 1)
  t.equal(whole!.flag_tc, false)
  t.strictSame(
    whole!.answers.map(({ data }) => data),
    big,
  )
  t.match(
    await udp(port, encode({ name: 'some.example.com' })),
    { flag_tc: false, answers: big.slice(0, 3).map((data) => ({ data })) },
    'asked over TCP for the client, whom it fits',
  )

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
  const later = await Promise.all([1, 2, 3].map((i) => udp(port, encode({ name: `lost${i}0.example.com` }))))
  t.ok(later.every((message) => message?.rcode === 'SERVFAIL'))
  t.ok(performance.now() - afterwards < 1_900, 'who asks a dead upstream waits for a second at most')
  silent = false
  // A check that is under way is lost too.
  await sleep(1_700)
  t.equal((await udp(port, encode({ name: 'back.example.com' })))?.rcode, 'NOERROR', 'and it is found again')
})

t.test('answers of strangers and of dead upstreams', { buffered: true }, async (t) => {
  const forger = createSocket('udp4')
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
  await new Promise<void>((resolve) => forger.bind(0, '127.0.0.1', resolve))
  t.teardown(() => forger.close())
  const good = await upstreamServer(t, ({ questions }) => ({
    answers: [{ name: questions[0]!.name, type: 'A', ttl: 1, data: '192.0.2.1' }],
  }))
  const { port: own } = await start(t, [`127.0.0.1:${forger.address().port}`, good.address])
  t.match(
    await udp(own, encode({ name: 'example.com' })),
    { answers: [{ data: '192.0.2.1' }] },
    'the wrong id and the wrong question count for nothing',
  )
})

t.test('a closed port is no two seconds, and what was known is served', { buffered: true }, async (t) => {
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

t.test('while the resolver is silent, what was known comes in time for the client', { buffered: true }, async (t) => {
  let silent = false
  const upstream = await upstreamServer(t, ({ questions }) =>
    silent ? undefined : { answers: [{ name: questions[0]!.name, type: 'A', ttl: 1, data: '192.0.2.1' }] },
  )
  const { port } = await start(t, [upstream.address])
  await udp(port, encode({ name: 'example.com' }))
  silent = true
  await sleep(5_100)
  const startedAt = performance.now()
  t.match(await udp(port, encode({ name: 'example.com' })), { answers: [{ data: '192.0.2.1', ttl: 30 }] })
  const ms = performance.now() - startedAt
  t.ok(ms > 1_700 && ms < 2_500, `${ms} ms`)
})

t.test('a resolver that fails is left aside, checked, and found again', { buffered: true }, async (t) => {
  let well = false
  const first = await upstreamServer(t, ({ questions: [question] }) =>
    well ? { answers: question!.type === 'A' ? [{ ...question!, ttl: 60, data: '192.0.2.1' }] : [] } : undefined,
  )
  const second = await upstreamServer(t, ({ questions: [question] }) => ({
    answers: [{ ...question!, ttl: 60, data: '192.0.2.2' }],
  }))
  const { port } = await start(t, [first.address, second.address])
  const ask = async (name: string) => (await udp(port, encode({ name })))?.answers[0]?.data
  t.equal(await ask('a.example.com'), '192.0.2.2', 'after two seconds')
  await until('it is down', 3_000, async () => {
    const startedAt = performance.now()
    t.equal(await ask(`${startedAt}.example.com`), '192.0.2.2')
    return performance.now() - startedAt < 500
  })
  well = true
  await until(
    'it is asked first again',
    3_000,
    async () => (await ask(`${performance.now()}.example.com`)) === '192.0.2.1',
  )
})

t.test('what many ask for is asked for again before it ends', { buffered: true }, async (t) => {
  const upstream = await upstreamServer(t, ({ questions: [question] }) => ({
    answers: [{ ...question!, ttl: 5, data: '192.0.2.1' }],
  }))
  const { port } = await start(t, [upstream.address])
  const startedAt = performance.now()
  for (const name of ['popular', 'popular', 'popular', 'rare']) await udp(port, encode({ name: `${name}.example.com` }))
  t.equal(upstream.seen.length, 2)
  await sleep(4_600 - (performance.now() - startedAt))
  for (const name of ['popular', 'rare'])
    t.match(await udp(port, encode({ name: `${name}.example.com` })), { answers: [{ ttl: 1 }] }, 'from the cache')
  await until('it is asked again', 1_000, async () => upstream.seen.length === 3)
  await sleep(5_100 - (performance.now() - startedAt))
  t.match(await udp(port, encode({ name: 'popular.example.com' })), { answers: [{ ttl: 5 }] })
  t.equal(upstream.seen.length, 3)
})

t.test('what one resolver refuses another may know', { buffered: true }, async (t) => {
  const refusing = await upstreamServer(t, () => ({ flags: 0x185, answers: [] }))
  const good = await upstreamServer(t, ({ questions: [question] }) =>
    question!.name.startsWith('none') ? { flags: 0x182 } : { answers: [{ ...question!, ttl: 60, data: '192.0.2.1' }] },
  )
  const { port } = await start(t, [refusing.address, good.address])
  t.match(await udp(port, encode({ name: 'example.com' })), { rcode: 'NOERROR', answers: [{ data: '192.0.2.1' }] })
  t.equal((await udp(port, encode({ name: 'none.example.com' })))?.rcode, 'REFUSED', 'the first word where all fail')
})

t.test('a domain with resolvers of its own', { buffered: true }, async (t) => {
  const answering = (data: string) =>
    upstreamServer(t, ({ questions: [question] }) => ({ answers: [{ ...question!, ttl: 60, data }] }))
  const [all, corp, lab] = [await answering('192.0.2.1'), await answering('192.0.2.2'), await answering('192.0.2.3')]
  const { port } = await start(
    t,
    [all.address],
    undefined,
    `corp.example=${corp.address},lab.corp.example=${lab.address}`,
  )
  const rows: readonly (readonly [name: string, address: string])[] = [
    ['example.com', '192.0.2.1'],
    ['corp.example', '192.0.2.2'],
    ['db.Corp.Example', '192.0.2.2'],
    ['db.lab.corp.example', '192.0.2.3'],
    ['notcorp.example', '192.0.2.1'],
  ]
  for (const [name, address] of rows) t.equal((await udp(port, encode({ name })))?.answers[0]?.data, address, name)
})

t.test('nothing of a client but its question reaches others', { buffered: true }, async (t) => {
  const upstream = await upstreamServer(t, ({ questions: [question] }) => ({
    answers: [{ ...question!, ttl: 60, data: '192.0.2.1' }],
  }))
  const { port } = await start(t, [upstream.address])
  const options = [{ code: 'CLIENT_SUBNET', ip: '10.244.1.7', sourcePrefixLength: 32 }]
  const query = packet.encode({
    type: 'query',
    id: 7,
    flags: 0x100,
    questions: [{ name: 'example.com', type: 'A', class: 'IN' }],
    additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0, options }],
  })
  t.match(await udp(port, query), { answers: [{ data: '192.0.2.1' }] })
  t.match(decode(upstream.messages[0]!), { additionals: [{ type: 'OPT', udpPayloadSize: 1232, options: [] }] })
})

t.test('the resolvers of resolv.conf, but never ourselves', { buffered: true }, async (t) => {
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
