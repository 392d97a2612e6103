import { randomBytes } from 'node:crypto'
import t from 'tap'
import { isRoot, ping, until } from '../lib/netns.ts'
import { SCRIPT, twoGateways } from './two-gateways.ts'

t.test('WireGuard devices', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const { a, b, opened, close } = await twoGateways()
  t.teardown(close)
  const identities = () =>
    a.host.sh('ip -o link show | grep -o "^.*: fm-[a-z]*"; ss -xlpH | grep -o "wireguard-go.*pid=[0-9]*" | sort')
  const pingable = (address: string) =>
    a.host.sh(`ping -c 1 -W 0.2 ${address}`).then(
      () => true,
      () => false,
    )
  const passes = async (what: string, ms: number) => {
    const took = await until(what, ms, async () => (await pingable(b.ipv4)) && (await pingable(b.ipv6)))
    t.comment(`${what}: packets pass after ${took.toFixed(0)} ms`)
  }
  let daemon = a.daemon

  t.test('are made', async (t) => {
    t.comment(
      `two devices: ${opened.map(({ implementation, ms }) => `${implementation} in ${ms.toFixed(0)} ms`).join(', ')}`,
    )
    t.equal(
      (await a.host.sh('ip -br addr show fm-direct; ip -br addr show fm-udp')).replace(/ +/g, ' ').trimEnd(),
      ['fm-direct', 'fm-udp']
        .map(
          (name) =>
            `${name} UNKNOWN 10.244.1.1/32 fd00:244:1::1/128 fd66:756c:6d61:decb:3b95:749b:2638:5711/128 fe80::5385:ac6:67b4:4f4f/64 `,
        )
        .join('\n')
        .trimEnd(),
    )
    t.match(await a.host.sh('ip link show fm-direct'), /,UP,LOWER_UP> mtu 1380 /)
    t.equal(
      await a.host.sh('cat /proc/sys/net/ipv4/conf/fm-direct/rp_filter /proc/sys/net/ipv4/conf/fm-udp/rp_filter'),
      '2\n2',
    )
    t.match(await a.host.sh('wg show fm-udp'), /listening port: 5002\n +fwmark: 0x46000000/)
    await passes('first packets', 5_000)
    const [peer] = await daemon.call('observePeers', 'direct')
    t.match(peer, { publicKey: b.publicKey, endpoint: '198.18.0.2:5001', keepaliveSeconds: 25, rx: Number, tx: Number })
    t.ok(Math.abs(peer.latestHandshake - Date.now()) < 10_000)
    t.ok(await pingable(`${b.peer.allowedIps[2]}%fm-direct`), 'the link-local address of the peer answers')
    t.ok(await pingable(`${b.peer.allowedIps[2]}%fm-udp`), 'on each device')
  })

  t.test('are adopted by the next gateway after a kill -9, and no packet is lost', async (t) => {
    const before = await identities()
    const [peer] = await daemon.call('observePeers', 'direct')
    const stop = ping(a.host, b.ipv6, a.ipv6, 0.01)
    await daemon.kill()
    daemon = await a.host.start(SCRIPT)
    const { ms } = await daemon.call('openWireGuard', a.options)
    t.comment(`adopted in ${ms.toFixed(0)} ms`)
    await daemon.call('setPeers', 'direct', [b.peer])
    await daemon.call('setPeers', 'relay-udp', [b.peer])
    const { sent, received } = await stop()
    t.equal(sent - received, 0, `${sent} sent, all answered`)
    t.equal(await identities(), before, 'the same devices and processes')
    const [after] = await daemon.call('observePeers', 'direct')
    t.equal(after.latestHandshake, peer.latestHandshake, 'the session goes on')
    t.equal(after.endpoint, peer.endpoint, 'the endpoint stays where none is given')
  })

  t.test('listen on another port, and go on', async (t) => {
    const portOf = async () => (await a.host.sh('wg show fm-direct listen-port')).trim()
    const stop = ping(a.host, b.ipv4, a.ipv4, 0.01)
    await daemon.call('setPort', 'direct', 5009)
    t.equal(await portOf(), '5009')
    await passes('from another port', 1_000)
    const { sent, received } = await stop()
    t.comment(`${sent - received} of ${sent} pings lost over the change`)
    t.equal(
      (await b.daemon.call('observePeers', 'direct'))[0].endpoint,
      '198.18.0.1:5009',
      'the other side has followed our packets',
    )
    await t.rejects(daemon.call('setPort', 'direct', 5002), /listen-port 5002: .*Address already in use/)
    await until('it listens where it did', 2_000, async () => (await portOf()) === '5009')
    await passes('after a port that is in use', 2_000)
    await daemon.call('setPort', 'direct', 5001)
    await passes('back', 1_000)
  })

  t.test('are made anew with peers and endpoints', async (t) => {
    await daemon.call('setEndpoint', 'direct', b.publicKey, '[2001:db8::2]:5001', 10)
    const routes = await daemon
      .call('openRoutes', { source4: a.ipv4, source6: a.ipv6 })
      .then(() => daemon.call('apply', [b.route]))
    t.equal(routes, undefined)
    await passes('over IPv6', 5_000)
    await a.host.sh('ip link del fm-direct')
    await passes('after ip link del', 1_500)
    const [peer] = await daemon.call('observePeers', 'direct')
    t.match(peer, { endpoint: '[2001:db8::2]:5001', keepaliveSeconds: 10 })

    if (opened[0]!.implementation === 'wireguard-go') {
      const wireguardGo = async () => /fm-direct.*?pid=(\d+)/.exec(await a.host.sh('ss -xlpH'))?.[1]
      await a.host.sh(`kill -9 ${await wireguardGo()}`)
      await passes('after kill -9 of its wireguard-go', 1_500)
      const late = await wireguardGo()
      await a.host.sh(`kill -STOP ${late}; ip link del fm-direct; sleep 0.5; kill -CONT ${late}`)
      await passes('after one that ended late', 3_000)
    }
    await a.host.sh('ip addr flush dev fm-direct')
    await until('flushed addresses', 1_000, async () =>
      (await a.host.sh('ip -br addr show fm-direct')).includes(a.ipv6),
    )
    await passes('after ip addr flush', 1_500)
  })

  t.test('a peer comes and goes beside one that stays', async (t) => {
    const peers = async () =>
      (await a.host.sh('wg show fm-direct allowed-ips')).split('\n').filter((line) => line !== '')
    const [before] = await daemon.call('observePeers', 'direct')
    const other = { publicKey: randomBytes(32).toString('base64'), allowedIps: ['10.244.9.0/24'], keepaliveSeconds: 0 }
    await daemon.call('setPeers', 'direct', [b.peer, other])
    t.equal((await peers()).length, 2)
    const [prefix, ...rest] = b.peer.allowedIps
    const moved = [
      { ...other, allowedIps: [...other.allowedIps, prefix] },
      { ...b.peer, allowedIps: rest },
    ]
    await daemon.call('setPeers', 'direct', moved)
    t.match(
      (await peers()).find((line) => line.startsWith(other.publicKey)),
      prefix,
      'a prefix moves',
    )
    await daemon.call('setPeers', 'direct', [b.peer])
    t.equal((await peers()).length, 1)
    const [after] = await daemon.call('observePeers', 'direct')
    t.equal(after.latestHandshake, before.latestHandshake, 'the session goes on')
    await passes('after that', 1_000)
  })

  t.test('refuse what cannot be', async (t) => {
    await t.rejects(daemon.call('setPeers', 'relay-tcp', []), /no WireGuard device was asked for on rung relay-tcp/)
    await t.rejects(
      daemon.call('setEndpoint', 'direct', a.publicKey, '1.2.3.4:5', 0),
      /fm-direct has no peer .*: give it to setPeers first/,
    )
    await t.rejects(
      daemon.call('setPeers', 'direct', [{ ...b.peer, publicKey: 'nonsense' }]),
      /wg set fm-direct.*nonsense/,
    )
    await daemon.call('setPeers', 'direct', [])
    t.same(await daemon.call('observePeers', 'direct'), [])

    const third = await b.host.start(SCRIPT)
    const devices = [{ rung: 'relay-tcp', port: 5001 }]
    await t.rejects(
      third.call('openWireGuard', { ...b.options, devices }),
      /wg set fm-tcp listen-port 5001: .*Address already in use/,
    )
    await b.host.sh('ip link del fm-tcp')
    await b.host.sh('ip link add fm-tcp type bridge')
    const port = [{ rung: 'relay-tcp', port: 5003 }]
    await t.rejects(
      third.call('openWireGuard', { ...b.options, devices: port }),
      /fm-tcp is no WireGuard device but a bridge: remove or rename it/,
    )
  })
})
