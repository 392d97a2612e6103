// The contract of the DNS: the Kubernetes DNS specification 1.1, with CoreDNS's behaviour where it leaves room, asked over
// UDP and TCP on IPv4 and IPv6. The cluster and the rows are in dns-cases.ts.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import packet from 'dns-packet'
import t, { type Test } from 'tap'
import { runDnsServer } from '../../agent/dns-server.ts'
import { openUpstream } from '../../agent/dns-upstream-client.ts'
import { zoneOf, type ZoneInput } from '../../agent/dns-zone.ts'
import { createLog } from '../../lib/log.ts'
import { find } from '../../lib/net/preflight.ts'
import { encode, framed, tcp, udp, upstreamServer, type Message, type Question } from '../agent/dns-asking.ts'
import { until } from '../lib/netns.ts'
import { CASES, cluster, clusterOfMany, db, here, MANY, SERVERS } from './dns-cases.ts'

const run = promisify(execFile)

let lastPort = 31_000 + (process.pid % 1_000)
async function serve(t: Test, more: Partial<ZoneInput> = {}, upstreams: readonly string[] = []): Promise<number> {
  const controller = new AbortController()
  const port = ++lastPort
  const zone = zoneOf({ cluster, here, domains: ['cluster.local'], servers: SERVERS, ...more })
  const dns = runDnsServer(
    {
      addresses: ['127.0.0.1', '::1'],
      port,
      ensureAddress: async () => undefined,
      zone: () => zone,
      upstream: openUpstream({ servers: upstreams, resolvConf: '/nonexistent', except: () => [] }, controller.signal),
      log: createLog('test', 'silent'),
    },
    controller.signal,
  )
  await until('it listens', 5_000, async () => dns.listening().length === 2)
  t.teardown(async () => {
    controller.abort()
    await dns.done
  })
  return port
}

type Way = { readonly name: string; readonly ask: (port: number, question: Question) => Promise<Message | undefined> }
const WAYS: readonly Way[] = ['127.0.0.1', '::1'].flatMap((address) => [
  { name: `UDP ${address}`, ask: (port, question) => udp(port, encode(question), address) },
  {
    name: `TCP ${address}`,
    ask: async (port, question) => (await tcp(port, [framed(encode(question))], 1, address))[0],
  },
])

/** `NOERROR A 10.96.0.5 | soa`: what is answered, then what comes with it, each sorted. */
function brief(message: Message | undefined): string {
  if (message === undefined) return 'nothing'
  const text = ({ type, data }: { type: string; data: unknown }): readonly string[] => {
    if (type === 'OPT') return []
    if (type === 'SOA') return ['soa']
    if (type === 'TXT') return [`TXT ${String(data)}`]
    if (type === 'HINFO') return [`HINFO ${(data as { cpu: string }).cpu}`]
    if (type !== 'SRV') return [`${type} ${data}`]
    const { priority, weight, port, target } = data as Record<string, unknown>
    return [`SRV ${priority} ${weight} ${port} ${target}`]
  }
  const answers = message.answers.flatMap(text)
  // An alias comes before what it leads to (glibc), all others in any order.
  const sorted = answers[0]?.startsWith('CNAME') ? answers : answers.sort()
  const more = [...message.authorities, ...message.additionals].flatMap(text).sort()
  return [message.rcode, ...sorted, ...(more.length > 0 ? ['|', ...more] : [])].join(' ')
}

t.test('names and their answers', async (t) => {
  const upstream = await upstreamServer(t, ({ questions: [question] }) => {
    const { name, type } = question!
    if (name.startsWith('none') || name.startsWith('6.1.244')) return { flags: 0x183, answers: [] }
    return { answers: [{ name, type, ttl: 60, data: type === 'PTR' ? 'host.example.com' : '192.0.2.1' }] }
  })
  const port = await serve(t, {}, [upstream.address])
  for (const [row, cases] of Object.entries(CASES))
    await t.test(row, async (t) => {
      for (const [name, type, expected] of cases)
        for (const way of WAYS) {
          const question = { name, type, edns: 1232 }
          // Once as it is made, once as it is kept.
          for (let i = 0; i < 2; i++)
            t.equal(brief(await way.ask(port, question)), expected, `${name} ${type} by ${way.name}`)
        }
    })
})

