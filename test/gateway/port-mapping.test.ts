// A mapping through its life, against a router that is a few lines, and time that passes as the test says.

import t from 'tap'
import { isContinued, PortMapping, wantsMapping } from '../../gateway/port-mapping.ts'
import { UNKNOWN_NAT } from '../../gateway/nat.ts'
import type { NatBehaviour } from '../../lib/status.ts'

const NONCE = Buffer.from('0102030405060708090a0b0c', 'hex')
const PORT = 22_000
const EXTERNAL = [198, 51, 100, 1]

type Router = {
  protocols: readonly ('pcp' | 'nat-pmp')[]
  /** Of PCP: whether a router without it says so or is silent. */
  tells: boolean
  lifetimeSeconds: number
  result: number
  startedMs: number
  external: readonly number[]
  /** Requests that came, by kind. */
  seen: string[]
}
const router = (change: Partial<Router> = {}): Router => ({
  protocols: ['pcp', 'nat-pmp'],
  tells: true,
  lifetimeSeconds: 7_200,
  result: 0,
  startedMs: -60_000,
  external: EXTERNAL,
  seen: [],
  ...change,
})

function answer(to: Router, request: Buffer, nowMs: number): Buffer | undefined {
  const epoch = Math.floor((nowMs - to.startedMs) / 1000)
  const pcp = request[0] === 2
  to.seen.push(`${pcp ? 'pcp' : 'pmp'}-${request[1] === 1 ? 'map' : pcp ? 'announce' : 'address'}`)
  if (pcp && !to.protocols.includes('pcp'))
    return to.tells ? Buffer.from([0, request[1]! | 128, 0, 1, 0, 0, 0, 1]) : undefined
  if (!pcp && !to.protocols.includes('nat-pmp')) return undefined
  if (pcp) {
    const reply = Buffer.from(request)
    reply[1]! |= 128
    reply.fill(0, 2, 24)
    reply[3] = request[1] === 1 ? to.result : 0
    reply.writeUInt32BE(to.result === 0 ? to.lifetimeSeconds : 40, 4)
    reply.writeUInt32BE(epoch, 8)
    if (request[1] === 1) reply.set(to.external, 56)
    return reply
  }
  const reply = Buffer.alloc(request[1] === 1 ? 16 : 12)
  reply[1] = request[1]! | 128
  reply.writeUInt16BE(to.result, 2)
  reply.writeUInt32BE(epoch, 4)
  if (request[1] === 0) reply.set(to.external, 8)
  else {
    request.copy(reply, 8, 4, 8)
    reply.writeUInt32BE(to.lifetimeSeconds, 12)
  }
  return reply
}

/** Steps the mapping whenever it asks to be, until a time. `to` undefined: nobody is there. */
function run(mapping: PortMapping, fromMs: number, untilMs: number, to: Router | undefined): void {
  for (
    let nowMs = Math.max(fromMs, mapping.nextMs), steps = 0;
    nowMs <= untilMs;
    nowMs = Math.max(nowMs, mapping.nextMs)
  ) {
    if (++steps > 10_000) throw new Error(`spins at ${nowMs} ms`)
    for (const request of mapping.step(nowMs)) {
      const reply = to && answer(to, request, nowMs)
      if (reply !== undefined) mapping.received(reply, nowMs, 0)
    }
  }
}
const begin = () => new PortMapping('192.168.1.2', PORT, NONCE, 0)

t.test('PCP: asked for once, renewed at half', async (t) => {
  const [mapping, home] = [begin(), router()]
  run(mapping, 0, 1, home)
  t.strictSame(mapping.external, { address: '198.51.100.1', port: PORT, family: 4 })
  t.equal(mapping.protocol, 'pcp')
  t.strictSame(home.seen, ['pcp-map'], 'one packet')
  run(mapping, 1, 3_599_999, home)
  t.equal(home.seen.filter((kind) => kind === 'pcp-map').length, 1)
  run(mapping, 3_599_999, 3_600_001, home)
  t.equal(home.seen.filter((kind) => kind === 'pcp-map').length, 2, 'renewed after an hour of two')
  t.equal(mapping.problem, '')
})

