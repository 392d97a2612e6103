// Outer paths that carry less than an Ethernet frame, with and without the ICMP messages that say so: bulk flows and large
// datagrams of both families get through on every rung, also when a path narrows while it is in use.

import t, { type Test } from 'tap'
import { addressOf, directOnce, openMesh, until, waysOf } from './mesh.ts'
import type { Lab } from '../lab/lab.ts'

t.setTimeout(280_000)

const PAIR = ['sorrel', 'tansy'] as const
const BYTES = 1_000_000
/** From a narrower path to bulk flows that pass again: a look each 3 s and a burst; then their own next repetition (3.0, 6.2 or 12.6 s). */
const PATIENCE_S = 20
const ETHERNET = 1500

const CASES = [
  {
    underlay: 'v4',
    paths: [
      [1280, 'says so'],
      [1280, 'is mute'],
      [1350, 'is mute'],
    ],
  },
  {
    underlay: 'v6',
    paths: [
      [1280, 'says so'],
      [1280, 'is mute'],
      [1400, 'is mute'],
    ],
  },
] as const

for (const { underlay, paths } of CASES)
  t.test(`underlay ${underlay}`, async (t) => {
    const lab = await openMesh(t, `m${underlay}`, { pools: PAIR, nodes: 1, underlay })
    for (const [mtu, router] of paths)
      await t.test(`${mtu} bytes, the router ${router}`, async (t) => {
        await narrow(lab, ETHERNET, false)
        await directOnce(lab, PAIR)
        await narrow(lab, mtu, router === 'is mute')
        await passes(t, lab)
      })
    await t.test('the same with UDP cut', async (t) => {
      await lab.cut('udp', PAIR[0])
      await passes(t, lab)
    })
  })

/** Makes the link between the first site's router and the core so narrow, for both directions. */
async function narrow(lab: Lab, mtu: number, filtered: boolean): Promise<void> {
  const router = `${PAIR[0]}-nat`
  const uplink = lab.topology.pools.find(({ name }) => name === PAIR[0])!.uplink!
  const mute = `table inet mute {
  chain output {
    type filter hook output priority filter; policy accept;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
`
  for (const [host, device] of [
    [router, 'wan'],
    ['core', uplink],
  ] as const) {
    await run(lab, host, ['ip', 'link', 'set', device, 'mtu', String(mtu)])
    await run(lab, host, ['nft', '-f', '-'], `add table inet mute\ndelete table inet mute\n${filtered ? mute : ''}`)
  }
  // What earlier messages taught the hosts is not to help.
  for (const { host } of [...lab.topology.nodes.map(({ name }) => ({ host: name })), ...lab.topology.pods])
    for (const family of ['-4', '-6']) await lab.exec(host, ['ip', family, 'route', 'flush', 'cache'])
}

async function passes(t: Test, lab: Lab): Promise<void> {
  const fetch = async (family: 4 | 6, from: number): Promise<string> => {
    const address = addressOf(lab, `${PAIR[1 - from]}1-shop`, family)
    const url = `http://${family === 6 ? `[${address}]` : address}:8080/bytes?n=${BYTES}`
    const options = ['-s', '-o', '/dev/null', '-m', String(PATIENCE_S), '-w', '%{size_download} %{time_total}']
    return (await lab.exec(`${PAIR[from]!}1-client`, ['curl', ...options, url])).stdout
  }
  const flows = ([4, 6] as const).flatMap((family) => [0, 1].map((from) => ({ family, from })))
  const done = await Promise.all(flows.map(({ family, from }) => fetch(family, from)))
  const seconds = done.map((line) => Number(line.split(' ')[1]))
  flows.forEach(({ family, from }, i) =>
    t.match(done[i], new RegExp(`^${BYTES} `), `IPv${family} to ${PAIR[from]}: all bytes`),
  )
  const ping = async (family: 4 | 6, size: number) => {
    const to = addressOf(lab, `${PAIR[1]}1-shop`, family)
    const command = ['ping', '-c', '1', '-W', '1', '-s', String(size), '-M', family === 4 ? 'dont' : 'do', to]
    return until(
      `a ping of ${size} bytes over IPv${family}`,
      async () => (await lab.exec(`${PAIR[0]}1-client`, command)).code === 0,
      { withinMs: 10_000 },
    )
  }
  // The largest packet that an IPv6 host may send without asking; and an IPv4 one of an Ethernet frame, in fragments.
  await ping(6, 1280 - 48)
  await ping(4, 1500 - 28)
  const ways = (await waysOf(lab)).filter(
    ({ from, to }) => [from, to].toSorted().join() === [...PAIR].toSorted().join(),
  )
  t.comment(
    `${seconds.join(', ')} s; ${ways.map(({ path: { rung, mtu } }) => `${rung}${mtu === undefined ? '' : ` ${mtu}`}`).join(', ')}`,
  )
}

async function run(lab: Lab, host: string, command: readonly string[], input?: string): Promise<void> {
  const { code, stderr } = await lab.exec(host, command, input === undefined ? {} : { input })
  if (code !== 0) throw new Error(`${command.join(' ')} on ${host}: ${stderr}`)
}
