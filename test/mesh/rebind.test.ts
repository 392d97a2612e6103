// What happens to a direct path when the NAT before a site changes under it, or one direction of it breaks: under 100
// numbered packets a second each way, the longest time without one.

import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { bothOn, startStream } from '../lab/first-contact.ts'
import { natsOf, routerRules, type NatType } from '../lab/nat.ts'
import { addressOf, directOnce, openMesh, UNDER_LOAD } from './mesh.ts'

t.setTimeout(240_000)

const HEAL_MS = 3_000
const PAIR = ['gorse', 'thyme'] as const
const ROUTER = 'gorse-nat'
const WAN = '198.18.1.2'

const lab = await openMesh(t, 'r', {
  pools: PAIR,
  nodes: 1,
  nat: new Map([
    ['gorse', 'port-restricted'],
    ['thyme', 'restricted'],
  ]),
})
const wanted = { client: end('gorse'), server: end('thyme'), service: '', url: '', family: 4 } as const

const run = async (host: string, command: readonly string[], input?: string): Promise<void> => {
  const { code, stderr } = await lab.exec(host, command, input === undefined ? {} : { input })
  if (code !== 0) throw new Error(`${command.join(' ')} on ${host}: ${stderr}`)
}
const forget = () => run(ROUTER, ['conntrack', '-F'])
const behave = async (type: NatType, wan: string): Promise<void> => {
  await run(ROUTER, ['nft', '-f', '-'], `flush ruleset\n${routerRules(natsOf(type)[0], wan)}`)
  await forget()
}
/** The provider gives the site another address. */
const renumber = async (from: string, to: string): Promise<void> => {
  await run(ROUTER, ['ip', 'address', 'del', `${from}/24`, 'dev', 'wan'])
  await run(ROUTER, ['ip', 'address', 'add', `${to}/24`, 'dev', 'wan'])
  await run(ROUTER, ['ip', 'route', 'replace', 'default', 'via', '198.18.1.1'])
  await behave('port-restricted', to)
}

const cases: readonly { readonly what: string; readonly change: () => Promise<void> }[] = [
  { what: 'the NAT forgets all mappings', change: forget },
  { what: 'another WAN address', change: () => renumber(WAN, '198.18.1.77') },
  { what: 'the first WAN address again', change: () => renumber('198.18.1.77', WAN) },
  { what: 'a symmetric NAT', change: () => behave('symmetric', WAN) },
  { what: 'a port restricted NAT again', change: () => behave('port-restricted', WAN) },
]

for (const { what, change } of cases)
  t.test(what, async (t) => {
    await directOnce(lab, PAIR)
    const gaps = await gapsOver(change, 8_000)
    t.comment(`longest gaps ${gaps.join(' and ')} ms`)
    for (const gap of gaps) t.ok(gap <= HEAL_MS * UNDER_LOAD, `${gap} ms without a packet`)
  })

t.test('one direction breaks and heals', async (t) => {
  await directOnce(lab, PAIR)
  const [from, to] = PAIR.map((name) => lab.topology.pools.find((pool) => pool.name === name)!.uplink!)
  const rules = `table inet oneway {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "${from}" oifname "${to}" meta l4proto udp drop
  }
}
`
  const brokenAt = Date.now()
  const gaps = await gapsOver(() => run('core', ['nft', '-f', '-'], rules), 6_000)
  t.comment(`longest gaps ${gaps.join(' and ')} ms`)
  for (const gap of gaps) t.ok(gap <= HEAL_MS * UNDER_LOAD, `${gap} ms without a packet`)
  await bothOn(lab, wanted, 'relay-udp', brokenAt).catch(() => bothOn(lab, wanted, 'relay-tcp', brokenAt))

  const streams = startStreams()
  await sleep(1_000)
  const healedAt = Date.now()
  await run('core', ['nft', 'delete', 'table', 'inet', 'oneway'])
  await bothOn(lab, wanted, 'direct', healedAt)
  await sleep(1_000)
  for (const { lost, lostNumbers } of await Promise.all(streams.map(({ stop }) => stop())))
    t.equal(lost, 0, `after the heal, lost ${lostNumbers.join(' ')}`)
})

function startStreams() {
  const hosts = [`${PAIR[0]}1-client`, `${PAIR[1]}1-client`] as const
  return hosts.map((host, i) => startStream(lab, host, addressOf(lab, hosts[1 - i]!, 4)))
}

/** @returns the longest gap of each direction, ms. */
async function gapsOver(change: () => Promise<void>, ms: number): Promise<readonly number[]> {
  const streams = startStreams()
  try {
    await sleep(1_000)
    await change()
    await sleep(ms)
  } finally {
    await Promise.all(streams.map(({ stop }) => stop()))
  }
  return (await Promise.all(streams.map(({ stop }) => stop()))).map(({ longestGapMs }) => longestGapMs)
}

function end(pool: string) {
  return { host: '', pool, address: '' }
}
