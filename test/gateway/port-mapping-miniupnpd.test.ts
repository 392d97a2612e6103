// Ports mapped by a real miniupnpd, on a router that is a symmetric NAT for IPv4 and a firewall for IPv6: the outside reaches
// what it could not before, through renewals, restarts on either side, and a router that speaks NAT-PMP only.

import t from 'tap'
import { miniupnpdRules, startMiniupnpd, startOn, withoutMiniupnpd } from '../lib/miniupnpd.ts'
import { connect, createHost, isRoot, until } from '../lib/netns.ts'

t.setTimeout(180_000)

const SCRIPT = new URL('port-mapping-remote.ts', import.meta.url).pathname
/** Beside 198.18.0.0/15, since miniupnpd takes addresses for documentation and benchmarks for private. */
const WAN = '198.20.0.1'
const SITE6 = '2001:db8:2::2'
const [PORT, OTHER_PORT] = [22_000, 22_001] as const
const NONCE = '0102030405060708090a0b0c'
const PATIENCE_MS = 15_000
const LIFETIME_S = 8

const RULES = miniupnpdRules(
  ['policy drop', 'ct state established,related accept', 'iifname "lan" accept'],
  ['meta nfproto ipv4 oifname "wan" masquerade fully-random'],
)
const SILENT_ABOUT_PCP = `table inet pmp {
  chain input {
    type filter hook input priority filter;
    udp dport 5351 @th,64,8 2 drop
  }
}
`

t.test('miniupnpd', { skip: isRoot ? withoutMiniupnpd : 'needs root for network namespaces' }, async (t) => {
  const hosts = await Promise.all([createHost(), createHost(), createHost()])
  t.teardown(() => Promise.all(hosts.map((host) => host.close())))
  const [far, router, site] = hosts
  await connect('wan', [far, '198.20.0.10/24', '2001:db8:1::10/64'], [router, `${WAN}/24`, '2001:db8:1::1/64'])
  await connect('lan', [router, '192.168.1.1/24', '2001:db8:2::1/64'], [site, '192.168.1.2/24', `${SITE6}/64`])
  await router.sh(`sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\nnft -f - <<'END'\n${RULES}END`)
  await far.sh('ip -6 route add default via 2001:db8:1::1')
  await site.sh('ip route add default via 192.168.1.1 && ip -6 route add default via 2001:db8:2::1')
  const [outside, gateway] = await Promise.all([far.start(SCRIPT), site.start(SCRIPT)])
  await Promise.all([gateway.call('echo', PORT), gateway.call('echo', OTHER_PORT)])

  const start = (lifetimeSeconds: number) =>
    startMiniupnpd(startOn(router), { lan: 'lan', wan: 'wan', lifetimeSeconds })
  const mapped = async (...addresses: readonly string[]): Promise<boolean> =>
    JSON.stringify(await gateway.call('mapped')) === JSON.stringify(addresses)
  const asked = (address: string, port: number): Promise<string | undefined> => outside.call('ask', address, port)
  const rulesOf = async (): Promise<string> => router.sh('nft list chain inet miniupnpd prerouting_miniupnpd')

  let daemon = await start(LIFETIME_S)
  t.teardown(() => daemon.kill())

  await t.test('IPv4 and IPv6, by PCP', async (t) => {
    t.equal(await asked(WAN, PORT), undefined, 'nobody comes in before')
    t.equal(await asked(SITE6, PORT), undefined, 'nor by IPv6')
    await gateway.call('start', PORT, NONCE, [4, 6])
    const tookMs = await until('both are mapped', PATIENCE_MS, () => mapped(`${WAN}:${PORT}`, `[${SITE6}]:${PORT}`))
    t.comment(`mapped after ${tookMs.toFixed(0)} ms`)
    t.match(await asked(WAN, PORT), /198\.20\.0\.10/, 'the outside comes in')
    t.match(await asked(SITE6, PORT), /2001:db8:1::10/, 'and through the firewall')
  })

  await t.test('renewed at half of what was granted', async (t) => {
    const grantedAt = performance.now()
    for (const round of [1, 2]) {
      const untilMs = grantedAt + round * LIFETIME_S * 1000
      await until(
        `life ${round} of the mapping is over`,
        2 * LIFETIME_S * 1000,
        async () => performance.now() > untilMs,
      )
      t.ok(await asked(WAN, PORT), `after ${round} times its life`)
    }
    t.ok(await mapped(`${WAN}:${PORT}`, `[${SITE6}]:${PORT}`))
  })

  await t.test('the next life of the gateway renews the same mapping', async (t) => {
    const before = await rulesOf()
    await gateway.call('start', PORT, NONCE, [4])
    await until('it is mapped', PATIENCE_MS, () => mapped(`${WAN}:${PORT}`))
    t.equal(await rulesOf(), before, 'one mapping, as it was')
  })

  await t.test('another port is another mapping', async (t) => {
    await gateway.call('move', OTHER_PORT)
    await until('it is mapped', PATIENCE_MS, () => mapped(`${WAN}:${OTHER_PORT}`))
    t.ok(await asked(WAN, OTHER_PORT), 'the outside comes in')
    const isOver = async (): Promise<boolean> => (await asked(WAN, PORT)) === undefined
    await until('what nobody renews ends by itself', 3 * LIFETIME_S * 1000, isOver)
  })

  await t.test('a router that restarts and has forgotten', async (t) => {
    await daemon.kill()
    await router.sh(`nft flush ruleset\nnft -f - <<'END'\n${RULES}END`)
    daemon = await start(7_200)
    const tookMs = await until('it is mapped again', PATIENCE_MS, async () => (await rulesOf()).includes('dnat'))
    t.comment(`mapped again ${tookMs.toFixed(0)} ms after the router was back`)
    t.ok(await asked(WAN, OTHER_PORT))
  })

  await t.test('a router that knows NAT-PMP only', async (t) => {
    await gateway.call('stop')
    await router.sh(`nft -f - <<'END'\n${SILENT_ABOUT_PCP}END`)
    await gateway.call('start', PORT, NONCE, [4])
    await until('it is mapped', PATIENCE_MS, () => mapped(`${WAN}:${PORT}`))
    t.ok(await asked(WAN, PORT))
    t.match(await router.sh('nft list chain inet pmp input'), /drop/)
  })

  await t.test('a router that is gone, and another in its place', async (t) => {
    await site.sh('ip route del default')
    await until('the mapping is dropped', PATIENCE_MS, () => mapped())
    await site.sh('ip route add default via 192.168.1.1')
    await until('it is mapped', PATIENCE_MS, () => mapped(`${WAN}:${PORT}`))
    t.pass()
  })
})
