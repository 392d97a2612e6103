// Pairs without traffic: they cost nothing, their first packet arrives over the relay, and they go cold again.

import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { addressOf, directOnce, get, openMesh, UNDER_LOAD, until, waysOf } from './mesh.ts'

t.setTimeout(180_000)

const POOLS = ['elm', 'oak', 'yew'] as const
const QUIET_MS = 5_000
/** A first packet may take so long beyond the round trip, which is next to none here. */
const FIRST_PACKET_MS = 300

const lab = await openMesh(t, 'c', { pools: POOLS, nodes: 1, gatewayFlags: ['--cold-after', '4'] })

const rungs = async () => (await waysOf(lab)).map(({ path: { rung } }) => rung)
/** Packets between the sites that the core has seen. */
const between = async (): Promise<number> => {
  const { stdout } = await lab.exec('core', ['nft', '-j', 'list', 'counters', 'table', 'inet', 'seen'])
  const { nftables } = JSON.parse(stdout) as { nftables: readonly { counter?: { packets: number } }[] }
  return nftables.find(({ counter }) => counter !== undefined)?.counter?.packets ?? NaN
}

t.test('nothing passes between pools that do not talk', async (t) => {
  await until('all gateways know each other', async () => (await rungs()).length === 12)
  const uplinks = POOLS.map((name) => `"${lab.topology.pools.find((pool) => pool.name === name)!.uplink}"`).join(', ')
  const rules = `table inet seen {
  counter between { }
  chain forward {
    type filter hook forward priority filter + 1; policy accept;
    iifname { ${uplinks} } oifname { ${uplinks} } counter name between
  }
}
`
  await lab.exec('core', ['nft', '-f', '-'], { input: rules })
  await sleep(QUIET_MS)
  t.equal(await between(), 0, 'no probe, no echo, no keepalive')
  t.strictSame(new Set(await rungs()), new Set(['cold']))
})

t.test('the first packet of a cold pair arrives', async (t) => {
  const address = addressOf(lab, 'oak1-shop', 4)
  const { stdout } = await lab.exec('elm1-client', ['ping', '-c', '20', '-i', '0.1', '-W', '5', address])
  const times = [...stdout.matchAll(/time=([\d.]+) ms/g)].map(([, ms]) => Number(ms))
  t.comment(`first ${times[0]} ms, then ${times.slice(1, 4).join(', ')} ms`)
  t.equal(times.length, 20, 'none is lost')
  t.ok(times[0]! <= FIRST_PACKET_MS * UNDER_LOAD, `after ${times[0]} ms`)
  await directOnce(lab, ['elm', 'oak'])
  const others = (await waysOf(lab)).filter(({ from, to }) => from === 'yew' || to === 'yew')
  t.ok(
    others.every(({ path: { rung } }) => rung === 'cold'),
    'and nobody else was woken',
  )
})

t.test('both sides at once', async (t) => {
  const [elm, yew] = [addressOf(lab, 'elm1-shop', 6), addressOf(lab, 'yew1-shop', 6)]
  const ping = (host: string, to: string) => lab.exec(host, ['ping', '-c', '20', '-i', '0.1', '-W', '5', to])
  const results = await Promise.all([ping('elm1-client', yew), ping('yew1-client', elm)])
  for (const { stdout } of results) t.match(stdout, / 0% packet loss/)
  await directOnce(lab, ['elm', 'yew'])
})

t.test('silence makes them cold, and a call wakes them', async (t) => {
  await until('all pairs are cold', async () => (await rungs()).every((rung) => rung === 'cold'))
  // WireGuard itself may say a last word 10 s after the last packet that it got.
  let seen = await between()
  const before = seen
  await until('nothing passes any more', async () => {
    const last = seen
    await sleep(QUIET_MS)
    return (seen = await between()) === last
  })
  t.ok(seen - before < 20, `${seen - before} more packets at the end`)
  const answers = await get(lab, 'elm1-client', [`http://web-oak.shop/`], 4)
  t.equal(answers.length, 1)
  await directOnce(lab, ['elm', 'oak'])
})
