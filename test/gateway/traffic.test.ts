import t from 'tap'
import { carriedBytes } from '../../gateway/echo.ts'
import { hasTraffic, type Counters } from '../../gateway/traffic.ts'

const none: Counters = { wireguardBytes: 10_000, echoBytes: 5_000, latestHandshake: 1 }
const after = (more: Partial<Counters> & { wireguard?: number; echo?: number }): Counters => ({
  ...none,
  wireguardBytes: none.wireguardBytes + (more.wireguard ?? 0),
  echoBytes: none.echoBytes + (more.echo ?? 0),
  ...(more.latestHandshake === undefined ? {} : { latestHandshake: more.latestHandshake }),
})
/** Thirty seconds of echoes, two a second and side, each with its reply. */
const echoes = 30 * 2 * 2 * 2 * carriedBytes('small')

t.test('echoes, keepalives and handshakes are no traffic', async (t) => {
  t.notOk(hasTraffic(none, none))
  t.notOk(hasTraffic(none, after({ wireguard: echoes, echo: echoes })))
  t.notOk(hasTraffic(none, after({ wireguard: echoes + 4 * 32, echo: echoes })))
  t.notOk(hasTraffic(none, after({ wireguard: echoes + 2 * 240, echo: echoes, latestHandshake: 2 })))
})

t.test('a call is', async (t) => {
  t.ok(hasTraffic(none, after({ wireguard: echoes + 1_500, echo: echoes })))
  t.ok(hasTraffic(none, after({ wireguard: 500 })))
  t.ok(hasTraffic(none, { wireguardBytes: 90, echoBytes: 5_000, latestHandshake: 2 }), 'a device made anew')
})

t.test('sizes of echoes as WireGuard sends them', async (t) => {
  t.strictSame([carriedBytes('small'), carriedBytes('least'), carriedBytes('full')], [96, 1312, 1412])
})
