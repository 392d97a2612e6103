// Where gateways find each other: a port that a real miniupnpd maps, one that an operator forwards and the Gateway object
// names, a LAN that two pools share, and not at a neighbour's that has the peer's private address.

import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { stringify } from 'yaml'
import { linkOf } from '../lab/names.ts'
import type { Lab } from '../lab/lab.ts'
import { generateManifests } from '../lab/manifests.ts'
import { generatedPools } from '../lab/options.ts'
import { miniupnpdRules, startMiniupnpd, withoutMiniupnpd } from '../lib/miniupnpd.ts'
import { directOnce, gatewaysOf, getOnce, openMesh, UNLESS_LONG, until, waysOf, waysOnce, type Way } from './mesh.ts'

t.setTimeout(240_000)

const WARM = ['--warm', 'all']
const SYMMETRIC = (pools: readonly string[]) => new Map(pools.map((pool) => [pool, 'symmetric'] as const))

type Endpoint = {
  readonly nodeName: string
  readonly port: number
  readonly publicIP?: string
  readonly publicPort?: number
  readonly underNAT?: boolean
}
function writeGateway(folder: string, name: string, endpoint: Endpoint): void {
  const spec = { tunnelConfig: { Replicas: 1 }, endpoints: [{ type: 'tunnel', ...endpoint }] }
  const object = { apiVersion: 'raven.openyurt.io/v1beta1', kind: 'Gateway', metadata: { name }, spec }
  writeFileSync(join(folder, `gateway-${name}.yaml`), stringify(object))
}
/** Pools of so many nodes, without Gateway objects. */
function folderOf(t: Test, pools: readonly string[], nodes: number): string {
  const folder = mkdtempSync(join(tmpdir(), 'fulmar-candidates-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [name, yaml] of generateManifests({ pools: generatedPools(pools, nodes) })) {
    const documents = yaml.split(/^---$/m).filter((text) => !/^kind: Gateway$/m.test(text))
    writeFileSync(join(folder, name), documents.join('---'))
  }
  return folder
}
type Test = { readonly teardown: (body: () => unknown) => unknown }

async function sh(lab: Lab, host: string, command: string): Promise<void> {
  const { code, stderr } = await lab.exec(host, ['sh', '-ec', command])
  if (code !== 0) throw new Error(`${host}: ${command}: ${stderr}`)
}
const wayOf = async (lab: Lab, from: string, to: string): Promise<Way> =>
  (await waysOf(lab)).find((way) => way.from === from && way.to === to)!
const kindAt = ({ path }: Way, address: string): string | undefined =>
  path.candidates.find((candidate) => candidate.address === address)?.kind
const gatewayOf = async (lab: Lab, pool: string) => (await gatewaysOf(lab)).find((status) => status.pool === pool)!

t.test('a port that miniupnpd maps, between two symmetric NATs', { skip: withoutMiniupnpd }, async (t) => {
  const pair = ['fjord', 'skerry'] as const
  const lab = await openMesh(t, 'm', { pools: pair, nodes: 1, nat: SYMMETRIC(pair), gatewayFlags: WARM })
  await waysOnce(lab, pair, ({ rung }) => rung === 'relay-udp', 'relayed while nobody maps a port')

  // The lab's addresses are for documentation and benchmarks, which miniupnpd takes for private.
  const [wan, core] = ['198.20.1.2', '198.20.1.1']
  const { router, uplink } = lab.topology.pools.find(({ name }) => name === 'fjord')!
  await sh(lab, 'core', `ip address add ${core}/24 dev ${uplink}`)
  await sh(
    lab,
    router!,
    `ip address add ${wan}/24 dev wan; nft insert rule inet firewall forward ct status dnat accept
conntrack -F`,
  )
  await sh(lab, router!, `nft -f - <<'END'\n${miniupnpdRules()}END`)
  const startedAt = Date.now()
  const daemon = await startMiniupnpd(
    (command) => lab.spawn(router!, command, { stdio: ['ignore', 'ignore', 'pipe'] }),
    { lan: 'lan', wan: 'wan', external: wan },
  )
  t.teardown(daemon.kill)

  await directOnce(lab, pair)
  t.comment(`direct ${Date.now() - startedAt} ms after miniupnpd was started`)
  const { port } = (await gatewayOf(lab, 'fjord')).wireguard
  const way = await wayOf(lab, 'skerry', 'fjord')
  t.equal(kindAt(way, `${wan}:${port}`), 'mapped', 'the router’s port is a candidate')
  const located = async () => (await wayOf(lab, 'skerry', 'fjord')).path.endpoint
  t.match(await until('skerry says where fjord is', located), /^198\.(20\.1|18\.1)\.2:/)
  t.match(await getOnce(lab, 'skerry1-client', 'http://web-fjord.shop/', 4), { node: 'fjord1' })
})

t.test('a forwarded port that the Gateway object names, between two symmetric NATs', async (t) => {
  const pair = ['mole', 'pier'] as const
  const lab = await openMesh(t, 'g', {
    manifests: folderOf(t, pair, 1),
    nat: SYMMETRIC(pair),
    gatewayFlags: WARM,
    until: 'nodes',
  })
  const { router, wan } = lab.topology.pools.find(({ name }) => name === 'mole')!
  const [publicIP, address] = [wan[0]!, lab.topology.nodes.find(({ pool }) => pool === 'mole')!.addresses[0]!]
  const forward = (port: number): Promise<void> =>
    sh(
      lab,
      router!,
      `nft -f - <<'END'
add table ip forwarded
delete table ip forwarded
table ip forwarded {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    iifname "wan" udp dport 24500 dnat to ${address}:${port}
  }
}
END
nft insert rule inet firewall forward ct status dnat accept`,
    )
  const endpoint = { nodeName: 'mole1', underNAT: true, publicIP, publicPort: 24_500 }
  await forward(4_500)
  writeGateway(lab.manifests, 'mole', { ...endpoint, port: 4_500 })
  await lab.startGateways()

  await directOnce(lab, pair)
  t.equal((await gatewayOf(lab, 'mole')).wireguard.port, 4_500, 'WireGuard listens where the object says')
  t.equal(kindAt(await wayOf(lab, 'pier', 'mole'), `${publicIP}:24500`), 'static')
  t.match(await getOnce(lab, 'pier1-client', 'http://web-mole.shop/', 4), { node: 'mole1' })

  await forward(4_600)
  writeGateway(lab.manifests, 'mole', { ...endpoint, port: 4_600 })
  await until('WireGuard follows the object', async () => (await gatewayOf(lab, 'mole')).wireguard.port === 4_600)
  await directOnce(lab, pair)
  t.match(await getOnce(lab, 'mole1-client', 'http://web-pier.shop/', 4), { node: 'pier1' })

  const killedAt = Date.now()
  lab.kill('mole1', 'gateway')
  const restarted = async () =>
    (await lab.status()).daemons.some(
      ({ status }) => status.kind === 'gateway' && status.pool === 'mole' && status.startedAt > killedAt,
    )
  await until('the gateway is back', restarted)
  t.equal((await gatewayOf(lab, 'mole')).wireguard.port, 4_600, 'and listens where it did')

  const hold = "require('dgram').createSocket('udp4').bind(4700, () => console.log('held'))"
  const holder = lab.spawn('mole1', [process.execPath, '-e', hold], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => void holder.kill('SIGKILL'))
  await once(holder.stdout!, 'data')
  writeGateway(lab.manifests, 'mole', { ...endpoint, port: 4_700 })
  const problems = async () => (await gatewayOf(lab, 'mole')).problems.join('\n')
  await until('a port that is held is named', async () =>
    /4700, and another program listens there/.test(await problems()),
  )
  t.equal((await gatewayOf(lab, 'mole')).wireguard.port, 4_600)
  t.match(await getOnce(lab, 'pier1-client', 'http://web-mole.shop/', 4), { node: 'mole1' }, 'the mesh works on')
  holder.kill('SIGKILL')
  await until('it is taken once it is free', async () => (await gatewayOf(lab, 'mole')).wireguard.port === 4_700)
})

t.test('two pools on one LAN', { skip: UNLESS_LONG }, async (t) => {
  const pair = ['mast', 'sail'] as const
  const lab = await openMesh(t, 'l', {
    pools: pair,
    nodes: 1,
    nat: SYMMETRIC(pair),
    gatewayFlags: WARM,
    until: 'nodes',
  })
  // sail1 is unplugged at its own router and plugged in at mast's.
  const [address, router] = ['192.168.1.77', '192.168.1.1']
  const cable = linkOf('port', lab.id, 'sail1')
  const holder = lab.spawn('mast-nat', ['sleep', '60'])
  await sh(lab, 'sail-nat', `ip link set ${cable} netns ${holder.pid}`)
  await sh(lab, 'mast-nat', `ip link set ${cable} master lan up`)
  holder.kill('SIGKILL')
  await sh(
    lab,
    'sail1',
    `ip -4 address flush dev eth0; ip address add ${address}/24 dev eth0; ip route add default via ${router}`,
  )
  await lab.startGateways()

  await directOnce(lab, pair)
  const located = async () => (await wayOf(lab, 'mast', 'sail')).path.endpoint
  t.match(await until('mast says where sail is', located), new RegExp(`^${address}:`), 'over the LAN')
  t.match(await getOnce(lab, 'mast1-client', 'http://web-sail.shop/', 4), { node: 'sail1' })
})

/** Answers STUN requests as a server does, without knowing anybody's key. */
const IMPOSTOR = `
const socket = require('dgram').createSocket('udp4')
socket.on('message', (request, { port, address }) => {
  const answer = Buffer.concat([Buffer.from([1, 1, 0, 0]), request.subarray(4, 20)])
  socket.send(answer, port, address)
  console.log(address)
})
socket.bind(4500, () => console.log('ready'))`

t.test('a neighbour that has the peer’s private address is not taken for it', { skip: UNLESS_LONG }, async (t) => {
  const pair = ['buoy', 'cove'] as const
  const nat = new Map(pair.map((pool) => [pool, 'port-restricted'] as const))
  const folder = folderOf(t, pair, 2)
  const endpoint = { nodeName: 'cove2', port: 4_500, underNAT: true, publicIP: '198.18.2.2', publicPort: 4_500 }
  writeGateway(folder, 'cove', endpoint)
  const lab = await openMesh(t, 'o', { manifests: folder, nat, overlapLans: true, gatewayFlags: WARM, until: 'nodes' })
  const addressOf = (node: string) => lab.topology.nodes.find(({ name }) => name === node)!.addresses[0]!
  t.equal(addressOf('cove2'), addressOf('buoy2'), 'cove’s gateway has the address of a node of buoy')
  const { wan } = lab.topology.pools.find(({ name }) => name === 'cove')!
  t.strictSame(wan, [endpoint.publicIP])
  const impostor = lab.spawn('buoy2', [process.execPath, '-e', IMPOSTOR], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => void impostor.kill('SIGKILL'))
  await once(impostor.stdout!, 'data')
  let asked = 0
  impostor.stdout!.on('data', () => asked++)
  await lab.startGateways()

  await directOnce(lab, pair)
  const located = async () => (await wayOf(lab, 'buoy', 'cove')).path.endpoint
  t.equal(await until('buoy says where cove is', located), `${endpoint.publicIP}:4500`)

  // With nothing else that answers, the neighbour is asked again and again.
  await lab.cut('udp', 'cove')
  const neighbour = `${addressOf('buoy2')}:4500`
  const tried = async () => {
    const { path } = await wayOf(lab, 'buoy', 'cove')
    const result = path.candidates.find(({ address }) => address === neighbour)?.result
    return path.rung === 'relay-tcp' && asked > 20 && /^no answer to [2-9]\d/.test(result ?? '')
  }
  await until('the neighbour answers, and does not count', tried, { seen: () => asked })
  await lab.heal('cove')
  await directOnce(lab, pair)
  t.equal(await until('buoy says where cove is', located), `${endpoint.publicIP}:4500`)
  t.match(await getOnce(lab, 'buoy1-client', 'http://web-cove.shop/', 4), { node: /^cove/ })
})
