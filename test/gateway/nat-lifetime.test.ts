import t from 'tap'
import { createSocket } from 'node:dgram'
import { socketAddress, type SocketAddress } from '../../lib/address.ts'
import { createLog } from '../../lib/log.ts'
import { decodeStun, encodeStun, type StunMessage } from '../../lib/wire/stun.ts'
import { measureLifetime } from '../../gateway/nat-lifetime-client.ts'
import { lifetimeOf, refreshMs, WAITS_MS, type Lifetime, type WaitTest } from '../../gateway/nat-lifetime.ts'
import { runStunServer } from '../../relay/stun-server.ts'
import { freeUdpPorts } from '../lib/free-ports.ts'

const never = new AbortController().signal
const at = (address: string, port: number): SocketAddress => socketAddress(address, port)!

/** `3+ 6- 12?`: alive, silent, unknown, in the order in which they ended. */
const testsOf = (text: string): readonly WaitTest[] =>
  text.split(' ').flatMap((word) => {
    const [, seconds, sign] = /^(\d+)([-+?])$/.exec(word) ?? []
    const outcome = ({ '+': 'alive', '-': 'silent', '?': 'unknown' } as const)[sign as '+' | '-' | '?']
    return seconds === undefined ? [] : [{ waitMs: Number(seconds) * 1000, outcome }]
  })
const between = (lived: number, died?: number): Lifetime => ({
  livedMs: lived * 1000,
  diedMs: died === undefined ? undefined : died * 1000,
})

const rows: readonly (readonly [string, string, Lifetime | undefined])[] = [
  ['nothing yet', '', undefined],
  ['one lived', '3+', between(3)],
  ['one died: it may be a loss', '3+ 6-', between(3)],
  ['two died', '3+ 6- 12-', between(3, 6)],
  ['two died, the longer first', '3+ 12- 6-', between(3, 6)],
  ['none lived', '3- 6-', between(0, 3)],
  ['only one died and none lived', '3-', undefined],
  ['a loss among the living', '3+ 6- 12+ 25- 45-', between(12, 25)],
  ['a loss among the living, twice', '3- 6- 12+', between(12)],
  ['the server was away', '3+ 6? 12? 25?', between(3)],
  ['the server was away for one', '3+ 6? 12- 25-', between(3, 12)],
  ['all lived', '3+ 6+ 12+ 25+', between(25)],
  ['the longest is tried twice', '3+ 6+ 12+ 25- 25-', between(12, 25)],
]
for (const [name, text, expected] of rows) t.strictSame(lifetimeOf(testsOf(text)), expected, `${name}: ${text}`)

for (const [livedMs, expected] of [
  [undefined, 20_000],
  [0, 2_000],
  [3_000, 2_000],
  [6_000, 3_000],
  [25_000, 12_500],
  [45_000, 20_000],
  [170_000, 20_000],
] as const)
  t.equal(refreshMs(livedMs), expected, `a mapping that lives ${livedMs} ms is refreshed every ${expected}`)

t.ok(
  WAITS_MS.every((waitMs, i) => waitMs >= (WAITS_MS[i - 1] ?? 0)),
  'waits ascend',
)
t.equal(WAITS_MS.at(-1), WAITS_MS.at(-2), 'and the longest can be confirmed')

t.test('servers', async (t) => {
  const ports = await freeUdpPorts()
  const end = new AbortController()
  const log = createLog('relay', 'silent')
  const server = await runStunServer({ addresses: ['127.0.0.1', '::1'], ports, log }, end.signal)
  const waitsMs = [100, 200]
  await t.test('one address is enough', async (t) => {
    for (const address of ['127.0.0.1', '::1']) {
      const place = at(address, ports[0])
      t.strictSame(
        await measureLifetime({ servers: [place], family: place.family, waitsMs }, never),
        { livedMs: 200, diedMs: undefined },
        address,
      )
    }
  })
  await t.test('a signal ends it at once', async (t) => {
    const ending = new AbortController()
    const measured = measureLifetime({ servers: [at('127.0.0.1', ports[0])], family: 4 }, ending.signal)
    setTimeout(() => ending.abort(), 100)
    const startedAt = performance.now()
    t.equal(await measured, undefined)
    t.ok(performance.now() - startedAt < 1000)
  })
  end.abort()
  await server.closed

  const answers: readonly (readonly [string, (request: StunMessage) => Partial<StunMessage> | undefined])[] = [
    ['is silent', () => undefined],
    [
      'refuses RESPONSE-PORT',
      ({ responsePort }) =>
        responsePort === undefined
          ? {}
          : { class: 'error', errorCode: { code: 420, reason: '' }, unknownAttributes: [0x27] },
    ],
    ['ignores RESPONSE-PORT', () => ({})],
  ]
  for (const [name, answer] of answers)
    await t.test(`one that ${name}`, async (t) => {
      const socket = createSocket('udp4')
      await new Promise<void>((done) => socket.bind(0, '127.0.0.1', done))
      socket.on('message', (datagram, { address, port }) => {
        const { responsePort: _, ...request } = decodeStun(datagram)!
        const fields = answer(decodeStun(datagram)!)
        if (fields === undefined) return
        const message = { ...request, class: 'success' as const, xorMappedAddress: at(address, port), ...fields }
        socket.send(encodeStun(message), port, address)
      })
      const place = at('127.0.0.1', socket.address().port)
      t.equal(await measureLifetime({ servers: [place], family: 4, waitsMs }, never), undefined)
      socket.close()
    })
  t.equal(await measureLifetime({ servers: [], family: 4 }, never), undefined, 'none')
})
