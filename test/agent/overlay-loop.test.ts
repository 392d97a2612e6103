// Two nodes of a pool on two links with a router between: packets inside of both families over both families outside, what a
// device carries, and what becomes of devices that are changed, removed or somebody else's.

import t from 'tap'
import { join } from 'node:path'
import type { Pool } from '../../lib/k8s/pools.ts'
import { connect, createHost, isRoot, until, type Host } from '../lib/netns.ts'

const SCRIPT = join(import.meta.dirname, '../gateway/kernel-host.ts')
const ROWS = [
  {
    outer: 4,
    device: 'fm-vxlan',
    of: (site: number, host: number) => `192.168.${site}.${host}`,
    length: 24,
    overhead: 50,
  },
  {
    outer: 6,
    device: 'fm-vxlan6',
    of: (site: number, host: number) => `2001:db8:${site}::${host}`,
    length: 64,
    overhead: 70,
  },
] as const
const LINK_MTU = 1400

for (const { outer, device, of, length, overhead } of ROWS)
  t.test(`IPv${outer} outside`, { skip: isRoot ? false : 'needs root' }, async (t) => {
    const [h1, router, h2] = await Promise.all([createHost(), createHost(), createHost()])
    t.teardown(() => Promise.all([h1, router, h2].map((host) => host.close())))
    await connect('lan', [h1, `${of(1, 11)}/${length}`], [router, `${of(1, 1)}/${length}`])
    await connect('eth0', [h2, `${of(2, 12)}/${length}`], [router, `${of(2, 1)}/${length}`])
    await router.sh('echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding')
    await router.sh(`ip link set lan mtu ${LINK_MTU}; ip link set eth0 mtu ${LINK_MTU}`)
    const prepare = async (host: Host, link: string, site: number) => {
      await host.sh(`ip link set ${link} mtu ${LINK_MTU}; ip route add default via ${of(site, 1)}`)
      await host.sh('for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done')
      await host.sh(`ip addr add 10.244.${site}.1/32 dev lo; ip addr add fd00:244:${site}::1/128 dev lo`)
    }
    await prepare(h1, 'lan', 1)
    await prepare(h2, 'eth0', 2)
    await h1.sh('ip addr add 10.244.9.9/32 dev lo; ip addr add fd00:244:9::9/128 dev lo')
    const node = (name: string, site: number, host: number) => ({
      name,
      addresses: [of(site, host)],
      podCidrs: [`10.244.${site}.0/24`, `fd00:244:${site}::/64`],
    })
    const cloud = { name: 'c', addresses: [], podCidrs: ['10.244.9.0/24', 'fd00:244:9::/64'] }
    const pools: readonly Pool[] = [
      { name: 'cloud', nodes: [cloud], gateways: ['c'] },
      { name: 'hanover', nodes: [node('h1', 1, 11), node('h2', 2, 12)], gateways: ['h1'] },
    ]
    const start = async (host: Host, node: string) => {
      const agent = await host.start(SCRIPT)
      await agent.call('openAgent')
      await agent.call('updateAgent', { node, pools })
      return agent
    }
    const first = await start(h1, 'h1')
    let second = await start(h2, 'h2')
    const full = LINK_MTU - overhead
    const pings = async () => {
      await h2.sh(`ping -c 1 -W 1 -M do -s ${full - 28} 10.244.9.9`)
      await h2.sh(`ping -6 -c 1 -W 1 -M do -s ${full - 48} fd00:244:9::9`)
    }
    const state = () =>
      h2.sh(
        `ip -d -o link show ${device} | sed 's/^[0-9]*//'; bridge fdb show dev ${device}; ip -6 neigh show dev ${device}; ip route show table 7077; ip -6 route show table 7077`,
      )

    // The router's own addresses are being looked for twice at first (RFC 4862 §5.4).
    const pass = () =>
      pings().then(
        () => true,
        () => false,
      )
    await until('the first packets', 5_000, pass)
    await t.rejects(h2.sh(`ping -c 1 -W 1 -M do -s ${full - 27} 10.244.9.9`), 'one byte more is refused here')
    const healthy = await state()
    t.match(healthy, new RegExp(`mtu ${full} .* nolearning`))
    t.match((await second.call('agentPlan')).gateway, { node: 'h1', address: of(1, 11), transport: 'vxlan' })
    t.match(
      await h1.sh('ip route show table 7078'),
      `10.244.2.0/24 via inet6 fe80`,
      'what comes over the mesh finds h2',
    )
    t.match(await h2.sh(`cat /proc/sys/net/ipv4/conf/${device}/rp_filter`), '2')

    const repaired = async (what: string) =>
      t.comment(
        `${what}: ${(await until(what, 1_000, async () => (await state().catch(() => '')) === healthy)).toFixed(0)} ms`,
      )
    await h2.sh(`ip link del ${device}`)
    await repaired('a device that was removed')
    await h2.sh(`ip link set ${device} down; ip link set ${device} up`)
    await repaired('a device that went down and up')
    await h2.sh(`ip link set ${device} mtu 1300`)
    await repaired('an MTU that was changed')
    await second.kill()
    await pings()
    const index = await h2.sh(
      `cat /sys/class/net/${device}/ifindex 2>/dev/null || ip -o link show ${device} | cut -d: -f1`,
    )
    second = await start(h2, 'h2')
    t.equal(
      await h2.sh(`cat /sys/class/net/${device}/ifindex 2>/dev/null || ip -o link show ${device} | cut -d: -f1`),
      index,
      'adopted by the next agent',
    )
    await pings()

    // Somebody else's device with our port and identifier: named, and nothing of theirs is touched.
    await second.kill()
    await h2.sh(
      `ip link del ${device}; ip link add theirs type vxlan id 7077 dstport 7080 local ${of(2, 12)}; ip link set theirs up`,
    )
    second = await start(h2, 'h2')
    const { problems } = await second.call('agentPlan')
    t.match(
      problems.join('\n'),
      /add vxlan device fm-vxlan6?: EEXIST; UDP port 7080 or VNI 7077 is taken by another device/,
    )
    t.match(await h2.sh('ip link show theirs'), 'theirs')
    t.match(await h2.sh('ip route show table 7077'), 'unreachable 10.244.9.0/24')
    await h2.sh('ip link del theirs')
    await second.call('updateAgent', { node: 'h2', pools })
    await pings()

    await second.kill()
    const cleaner = await h2.start(SCRIPT)
    t.match(await cleaner.call('removeOwned'), [/^rule/])
    t.notMatch(
      await h2.sh('ip link; ip rule; ip -6 rule; ip route show table all'),
      /fm-|707[78]/,
      'nothing of ours is left',
    )
    await first.kill()
  })