t.test('names of pods switched off', async (t) => {
  const port = await serve(t, { pods: 'disabled' })
  for (const { name, ask } of WAYS)
    t.equal(brief(await ask(port, { name: '10-244-1-4.shop.pod.cluster.local' })), 'NXDOMAIN | soa', name)
})

t.test('two domains', async (t) => {
  const port = await serve(t, { domains: ['edge.example', 'cluster.local'] })
  for (const { ask } of WAYS) {
    for (const name of ['web.shop.svc.edge.example', 'web.shop.svc.cluster.local'])
      t.equal(brief(await ask(port, { name })), 'NOERROR A 10.96.0.5', name)
    const ptr = await ask(port, { name: '5.0.96.10.in-addr.arpa', type: 'PTR' })
    t.equal(brief(ptr), 'NOERROR PTR web.shop.svc.edge.example')
  }
})

t.test('before anything is known nothing is denied', async (t) => {
  const port = await serve(t, { cluster: undefined })
  for (const { ask } of WAYS)
    for (const name of ['web.shop.svc.cluster.local', 'x.cluster.local', '5.0.96.10.in-addr.arpa'])
      t.equal(brief(await ask(port, { name })), 'SERVFAIL', name)
})

t.test('the message', async (t) => {
  const port = await serve(t)
  for (const { name: way, ask } of WAYS) {
    const found = await ask(port, { name: 'wEb.sHoP.svc.CLUSTER.local', id: 4711, edns: 4096 })
    t.match(
      found,
      {
        id: 4711,
        flag_aa: true,
        flag_tc: false,
        questions: [{ name: 'wEb.sHoP.svc.CLUSTER.local' }],
        answers: [{ name: 'wEb.sHoP.svc.CLUSTER.local', ttl: 5 }],
        additionals: [{ type: 'OPT', udpPayloadSize: 1232 }],
      },
      `case, AA, TTL and EDNS by ${way}`,
    )
    const denied = await ask(port, { name: 'nobody.shop.svc.cluster.local' })
    t.match(
      denied!.authorities,
      [{ name: 'cluster.local', ttl: 5, data: { minimum: 5 } }],
      'the SOA’s minimum is the TTL',
    )
    t.equal((await ask(port, { name: 'dns-version.cluster.local', type: 'TXT' }))!.answers[0]!.ttl, 28_800)
    t.equal(brief(await ask(port, { name: 'version.bind', type: 'TXT', class: 'CH' })), 'REFUSED', 'another class')
    t.equal(brief(await ask(port, { name: 'web.shop.svc.cluster.local', flags: 5 << 11 })), 'NOTIMP', 'another opcode')
  }
})

t.test('EDNS: unknown options and the DO bit are no harm, other versions are told', async (t) => {
  const port = await serve(t)
  const query = (opt: object): Buffer =>
    packet.encode({
      type: 'query',
      id: 7,
      flags: 0x100,
      questions: [{ name: 'web.shop.svc.cluster.local', type: 'A', class: 'IN' }],
      additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0, options: [], ...opt }],
    })
  const options = [{ code: 65_001, data: Buffer.from('what is it') }]
  for (const address of ['127.0.0.1', '::1']) {
    t.equal(brief(await udp(port, query({ options }), address)), 'NOERROR A 10.96.0.5')
    t.match(await udp(port, query({ flags: 0x8000 }), address), { additionals: [{ flag_do: true, options: [] }] })
    const later = await udp(port, query({ ednsVersion: 1 }), address)
    t.match(later, { answers: [], additionals: [{ extendedRcode: 1, ednsVersion: 0 }] }, 'BADVERS')
  }
})

t.test('what does not fit is cut, marked and whole over TCP; its order is by chance', async (t) => {
  const port = await serve(t)
  const name = 'many.shop.svc.cluster.local'
  for (const { name: way, ask } of WAYS) {
    const sizes: readonly (readonly [edns: number | undefined, least: number])[] = [
      [undefined, 28],
      [1232, 70],
      [4096, 70],
    ]
    for (const [edns, least] of sizes) {
      const found = await ask(port, { name, ...(edns !== undefined && { edns }) })
      const data = found!.answers.map((record) => String(record.data))
      if (way.startsWith('TCP')) t.strictSame([found!.flag_tc, data.toSorted()], [false, [...MANY].sort()])
      else t.ok(found!.flag_tc && data.length >= least && data.length < MANY.length, `${edns}: ${data.length}`)
    }
    const orders = new Set<string>()
    for (let i = 0; i < 12; i++) {
      const found = await ask(port, { name: 'db.shop.svc.cluster.local' })
      orders.add(found!.answers.map((record) => record.data).join())
    }
    t.equal(orders.size, 2, `both orders of two by ${way}`)
  }
})