t.test('lifetimes are bounded', async (t) => {
  for (const [lifetimeSeconds, withinMs, renewals] of [
    [1, 60_000, 15],
    [0xffffffff, 13 * 3_600_000, 2],
  ] as const) {
    const [mapping, home] = [begin(), router({ lifetimeSeconds })]
    run(mapping, 0, withinMs, home)
    const asked = home.seen.filter((kind) => kind === 'pcp-map').length
    t.ok(asked >= renewals && asked <= renewals + 1, `${lifetimeSeconds} s: ${asked} requests in ${withinMs} ms`)
  }
})

for (const [name, tells] of [
  ['that says so', true],
  ['that is silent', false],
] as const)
  t.test(`a router ${name} about PCP speaks NAT-PMP`, async (t) => {
    const [mapping, home] = [begin(), router({ protocols: ['nat-pmp'], tells })]
    run(mapping, 0, 5_000, home)
    t.strictSame(
      [mapping.protocol, mapping.external?.address, mapping.external?.port],
      ['nat-pmp', '198.51.100.1', PORT],
    )
    const seen = home.seen.length
    run(mapping, 5_000, 3_500_000, home)
    t.ok(
      home.seen.slice(seen).every((kind) => kind === 'pmp-address'),
      'nothing but signs of life until half',
    )
    home.external = [198, 51, 100, 9]
    run(mapping, 3_500_000, 3_600_000, home)
    t.equal(mapping.external?.address, '198.51.100.9', 'another address outside is noticed')
  })

t.test('a router without either costs few packets', async (t) => {
  const mapping = begin()
  let packets = 0
  for (let nowMs = 0; nowMs < 3_600_000; nowMs = Math.max(nowMs, mapping.nextMs)) packets += mapping.step(nowMs).length
  t.match(mapping.problem, /no router answers/)
  t.ok(packets <= 12 * 7, `${packets} packets in an hour`)
  const [refused, before] = [begin(), router()]
  refused.step(0)
  refused.unreachable(1)
  t.match(refused.problem, /neither PCP nor NAT-PMP/)
  run(refused, 1, 14_000, before)
  t.strictSame(before.seen, [], 'an ICMP error ends it at once')
  run(refused, 14_000, 16_000, before)
  t.ok(refused.external, 'but not for long: it may still be coming up')
})

t.test('a refusal is told, and is not asked again before its time', async (t) => {
  const [mapping, home] = [begin(), router({ result: 2 })]
  run(mapping, 0, 39_000, home)
  t.match(mapping.problem, /not authorized/)
  t.strictSame(home.seen, ['pcp-map'])
  home.result = 0
  run(mapping, 39_000, 41_000, home)
  t.ok(mapping.external, 'the 40 s that the router said are over')
  t.equal(mapping.problem, '')
})

t.test('a router that restarts has forgotten: asked again within a minute, for the same', async (t) => {
  for (const protocol of ['pcp', 'nat-pmp'] as const) {
    const [mapping, home] = [begin(), router({ protocols: [protocol] })]
    run(mapping, 0, 100_000, home)
    home.startedMs = 100_000
    home.seen = []
    run(mapping, 100_000, 165_000, home)
    t.ok(home.seen.includes(protocol === 'pcp' ? 'pcp-map' : 'pmp-map'), protocol)
    t.ok(mapping.external)
  }
  const [mapping, home] = [begin(), router()]
  run(mapping, 0, 100_000, home)
  home.startedMs = 100_000
  mapping.check(101_000)
  home.seen = []
  run(mapping, 101_000, 101_001, home)
  t.ok(home.seen.includes('pcp-map'), 'at once, when something failed')
})

