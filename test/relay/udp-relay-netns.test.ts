// Sessions over UDP through real kernels: two gateways and an intruder, each in a namespace of its own, around the relay.

import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import type { SocketAddress } from '../../lib/address.ts'
import type { UdpRelayStatus } from '../../lib/status.ts'
import type { SignalFrame, UdpSessionFrame } from '../../lib/wire/signal.ts'
import { connect, createHost, isRoot, until, type Remote } from '../lib/netns.ts'

const PLACES = { 4: '203.0.113.10', 6: '2001:db8:1::10' }
const PORTS = { first: 40000, last: 40019 }

async function createNet(t: { teardown(fn: () => unknown): unknown }, userspace: boolean) {
  const hosts = await Promise.all(['relay', 'a', 'b', 'c'].map(createHost))
  t.teardown(() => Promise.all(hosts.map((host) => host.close())))
  const [cloud, ...sites] = hosts as [Host, Host, Host, Host]
  for (const [i, site] of sites.entries()) {
    const [v4, v6] = [`192.0.${i + 2}`, `2001:db8:${i + 2}:`]
    await connect(`w${i}`, [cloud, `${v4}.1/24`, `${v6}:1/64`], [site, `${v4}.2/24`, `${v6}:2/64`])
    await site.sh(`ip route add default via ${v4}.1 && ip -6 route add default via ${v6}:1`)
  }
  await cloud.sh(`ip addr add ${PLACES[4]}/32 dev lo && ip addr add ${PLACES[6]}/128 dev lo`)
  const script = fileURLToPath(new URL('udp-remote.ts', import.meta.url))
  const [relay, a, b, c] = (await Promise.all(hosts.map((host) => host.start(script)))) as [
    Remote,
    Remote,
    Remote,
    Remote,
  ]
  const stateDir = mkdtempSync(join(tmpdir(), 'fulmar-udp-'))
  t.teardown(() => rmSync(stateDir, { recursive: true }))
  const startRelay = (): Promise<unknown> =>
    relay.call('startRelay', { stateDir, places: PLACES, ports: PORTS, userspace })
  await startRelay()
  await Promise.all([a.call('openGateway', 5001), b.call('openGateway', 5002), c.call('openBare', 5003)])

  const gateways: Record<string, Remote> = { a, b }
  const last = new Map<string, UdpSessionFrame>()
  let carrying = true
  /** What the signal session would carry. */
  const carry = async (): Promise<void> => {
    while (carrying) {
      for (const [from, gateway] of Object.entries(gateways))
        for (const to of await gateway.call('takeRequests')) await relay.call('request', from, to)
      for (const { node, frame } of (await relay.call('take')) as { node: string; frame: SignalFrame }[]) {
        if (frame.kind === 'udp-session') last.set(node, frame)
        await gateways[node]?.call('deliver', frame)
      }
      await wait(5)
    }
  }
  const carried = carry()
  t.teardown(async () => {
    carrying = false
    await carried
  })
  const endpoint = async (gateway: Remote): Promise<SocketAddress> => {
    await until('a session', 3000, async () => (await gateway.call('endpoint')) !== undefined)
    return gateway.call('endpoint')
  }
  /** Of the session, in this family. */
  const placeOf = (node: string, family: 4 | 6): SocketAddress =>
    last.get(node)!.endpoints.find((e) => e.family === family)!
  const bothReady = () =>
    until('both families', 3000, async () =>
      ['a', 'b'].every((node) => last.get(node)?.endpoints.every((e) => e.ready) === true),
    )
  const status = (): Promise<UdpRelayStatus> => relay.call('status')
  return { cloud, relay, startRelay, stateDir, a, b, c, last, endpoint, placeOf, bothReady, status }
}
type Host = Awaited<ReturnType<typeof createHost>>

/** How long a host is watched, also for what must not arrive. */
const WATCH_MS = 40
/** How long for what must, on a busy machine. */
const ARRIVAL_MS = 2_000

/** What a host got while it was watched, and after that until there is as much as is awaited. */
async function collect<T>(host: Remote, method: 'received' | 'answers', awaited: number): Promise<T[]> {
  const start = performance.now()
  await wait(WATCH_MS)
  const got: T[] = await host.call(method)
  while (got.length < awaited && performance.now() - start < ARRIVAL_MS) {
    await wait(5)
    got.push(...((await host.call(method)) as T[]))
  }
  return got
}
type Packet = { readonly bytes: number; readonly first: number; readonly from: string }