t.test('ten thousand endpoints: as many as fit, marked as cut', async (t) => {
  const port = await serve(t, { cluster: clusterOfMany(10_000, db) })
  const rows: readonly (readonly [name: string, type: string, udp: number, tcp: number])[] = [
    ['huge.shop.svc.cluster.local', 'A', 70, 4_000],
    ['_sql._tcp.huge.shop.svc.cluster.local', 'SRV', 15, 900],
    ['huge.shop.svc.cluster.local', 'SRV', 15, 900],
  ]
  for (const [name, type, overUdp, overTcp] of rows)
    for (const { name: way, ask } of WAYS) {
      const found = await ask(port, { name, type, edns: 1232 })
      t.match(found, { rcode: 'NOERROR', flag_tc: true }, `${name} ${type} by ${way}`)
      const least = way.startsWith('UDP') ? overUdp : overTcp
      t.ok(found!.answers.length >= least, `${name} ${type} by ${way}: ${found!.answers.length} answers`)
    }
  t.equal(brief(await WAYS[0]!.ask(port, { name: '10-1-39-15.huge.shop.svc.cluster.local' })), 'NOERROR A 10.1.39.15')
})

const hasDig = find('dig') !== undefined
t.test('dig, as somebody else’s client', { skip: hasDig ? false : 'dig is not here (bind9-dnsutils)' }, async (t) => {
  const port = await serve(t)
  const rows: readonly (readonly [words: string, status: string, answer: RegExp])[] = [
    ['web.shop.svc.cluster.local A', 'NOERROR', /^web\.shop\.svc\.cluster\.local\.\s+5\s+IN\s+A\s+10\.96\.0\.5$/m],
    ['web.shop.svc.cluster.local AAAA +dnssec +nsid', 'NOERROR', /\sAAAA\s+fd00:96::5$/m],
    ['web.shop.svc.cluster.local A +edns=1', 'BADVERS|NOERROR', /./],
    ['_http._tcp.web.shop.svc.cluster.local SRV', 'NOERROR', /\sSRV\s+0 100 80 web\.shop\.svc\.cluster\.local\.$/m],
    ['inside.shop.svc.cluster.local A', 'NOERROR', /CNAME\s+web\.shop.*\n.*\sA\s+10\.96\.0\.5$/m],
    ['-x 10.244.1.4', 'NOERROR', /\sPTR\s+db-0\.db\.shop\.svc\.cluster\.local\.$/m],
    ['-x fd00:96::5', 'NOERROR', /\sPTR\s+web\.shop\.svc\.cluster\.local\.$/m],
    ['dns-version.cluster.local TXT', 'NOERROR', /\s28800\s+IN\s+TXT\s+"1\.1\.0"$/m],
    [
      'cluster.local SOA',
      'NOERROR',
      /\sSOA\s+ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. 1 7200 1800 86400 5$/m,
    ],
    ['web.shop.svc.cluster.local ANY +notcp', 'NOERROR', /\sHINFO\s+"RFC8482" ""$/m],
    ['nobody.shop.svc.cluster.local A', 'NXDOMAIN', /^(?!.*\sA\s)/s],
    ['many.shop.svc.cluster.local A', 'NOERROR', /ANSWER: 120,/],
  ]
  for (const [words, status, expected] of rows)
    for (const way of ['@127.0.0.1', '@::1', '@127.0.0.1 +tcp', '@::1 +tcp']) {
      const all = `-p ${port} +time=2 +tries=1 +noall +comments +answer ${way} ${words}`.split(' ')
      const { stdout } = await run('dig', way.endsWith('+tcp') ? all.filter((word) => word !== '+notcp') : all)
      t.match(stdout, new RegExp(`status: (${status}),`), `${way} ${words}`)
      t.match(stdout, expected, `${way} ${words}`)
      // It warns of the domain .local as such.
      t.notMatch(stdout, /malformed|WARNING: (?!\.local)|extra bytes/i, `${way} ${words}`)
      if (status !== 'BADVERS|NOERROR') t.match(stdout, /flags: qr aa rd/, `${way} ${words}`)
    }
})
