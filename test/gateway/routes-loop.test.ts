import t, { type Test } from 'tap'
import { isRoot, ping, until } from '../lib/netns.ts'
import { SCRIPT, twoGateways } from './two-gateways.ts'

t.test('routes over two WireGuard devices', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const { a, b, close } = await twoGateways()
  t.teardown(close)
  const pingable = (address: string) =>
    a.host.sh(`ping -c 1 -W 1 ${address}`).then(
      () => true,
      () => false,
    )
  const repaired = async (t: Test, what: string) => {
    const ms = await until(what, 1_000, async () => (await state()) === healthy)
    t.comment(`${what}: repaired in ${ms.toFixed(0)} ms`)
    t.ok((await pingable(b.ipv4)) && (await pingable(b.ipv6)), 'and packets pass')
  }
  const state = () =>
    a.host.sh('for f in -4 -6; do ip $f rule show pref 5101; ip $f route show table 7077; done; ip nexthop')
  let healthy = ''

  t.test('what is in the kernel', async (t) => {
    healthy = await state()
    const id = Number(/nhid (\d+)/.exec(healthy)?.[1])
    t.equal(
      healthy.replace(/ +$/gm, ''),
      `5101:	not from all fwmark 0x46000000/0xff000000 lookup 7077
10.244.2.0/24 nhid ${id} dev fm-direct proto 178 src 10.244.1.1 metric 100 mtu 1380
unreachable 10.244.2.0/24 proto 178 metric 10000
5101:	not from all fwmark 0x46000000/0xff000000 lookup 7077
fd00:244:2::/64 nhid ${id + 1} dev fm-direct proto 178 src fd00:244:1::1 metric 100 mtu 1380 pref medium
unreachable fd00:244:2::/64 dev lo proto 178 metric 10000 pref medium
id ${id} dev fm-direct scope host proto 178
id ${id + 1} dev fm-direct scope link proto 178`,
    )
    t.same(await a.daemon.call('observeRungs', ['b', 'c']), { b: 'direct' }, 'a new gateway finds the rung in use')
    t.equal(await a.host.sh('cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding'), '1\n1')
  })

  t.test('moves lose nothing, in either direction and family', async (t) => {
    await Promise.all([b.ipv4, b.ipv6].map((address) => until(`ping ${address}`, 5_000, () => pingable(address))))
    const pings = [
      ping(a.host, b.ipv4, a.ipv4, 0.005),
      ping(a.host, b.ipv6, a.ipv6, 0.005),
      ping(b.host, a.ipv4, b.ipv4, 0.005),
    ]
    const took: number[] = []
    for (let i = 0; i < 20; i++) {
      const rung = i % 2 === 0 ? 'relay-udp' : 'direct'
      took.push(await a.daemon.call('move', 'b', rung))
      await new Promise((resolve) => setTimeout(resolve, 40))
      await b.daemon.call('move', 'a', rung)
      await new Promise((resolve) => setTimeout(resolve, 40))
    }
    for (const stop of pings) {
      const { sent, received } = await stop()
      t.equal(sent - received, 0, `${sent} sent, all answered`)
      t.ok(sent > 100)
    }
    t.comment(`a move takes ${took.toSorted((x, y) => x - y)[10]!.toFixed(2)} ms (median)`)
    t.equal(await state(), healthy)
  })

  t.test('whether the agent of the node leads elsewhere', async (t) => {
    for (const [name, destination, metric, expected] of [
      ['to the gateway that it heard', '10.244.2.0/24', 50, true],
      ['to the first gateway, below ours', '10.244.2.0/24', 200, false],
      ['to a neighbour', '10.244.1.128/25', 50, false],
    ] as const) {
      const route = `${destination} via 198.18.0.2 table 7077 proto 177 metric ${metric}`
      await a.host.sh(`ip route add ${route}`)
      t.equal(await a.daemon.call('isOverruled'), expected, name)
      await a.host.sh(`ip route del ${route}`)
    }
    t.equal(await a.daemon.call('isOverruled'), false)
    const kept = '10.244.2.0/24 via 198.18.0.2 table 7077 proto 177 metric 200'
    await a.host.sh(`ip route add ${kept} && ip route add ${kept.replace('200', '50')}`)
    await a.daemon.call('overrule')
    const left = await a.host.sh('ip route show table 7077 proto 177')
    t.match(left, /^10\.244\.2\.0\/24 via 198\.18\.0\.2 .*metric 200/m, 'what comes behind ours stays')
    t.notMatch(left, /metric 50/, 'and what came before is gone')
    await a.host.sh(`ip route del ${kept}`)
  })

  t.test('what others take away is back', async (t) => {
    // (`ip route flush` of 6.1 fails on routes over nexthop objects.)
    for (const destination of b.route.cidrs) await a.host.sh(`ip route del ${destination} table 7077 metric 100`)
    await repaired(t, 'deleted routes')
    for (const destination of b.route.cidrs)
      await a.host.sh(`ip route replace blackhole ${destination} table 7077 metric 100`)
    await repaired(t, 'replaced routes')
    await a.host.sh('ip rule del pref 5101; ip -6 rule del pref 5101')
    await repaired(t, 'deleted rules')
    await a.host.sh('ip nexthop flush')
    await repaired(t, 'flushed nexthops')
    await a.host.sh('ip link set fm-direct down')
    await repaired(t, 'a device set down')
    await a.host.sh('ip link del fm-direct')
    await repaired(t, 'a deleted device')
  })

  t.test('a pool without a path is unreachable, others stay', async (t) => {
    const other = { pool: 'c', cidrs: ['10.244.3.0/24'], rung: 'direct' }
    await a.daemon.call('apply', [{ ...b.route, rung: undefined }, other])
    t.match(await a.host.sh('ip route get 10.244.2.9 2>&1 || true'), /unreachable|No route to host/)
    t.match(await a.host.sh('ip route get 10.244.3.9'), /dev fm-direct/)
    await a.daemon.call('move', 'b', 'relay-udp')
    t.match(await a.host.sh('ip route get 10.244.2.9'), /dev fm-udp/, 'the first rung of a pool')
    t.match(
      await a.host.sh('ip route get 10.244.2.9 mark 0x46000000 2>&1 || true'),
      /unreachable/,
      'WireGuard is not caught',
    )
    await t.rejects(
      a.daemon.call('move', 'b', 'relay-tcp'),
      /pool b stays: device fm-tcp of relay-tcp is missing or down/,
    )
    await t.rejects(a.daemon.call('move', 'nobody', 'direct'), /no routes to pool nobody/)
  })

  t.test('what changes alone is as if all were set anew', async (t) => {
    const pool = (name: string, cidrs: readonly string[], rung?: string, mtu?: number) => ({
      pool: name,
      cidrs,
      rung,
      mtu,
    })
    const steps: readonly (readonly ReturnType<typeof pool>[])[] = [
      [pool('b', ['10.244.2.0/24', 'fd00:244:2::/64'], 'direct'), pool('c', ['10.244.3.0/24'])],
      [pool('c', ['10.244.3.0/24'], 'relay-udp', 1280), pool('b', ['10.244.2.0/24', 'fd00:244:2::/64'], 'direct')],
      // A prefix goes from one pool to another.
      [pool('c', ['10.244.3.0/24', '10.244.2.0/24'], 'relay-udp', 1280), pool('b', ['fd00:244:2::/64'], 'direct')],
      [pool('d', ['10.244.4.0/24'], 'direct'), pool('b', ['fd00:244:2::/64'])],
    ]
    for (const wanted of steps) {
      await a.daemon.call('apply', wanted)
      const changed = await state()
      // `ip` fails where what it flushes is set anew meanwhile.
      await a.host.sh('ip nexthop flush; ip route flush table 7077; ip -6 route flush table 7077; true')
      await until('all is set anew', 2_000, async () => (await state()) === changed)
      t.pass(wanted.map(({ pool }) => pool).join())
    }
    await a.daemon.call('apply', [{ ...b.route, rung: 'direct' }])
  })

  t.test('clean-up removes ours and nothing else', async (t) => {
    await a.daemon.kill()
    await a.host.sh(
      'ip route add 10.9.0.0/24 via 198.18.0.2 table 7077; ip nexthop add id 7 dev wan; ip rule add lookup 7077 pref 9',
    )
    const cleaner = await a.host.start(SCRIPT)
    const removed: string[] = await cleaner.call('removeOwned')
    t.match(removed.join('\n'), 'rule 5101 for table 7077 (IPv4)')
    t.same(removed.slice(-2).toSorted(), ['device fm-direct', 'device fm-udp'])
    t.same(await cleaner.call('removeOwned'), [], 'twice is once')
    t.equal((await state()).replace(/ +$/gm, ''), '10.9.0.0/24 via 198.18.0.2 dev wan\nid 7 dev wan scope host')
    t.match(await a.host.sh('ip rule'), /9:\tfrom all lookup 7077/)
    t.notMatch(await a.host.sh('ip link'), /fm-/)
  })
})