t.test('notices of the router', async (t) => {
  const notice = (epoch: number) => {
    const bytes = Buffer.alloc(24)
    bytes.set([2, 128])
    bytes.writeUInt32BE(epoch, 8)
    return bytes
  }
  const [mapping, home] = [begin(), router()]
  run(mapping, 0, 5_000, undefined)
  t.match(mapping.problem, /no router/)
  mapping.received(notice(0), 6_000, 0)
  run(mapping, 6_000, 6_001, home)
  t.ok(mapping.external, 'one that has come up is asked')
  home.seen = []
  for (let i = 0; i < 50; i++) {
    mapping.received(notice(i * 1_000), 7_000 + i, 0)
    run(mapping, 7_000 + i, 7_000 + i, home)
  }
  t.ok(home.seen.length <= 2, `fifty forged ones are ${home.seen.length} requests`)
})

t.test('a router that falls silent: the mapping counts until it ends', async (t) => {
  const mapping = begin()
  run(mapping, 0, 10_000, router())
  run(mapping, 10_000, 7_199_000, undefined)
  t.ok(mapping.external)
  run(mapping, 7_199_000, 7_900_000, undefined)
  t.equal(mapping.external, undefined)
  t.match(mapping.problem, /no router/)
})

t.test('answers that are not to our request', async (t) => {
  const home = router()
  for (const [name, change] of [
    ['another nonce', (reply: Buffer) => reply.set([9], 24)],
    ['another port', (reply: Buffer) => reply.writeUInt16BE(1, 40)],
    ['another protocol', (reply: Buffer) => reply.set([6], 36)],
  ] as const) {
    const mapping = begin()
    const [request] = mapping.step(0)
    const reply = answer(home, request!, 0)!
    change(reply)
    mapping.received(reply, 1, 0)
    t.equal(mapping.external, undefined, name)
  }
  for (const [name, external] of [['no address outside', [0, 0, 0, 0]]] as const) {
    const mapping = begin()
    run(mapping, 0, 1, router({ external }))
    t.equal(mapping.external, undefined, name)
    t.match(mapping.problem, /no address for the outside/)
  }
})

t.test('the clock of a router goes on, or it does not', async (t) => {
  for (const [name, seconds, afterMs, continued] of [
    ['on time', 160, 60_000, true],
    ['a second back, by reordering', 99, 0, true],
    ['started again', 5, 60_000, false],
    ['a little fast', 163, 60_000, true],
    ['too fast', 170, 60_000, false],
    ['stood still', 100, 60_000, false],
    ['a sixteenth slow in an hour', 100 + 3_380, 3_600_000, true],
  ] as const)
    t.equal(isContinued({ seconds: 100, atMs: 0 }, { seconds, atMs: afterMs }), continued, name)
})

t.test('where a mapping is of no use', async (t) => {
  const nat = (mapping: NatBehaviour['mapping'], filtering: NatBehaviour['filtering']): NatBehaviour => ({
    mapping,
    filtering,
    udp: 'open',
  })
  for (const [name, family, behaviour, wanted] of [
    ['IPv4 behind any NAT', 4, nat('endpoint-independent', 'endpoint-independent'), true],
    ['IPv4 without NAT', 4, nat('none', 'none'), false],
    ['IPv4 without NAT, firewall', 4, nat('none', 'address-and-port-dependent'), false],
    ['IPv4, UDP blocked', 4, { ...UNKNOWN_NAT, udp: 'blocked' }, true],
    ['IPv4 that nobody looked at', 4, undefined, true],
    ['IPv6, open', 6, nat('none', 'none'), false],
    ['IPv6 behind a firewall', 6, nat('none', 'address-and-port-dependent'), true],
    ['IPv6 that nobody looked at', 6, undefined, true],
  ] as const)
    t.equal(wantsMapping(family, behaviour), wanted, name)
})