/** Sends one packet of each type. @returns what arrived there. */
async function exchange(from: Remote, to: Remote, via: SocketAddress, awaited = ALL.length): Promise<Packet[]> {
  await to.call('received')
  for (const [type, length] of ALL) await from.call('send', type, length, via)
  return collect(to, 'received', awaited)
}
const passes = async (from: Remote, to: Remote, via: SocketAddress): Promise<boolean> =>
  (await exchange(from, to, via, 0)).length === ALL.length
const shapes = (packets: readonly Packet[]) => packets.map(({ first, bytes }) => [first, bytes])
const ALL = [
  [1, 148],
  [2, 92],
  [3, 64],
  [4, 132],
]

for (const userspace of [false, true])
  t.test(`by ${userspace ? 'userspace' : 'the kernel'}`, { skip: !isRoot && 'needs root' }, async (t) => {
    const net = await createNet(t, userspace)
    const { a, b, c, cloud, relay, startRelay, stateDir, last, endpoint, placeOf, bothReady, status } = net
    t.equal((await status()).forwarder, userspace ? 'userspace' : 'kernel')

    const start = performance.now()
    await a.call('want', ['b'])
    await Promise.all([endpoint(a), endpoint(b)])
    t.comment(`both bound ${(performance.now() - start).toFixed(0)} ms after one asked`)
    await bothReady()
    const isOverIPv4 = async () => [await endpoint(a), await endpoint(b)].every(({ address }) => address === PLACES[4])
    await until('IPv4 where both families pass', 1000, isOverIPv4)
    t.equal((await endpoint(a)).port ^ 1, (await endpoint(b)).port, 'each sends to its own port')

    for (const family of [4, 6] as const) {
      const [viaA, viaB] = [placeOf('a', family), placeOf('b', family)]
      const arrived = await exchange(a, b, viaA)
      t.same(shapes(arrived), ALL, `a to b, IPv${family}`)
      t.same([...new Set(arrived.map(({ from }) => from))], [`${viaB.address} ${viaB.port}`], 'from b’s own port')
      t.same(shapes(await exchange(b, a, viaB)), ALL, `b to a, IPv${family}`)

      t.same(await exchange(c, b, viaA, 0), [], `IPv${family}: nothing from where nobody is bound`)
      t.same(await exchange(a, b, viaB, 0), [], `IPv${family}: nor by the other side’s port`)
    }

    await t.test('a cookie binds, and only from where its owner receives', async (t) => {
      type Answer = { readonly code?: number; readonly nonce?: string }
      const said = (awaited: number) => collect<Answer>(c, 'answers', awaited)
      await c.call('answers')
      for (const family of [4, 6] as const) {
        const via = placeOf('a', family)
        const { username, cookie } = last.get('a')!
        await c.call('plainStun', via)
        t.same(await said(0), [], 'STUN without a name is not answered')
        await c.call('bind', via, username, last.get('b')!.cookie, undefined)
        t.match(await said(1), [{ code: 401 }], 'the cookie of another side')
        await c.call('bind', via, '40018', cookie, undefined)
        t.match(
          await said(userspace ? 0 : 1),
          userspace ? [] : [{ code: 401 }],
          'a side that there is not: userspace has no socket there',
        )
        await c.call('bind', via, username, cookie, 'made up')
        const [challenge] = await said(1)
        t.match(challenge, { code: 438, nonce: /.{16}/ }, 'a nonce that was made up')

        // With the cookie and a nonce of its own, but from an address at which it does not receive.
        const forged = family === 4 ? '198.51.100.9' : '2001:db8:51::9'
        await c.call('bindFrom', forged, via, username, cookie, challenge!.nonce)
        t.same(await said(0), [])
      }
      t.same(
        (await status()).sessions[0]!.bound.map(({ address }) => address).toSorted(),
        ['192.0.2.2:5001', '192.0.3.2:5002', '[2001:db8:2::2]:5001', '[2001:db8:3::2]:5002'],
        'both sides are bound where they were',
      )
      const via = placeOf('a', 4)
      const { username, cookie } = last.get('a')!
      await c.call('bind', via, username, cookie, undefined)
      const [challenge] = await said(1)
      await c.call('bind', via, username, cookie, challenge!.nonce)
      t.match(await said(1), [{ code: undefined }], 'answered once the relay forwards')
      const { bound } = (await status()).sessions[0]!
      t.ok(
        bound.some(({ address }) => address === '192.0.4.2:5003'),
        'the same exchange in full binds',
      )
      t.same(shapes(await exchange(c, b, via)), ALL)
      t.same(await exchange(a, b, via, 0), [], 'and the place before is bound no longer')
      await a.call('refresh', 'b')
      await until('a is bound again', ARRIVAL_MS, () => passes(a, b, placeOf('a', 4)))
      t.same(shapes(await exchange(a, b, placeOf('a', 4))), ALL)
    })

    await t.test('a gateway that moves takes its session along', async (t) => {
      await a.call('move', 6001, 'b')
      for (const family of [4, 6] as const) {
        const took = await until('a new binding', 3000, () => passes(a, b, placeOf('a', family)))
        t.comment(`IPv${family}: bound anew after ${took.toFixed(0)} ms`)
        t.same(shapes(await exchange(a, b, placeOf('a', family))), ALL, `IPv${family}: from the new port`)
        t.same(shapes(await exchange(b, a, placeOf('b', family))), ALL, `IPv${family}: and to it`)
        if (userspace) continue
        const flows = await cloud.sh(`conntrack -L -f ipv${family} -p udp --mark 0x46000000/0xffff0000 2>/dev/null`)
        t.match(flows, 'port=6001')
        t.notMatch(flows, 'port=5001', 'conntrack remembers the place before no longer')
      }
    })

    await until('packets are counted', 12_000, async () => (await status()).forwarded >= 16)
    t.ok((await status()).unbound >= 16, 'and those of nobody')

    if (!userspace) {
      await t.test('what somebody else removes is back within a second', async (t) => {
        for (const command of [
          'flush ruleset',
          'delete table inet fulmar-relay',
          'flush chain inet fulmar-relay to-peer',
          'flush set inet fulmar-relay bound4',
          'delete element inet fulmar-relay peer6 { 40002 }',
        ]) {
          // New flows begin while the rules are gone.
          await cloud.sh(`nft '${command}'; conntrack -F 2>/dev/null`)
          const took = await until(command, 1000, () => passes(a, b, placeOf('a', 4)))
          t.comment(`${command}: ${took.toFixed(0)} ms`)
          await wait(200)
          t.same(shapes(await exchange(b, a, placeOf('b', 6))), ALL, command)
        }
      })

      await t.test('what the host itself drops is seen', async (t) => {
        await cloud.sh(
          'nft "add table ip docker; add chain ip docker FORWARD { type filter hook forward priority 0; policy drop; }"; conntrack -F 2>/dev/null',
        )
        t.same(await exchange(a, b, placeOf('a', 4), 0), [])
        await until('a problem', 12_000, async () => (await status()).problems.length > 0)
        t.match((await status()).problems, [/nft chain ip docker FORWARD drops.*ct mark & 0xffff0000 == 0x46000000/])
        await cloud.sh('nft add rule ip docker FORWARD "ct mark & 0xffff0000 == 0x46000000" accept')
        t.same(shapes(await exchange(a, b, placeOf('a', 4))), ALL, 'the remedy helps')
        await cloud.sh('nft delete table ip docker')
      })
    }

    await t.test('a relay that is restarted goes on with its sessions', async (t) => {
      const kept = join(stateDir, 'udp-sessions.json')
      await until('they are on disk', 3000, () =>
        Promise.resolve(existsSync(kept) && JSON.parse(readFileSync(kept, 'utf8')).sessions.length === 1),
      )
      await relay.call('stopRelay')
      if (!userspace) t.same(shapes(await exchange(a, b, placeOf('a', 4))), ALL, 'the kernel goes on meanwhile')
      await startRelay()
      t.same(shapes(await exchange(a, b, placeOf('a', 4))), ALL, 'nobody had to bind anything anew')
      t.same(shapes(await exchange(b, a, placeOf('b', 6))), ALL)
      last.clear()
      for (const node of ['a', 'b']) await relay.call('greet', node)
      await bothReady()
      t.pass('and the gateways are told of it as it was')
    })

    await t.test('a relay that starts anew gets its sessions back', async (t) => {
      await relay.call('stopRelay')
      rmSync(join(stateDir, 'udp-sessions.json'))
      await startRelay()
      // The kernel's relay tells whoever asks; of the other they hear by their new signal sessions.
      for (const gateway of [a, b])
        await (userspace ? gateway.call('reask') : gateway.call('refresh', gateway === a ? 'b' : 'a'))
      const took = await until('a session', 5000, () => passes(a, b, placeOf('a', 4)))
      t.comment(`packets pass again after ${took.toFixed(0)} ms`)
      await bothReady()
      t.same(shapes(await exchange(b, a, placeOf('b', 6))), ALL)
    })
  })
