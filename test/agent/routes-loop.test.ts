import t from 'tap'
import { join } from 'node:path'
import type { Pool } from '../../lib/k8s/pools.ts'
import { connect, createHost, isRoot, until } from '../lib/netns.ts'

const SCRIPT = join(import.meta.dirname, '../gateway/kernel-host.ts')
const node = (name: string, host: number) => ({
  name,
  addresses: [`192.168.1.1${host}`, `fd00:168:1::1${host}`],
  podCidrs: [`10.244.${host}.0/24`, `fd00:244:${host}::/64`],
})
const cloud: Pool = {
  name: 'cloud',
  nodes: [{ name: 'c', addresses: [], podCidrs: ['10.244.9.0/24'] }],
  gateways: ['c'],
}
const pools: readonly Pool[] = [cloud, { name: 'hanover', nodes: [node('h1', 1), node('h2', 2)], gateways: ['h1'] }]

t.test("an agent's routes", { skip: isRoot ? false : 'needs root' }, async (t) => {
  const [h1, h2] = await Promise.all([createHost(), createHost()])
  t.teardown(() => Promise.all([h1.close(), h2.close()]))
  await connect('lan', [h1, '192.168.1.11/24', 'fd00:168:1::11/64'], [h2, '192.168.1.12/24', 'fd00:168:1::12/64'])
  await h2.sh('ip link add cni type bridge; ip addr add 10.244.2.1/24 dev cni; ip link set cni up')
  await h1.sh(
    'ip addr add 10.244.1.1/32 dev lo; ip addr add 10.244.9.9/32 dev lo; ip route add 10.244.2.0/24 via 192.168.1.12',
  )
  let agent = await h2.start(SCRIPT)
  await agent.call('openAgent')
  await agent.call('updateAgent', { node: 'h2', pools })
  const state = async () =>
    (await h2.sh('ip rule show pref 5101; ip route show table 7077; ip -6 route show table 7077')).replace(/ +$/gm, '')
  const healthy = await state()
  const repaired = async (t: { comment(text: string): void }, what: string) =>
    t.comment(`${what}: ${(await until(what, 1_000, async () => (await state()) === healthy)).toFixed(0)} ms`)

  t.test('are in the kernel and lead to pods', async (t) => {
    t.equal(
      healthy,
      `5101:	not from all fwmark 0x46000000/0xff000000 lookup 7077
10.244.1.0/24 via 192.168.1.11 dev lan proto 177 metric 200
10.244.9.0/24 via 192.168.1.11 dev lan proto 177 src 10.244.2.1 metric 200 mtu 1380
unreachable 10.244.9.0/24 proto 177 metric 10001
fd00:244:1::/64 via fd00:168:1::11 dev lan proto 177 metric 200 pref medium`,
    )
    await h2.sh('ping -c 1 -W 1 10.244.1.1')
    await h2.sh('ping -c 1 -W 1 10.244.9.9')
    t.same((await agent.call('agentPlan')).gateway, { node: 'h1', address: '192.168.1.11', transport: 'on-link' })
  })

  t.test('come back', async (t) => {
    await h2.sh('ip route flush table 7077; ip -6 route flush table 7077')
    await repaired(t, 'flushed tables')
    await h2.sh('ip rule del pref 5101')
    await repaired(t, 'deleted rule')
    await h2.sh('ip link set lan down; ip link set lan up; ip addr replace fd00:168:1::12/64 dev lan nodad')
    await repaired(t, 'a device that went down and up')
    await h2.sh('ip link set lan down')
    await until('no route over a device that is down', 1_000, async () => !(await state()).includes('dev lan'))
    await h2.sh('ip link set lan up; ip addr replace fd00:168:1::12/64 dev lan nodad')
    await repaired(t, 'a device that comes up later')
    await h2.sh('ip addr flush dev cni')
    await until('no source', 1_000, async () => !(await state()).includes('src'))
    await h2.sh('ip addr add 10.244.2.1/24 dev cni')
    await repaired(t, 'an address that comes later')
  })

  t.test('are adopted by the next agent, which removes what is stale', async (t) => {
    await agent.kill()
    await h2.sh(
      'ip route add 10.244.7.0/24 via 192.168.1.11 table 7077 proto 177; ip route add 10.9.0.0/24 via 192.168.1.11 table 7077',
    )
    agent = await h2.start(SCRIPT)
    await agent.call('openAgent')
    t.match(await state(), '10.244.7.0/24', 'nothing is removed before anything is known')
    await agent.call('updateAgent', { node: 'h2', pools })
    t.equal(
      await state(),
      healthy.replace('10.244.1.0/24', '10.9.0.0/24 via 192.168.1.11 dev lan\n10.244.1.0/24'),
      'others stay',
    )
    await agent.call('updateAgent', { node: 'h1', pools })
    const own = await state()
    t.notMatch(own, '10.244.9.0/24 via', 'the gateway daemon of this node routes other pools')
    t.match(own, 'unreachable 10.244.9.0/24', 'and until it does, nothing leaks')
  })
})
