// Names of others, asked through the agent's server: resolvers that answer, that lie, that stay silent and that come back.

import { createSocket } from 'node:dgram'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import packet from 'dns-packet'
import t from 'tap'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { decode, encode, framed, start, tcp, udp, upstreamServer } from './dns-asking.ts'

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

t.test('the resolvers of resolv.conf, but never ourselves', async (t) => {
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
