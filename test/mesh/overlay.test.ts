// Pools whose nodes share no link: pods behind a gateway that is a router away call other pools, and are called, with
// packets of every size, and nobody but the nodes of the pool may send into the overlay. With other numbers than usual.

import t from 'tap'
import { startCalls } from '../lab/first-contact.ts'
import { sh } from './beside.ts'
import { addressOf, directOnce, failuresOf, get, openMesh, UNDER_LOAD, until } from './mesh.ts'

t.setTimeout(240_000)

const POOLS = ['bay', 'cape'] as const
const BYTES = 1_000_000
/** All numbers that may collide on a node are others here. */
const NUMBERS = ['--route-table', '900', '--rule-preference', '90', '--fwmark', '0x05000000/0x0f000000']
const lab = await openMesh(t, 'o', {
  pools: POOLS,
  nodes: 2,
  splitLans: POOLS,
  underlay: 'dual',
  agentFlags: ['--vxlan-port', '7099', '--vxlan-id', '99', ...NUMBERS],
  gatewayFlags: ['--warm', 'all', ...NUMBERS],
})
await directOnce(lab, POOLS)
const [CLIENT, SERVER] = ['bay2-client', 'cape2-shop'] as const
const url = (host: string, family: 4 | 6) => {
  const address = addressOf(lab, host, family)
  return `http://${family === 6 ? `[${address}]` : address}:8080/`
}

t.test('calls, bulk and packets of every size', async (t) => {
  t.match(
    await sh(lab, 'bay2', 'ip -d link show fm-vxlan'),
    /mtu 1450 [\s\S]*vxlan id 99 local 172\.16\.1\.12 .*dstport 7099 /,
  )
  for (const family of [4, 6] as const)
    for (const [from, to] of [
      [CLIENT, SERVER],
      ['cape2-client', 'bay2-shop'],
    ] as const) {
      const answers = await get(lab, from, Array<string>(100).fill(url(to, family)), family)
      t.equal(
        answers.filter(({ client }) => client === addressOf(lab, from, family)).length,
        100,
        `IPv${family} ${from} → ${to}`,
      )
      const options = ['-s', '-o', '/dev/null', '-m', '20', '-w', '%{size_download}']
      const { stdout } = await lab.exec(from, ['curl', ...options, `${url(to, family)}bytes?n=${BYTES}`])
      t.equal(stdout, String(BYTES), `IPv${family} ${from} ← ${to}: bulk`)
      const ping = (size: number) =>
        lab.exec(from, [
          'ping',
          '-c',
          '1',
          '-W',
          '1',
          '-M',
          'do',
          '-s',
          String(size - (family === 4 ? 28 : 48)),
          addressOf(lab, to, family),
        ])
      t.equal((await ping(1380)).code, 0, `IPv${family} ${from} → ${to}: a packet of 1380 bytes`)
      t.match(await ping(1381), { code: 1, stdout: /1380|too big/i }, 'and of one more the sender is told')
    }
})

t.test('pods of the pool reach each other over it only where that is asked for', async (t) => {
  t.notOk((await get(lab, CLIENT, [url('bay1-shop', 4)], 4)).length)
  const told = await until(
    'bay2 says so',
    async () =>
      (await lab.status()).daemons.flatMap(({ status }) =>
        status.kind === 'agent' && status.node === 'bay2' ? status.problems : [],
      )[0],
  )
  t.match(told, /^node bay1: it shares no link with this node .* start the agents of this pool with --overlay-pods/)
})

t.test('a stranger on the LAN is not let in', async (t) => {
  const mac = (await sh(lab, 'bay2', 'cat /sys/class/net/fm-vxlan/address')).trim()
  const pod = addressOf(lab, 'bay2-shop', 4)
  await sh(
    lab,
    'bay-nat',
    `ip link add sneak type vxlan id 99 dstport 7099 remote 172.16.1.12 && ip link set sneak up
    ip neigh add 192.0.2.99 lladdr ${mac} dev sneak nud permanent
    ip route add ${pod} via 192.0.2.99 dev sneak onlink src 172.16.1.1`,
  )
  const ping = () => lab.exec('bay-nat', ['ping', '-c', '1', '-W', '1', '-I', '172.16.1.1', pod])
  t.not((await ping()).code, 0, 'no answer')
  await lab.stop('bay2', 'agent')
  await sh(lab, 'bay2', 'nft flush chain inet fulmar-routes overlay-in')
  t.equal((await ping()).code, 0, 'but for the rule it would have had one')
  await lab.startAgain('bay2', 'agent')
  await until('the rule is back', async () => (await ping()).code !== 0, { withinMs: 3_000 })
  await sh(lab, 'bay-nat', 'ip link del sneak')
})

t.test('calls go on while agents start again', async (t) => {
  const calls = startCalls(lab, CLIENT, {
    url: url(SERVER, 4),
    family: 4,
    intervalMs: 10,
    timeoutMs: 1_000 * UNDER_LOAD,
    successes: 400,
  })
  for (const node of ['bay2', 'bay1', 'cape1', 'cape2']) lab.kill(node, 'agent')
  const all = await calls.all
  t.equal(failuresOf(all).length, 0, `${all.length} calls`)
})

t.test('the numbers are those that were asked for, and cleanup finds them', async (t) => {
  const look = () =>
    sh(lab, 'bay1', 'ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip link')
  const before = await look()
  t.match(before, /89:\tfrom all iif fm-direct lookup 901/)
  t.match(before, /90:\tnot from all fwmark 0x5000000\/0xf000000 lookup 900/)
  t.match(before, /10\.244\.4\.0\/24 nhid \d+ dev fm-direct table 900/)
  t.match(before, /10\.244\.2\.0\/24 via inet6 fe80\S+ dev fm-vxlan table 901/)
  t.notMatch(before, /707[78]/)
  t.match(await sh(lab, 'bay1', 'wg show fm-direct fwmark'), '0x5000000')
  for (const daemon of ['agent', 'gateway'] as const) await lab.stop('bay1', daemon, 'SIGTERM')
  await sh(lab, 'bay1', `fulmar cleanup ${NUMBERS.join(' ')}`)
  t.notMatch(await look(), /fm-|lookup 90[01]|table 90[01]/)
})
