// What a gateway knows of its NAT as time goes by: found out, used, and found out anew in another network.

import t from 'tap'
import type { NatBehaviour } from '../../lib/status.ts'
import { isRoot, until } from '../lib/netns.ts'
import { CLOUD, createNatNet, expiring, RULES } from './nat-net.ts'

t.setTimeout(120_000)

const PORT = 7000
/** Longer than a network takes to settle and a discovery to end, silences included. */
const NOTICED_MS = 6_000

t.test('in networks that change', { skip: isRoot ? false : 'needs root for network namespaces' }, async (t) => {
  const net = await createNatNet()
  t.teardown(net.close)
  await net.server.call('startServer', CLOUD)
  const known = async (): Promise<NatBehaviour> => (await net.client.call('seen')).nat
  const becomes = async (what: string, ms: number, expected: Partial<NatBehaviour>): Promise<void> => {
    const holds = async () =>
      Object.entries(await known()).filter(([key, value]) => key in expected && value === expected[key as never])
        .length === Object.keys(expected).length
    const tookMs = await until(what, ms, holds).catch(() => undefined)
    t.ok(tookMs !== undefined, `${what}: ${tookMs?.toFixed(0)} ms; ${JSON.stringify(await known())}`)
  }
  const requestsIn = async (ms: number): Promise<number> => {
    const before = await net.server.call('requests')
    await new Promise((done) => setTimeout(done, ms))
    return (await net.server.call('requests')) - before
  }

  await net.load(expiring(RULES.portRestricted, 3, 4))
  await net.client.call('watch', CLOUD[0], PORT)
  await becomes('mapping and filtering', 3000, {
    mapping: 'endpoint-independent',
    filtering: 'address-and-port-dependent',
    mapped: `203.0.113.1:${PORT}`,
  })
  await becomes('hairpin', 3000, { hairpin: false })
  await becomes('lifetime', 30_000, { lifetimeMs: 3000, lifetimeBelowMs: 6000 })
  await until('the tests are over', 5000, async () => (await requestsIn(1000)) <= 1)
  const refreshes = await requestsIn(7000)
  t.ok(refreshes >= 3 && refreshes <= 4, `the mapping is refreshed every 2 s: ${refreshes} times in 7 s`)
  const conntrack = await net.router.sh(`conntrack -L -p udp --orig-port-src ${PORT} 2>/dev/null || true`)
  t.match(conntrack, `sport=${PORT}`, 'and so it lives')

  await net.load(RULES.symmetric)
  await net.site.sh(
    'ip addr del 192.168.1.2/24 dev lan && ip addr add 192.168.1.7/24 dev lan && ip route add default via 192.168.1.1',
  )
  await becomes('another address', NOTICED_MS, { mapping: 'address-and-port-dependent', hairpin: false })
  t.equal((await known()).lifetimeMs, undefined, 'of the new network nothing slow is known yet')
  const { candidates } = await net.client.call('seen')
  t.equal(candidates[0].address.address, '192.168.1.7', 'and peers are told')

  await net.router.sh('ip addr add 192.168.1.254/24 dev lan')
  await net.load(RULES.fullCone)
  await net.site.sh('ip route replace default via 192.168.1.254')
  await becomes('another router', NOTICED_MS, {
    mapping: 'endpoint-independent',
    filtering: 'endpoint-independent',
  })

  // Eight tests of its lifetime wait now. A round of questions would be four and more.
  await until('the round is over', 10_000, async () => (await requestsIn(500)) === 0)
  await net.load(RULES.symmetric)
  await net.site.sh('ip addr change 192.168.1.7/24 dev lan valid_lft 3600 preferred_lft 3600')
  await net.site.sh('ip route replace default via 192.168.1.254')
  await new Promise((done) => setTimeout(done, 2000))
  t.equal((await known()).mapping, 'endpoint-independent', 'a lease that is renewed as it was is no other network')
})
