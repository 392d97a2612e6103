// A whole Internet with NATs of every type, raised without daemons and examined with plain UDP, TCP and ping.

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openLab, type Lab, type LabEvent, type LabOptions } from './lab.ts'
import type { NatName, NatType } from './nat.ts'
import type { NatObservation } from './reflector.ts'
import { tracesOf } from './traces.ts'

t.setTimeout(120_000)
const PREFIX = `la${process.pid % 100_000}`
const REFLECTOR = join(import.meta.dirname, 'reflector.ts')
const CLOUD4 = ['203.0.113.10', '203.0.113.11']
const CLOUD6 = ['2001:db8:1::10', '2001:db8:1::11']

const open = (options: LabOptions) => openLab({ until: 'hosts', ...options })

const ping = async (lab: Lab, from: string, to: string) =>
  (await lab.exec(from, ['ping', '-c', '1', '-W', '1', to])).code === 0
const get = async (lab: Lab, from: string, url: string) => (await lab.exec(from, ['curl', '-s', '-m', '2', url])).stdout
/** Servers are two ports of one address, then two of another. */
function mappingOf({ mapped }: NatObservation): 'one' | 'by address' | 'many' | 'nothing' {
  if (mapped.includes(null)) return 'nothing'
  const [a, b, c, d] = mapped
  if (a !== b || c !== d) return 'many'
  return a === c ? 'one' : 'by address'
}

t.test('NATs of every type, and firewalls in IPv6', async (t) => {
  const all = (addresses: readonly string[]) => addresses.flatMap((address) => [`${address}:7000`, `${address}:7001`])
  const [from10, from11] = [all(CLOUD4).slice(0, 2), all(CLOUD4).slice(2)]
  type Mapping = 'one' | 'by address' | 'many' | 'nothing'
  type Row = { mapping: Mapping; heard4: readonly string[]; heard6: readonly string[]; nat?: NatName }
  const strict = { heard4: from10.slice(0, 1), heard6: all(CLOUD6).slice(0, 1) }
  const types: Record<NatType, Row> = {
    'full-cone': { ...strict, mapping: 'one', heard4: [...from10, ...from11] },
    restricted: { ...strict, mapping: 'one', heard4: from10 },
    'port-restricted': { ...strict, mapping: 'one' },
    'first-packet-race': { ...strict, mapping: 'one' },
    'port-not-preserved': { ...strict, mapping: 'one' },
    'address-dependent': { ...strict, mapping: 'by address' },
    symmetric: { ...strict, mapping: 'many' },
    'symmetric-hash': { ...strict, mapping: 'many' },
    'symmetric-sequential': { ...strict, mapping: 'many' },
    'udp-blocked': { mapping: 'nothing', heard4: [], heard6: [] },
    none: { mapping: 'one', heard4: [...from10, ...from11], heard6: all(CLOUD6) },
  }
  const rows: Record<string, Row> = {
    ...types,
    double: { ...strict, mapping: 'one', nat: 'port-restricted+port-restricted' },
    'open-double': { ...types['full-cone'], nat: 'full-cone+full-cone' },
    'home-symmetric': { ...strict, mapping: 'many', nat: 'symmetric+full-cone' },
    'carrier-symmetric': { ...strict, mapping: 'many', nat: 'full-cone+symmetric-hash/seed=3' },
  }
  const lab = await open({
    id: `${PREFIX}n`,
    pools: Object.keys(rows),
    nodes: 1,
    underlay: 'dual',
    nat: new Map(Object.entries(rows).map(([name, { nat = name as NatType }]) => [name, nat])),
  })
  t.teardown(() => lab.close())
  const servers = [CLOUD4, CLOUD6].map((addresses) =>
    lab.spawn('cloud', [process.execPath, REFLECTOR, 'serve', ...addresses], { stdio: ['ignore', 'pipe', 'inherit'] }),
  )
  await Promise.all(servers.map((server) => once(server.stdout!, 'data')))

  for (const [type, { mapping, heard4, heard6 }] of Object.entries(rows)) {
    const node = `${type}1`
    const [v4, v6] = (await Promise.all(
      [CLOUD4, CLOUD6].map(
        async (addresses) =>
          JSON.parse(
            (await lab.exec(node, [process.execPath, REFLECTOR, 'probe', ...addresses])).stdout,
          ) as NatObservation,
      ),
    )) as [NatObservation, NatObservation]
    t.equal(mappingOf(v4), mapping, `${type}: mapped ports`)
    t.strictSame(v4.heard, heard4, `${type}: whose packets come in`)
    t.strictSame(v6.heard, heard6, `${type}: whose packets come in by IPv6`)
    const pool = lab.topology.pools.find(({ name }) => name === type)!
    const own = lab.topology.nodes.find(({ name }) => name === node)!.addresses
    const [address4 = ''] = type === 'none' ? own : pool.wan
    if (mapping !== 'nothing') {
      t.ok(
        v4.mapped.every((text) => text!.startsWith(`${address4}:`)),
        `${type}: seen as ${address4}`,
      )
      t.ok(
        v6.mapped.every((text) => text!.startsWith(own[1]!)),
        `${type}: IPv6 is not translated`,
      )
    }
  }

  await t.test('TCP where UDP is blocked', async (t) => {
    const listen = `for (const port of [443, 80]) require('net').createServer((s) => s.end('hello')).listen(port, '::', () => console.log(port))`
    const server = lab.spawn('cloud', [process.execPath, '-e', listen], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(server.stdout!, 'data')
    const dial = (host: string, address: string, port: number) =>
      lab.exec(host, ['timeout', '1', 'bash', '-c', `cat < /dev/tcp/${address}/${port}`]).then(({ stdout }) => stdout)
    for (const address of [CLOUD4[0]!, CLOUD6[0]!]) {
      t.equal(await dial('udp-blocked1', address, 443), 'hello', `443 of ${address}`)
      t.equal(await dial('udp-blocked1', address, 80), '', `80 of ${address}`)
      t.equal(await dial('symmetric1', address, 80), 'hello', `80 of ${address} from elsewhere`)
    }
  })

  await t.test('sites are not routed to each other', async (t) => {
    t.notOk(await ping(lab, 'symmetric1', '192.168.1.11'), 'a private address')
    t.notOk(
      await ping(lab, 'cloud', lab.topology.nodes.find(({ name }) => name === 'symmetric1')!.addresses[1]!),
      'a firewalled IPv6 address',
    )
    t.ok(
      await ping(lab, 'symmetric1', lab.topology.nodes.find(({ name }) => name === 'none1')!.addresses[1]!),
      'a public IPv6 address',
    )
  })

  await t.test('cut and heal', async (t) => {
    const pool = (name: string) => lab.topology.pools.find((each) => each.name === name)!.wan[0]!
    const heard = async () =>
      (
        JSON.parse(
          (await lab.exec('full-cone1', [process.execPath, REFLECTOR, 'probe', ...CLOUD4])).stdout,
        ) as NatObservation
      ).heard.length
    const tcp = async () =>
      (await lab.exec('full-cone1', ['timeout', '1', 'bash', '-c', `cat < /dev/tcp/${CLOUD4[0]}/443`])).stdout ===
      'hello'
    const state = async () => ({
      udp: (await heard()) > 0,
      tcp: await tcp(),
      public: await ping(lab, 'full-cone1', '198.18.5.1'),
    })
    t.strictSame(await state(), { udp: true, tcp: true, public: true }, 'whole')
    await lab.cut('udp', 'full-cone')
    t.strictSame(await state(), { udp: false, tcp: true, public: true }, 'without UDP')
    await lab.cut('udp', 'full-cone')
    t.strictSame(await lab.cuts(), { 'full-cone': ['udp'] }, 'twice is once')
    await lab.heal('full-cone')
    await lab.cut('relay', 'full-cone')
    t.strictSame(await state(), { udp: false, tcp: false, public: true }, 'without the cloud')
    await lab.cut('wan', 'full-cone')
    await lab.cut('wan', 'symmetric')
    t.notOk(await ping(lab, 'full-cone1', pool('symmetric')), 'without anything')
    await lab.heal('full-cone')
    t.strictSame(await lab.cuts(), { symmetric: ['wan'] }, 'one healed')
    await lab.heal()
    t.strictSame(await lab.cuts(), {}, 'all healed')
    t.strictSame(await state(), { udp: true, tcp: true, public: true }, 'whole again')
    await t.rejects(lab.cut('udp', 'cloud'), /no site of this name; the sites are full-cone/)
  })
})

t.test('nodes and pods of a site, twice with one plan', async (t) => {
  const options = { pools: ['east', 'west'], nodes: 2, overlapLans: true }
  const labs = await Promise.all(['a', 'b'].map((suffix) => open({ id: PREFIX + suffix, ...options })))
  for (const lab of labs) t.teardown(() => lab.close())
  const [lab, other] = labs as [Lab, Lab]
  const podOf = (name: string) => lab.topology.pods.find(({ host }) => host === name)!
  const shop = podOf('east1-shop')
  for (const address of shop.addresses) {
    const url = `http://${address.includes(':') ? `[${address}]` : address}:${shop.tcpPorts[0]}/`
    const client = podOf('east1-client').addresses.find((each) => each.includes(':') === address.includes(':'))
    t.match(
      JSON.parse(await get(lab, 'east1-client', url)),
      { pod: shop.name, node: 'east1', client },
      `pod to pod of one node: ${url}`,
    )
    t.match(JSON.parse(await get(lab, 'east1', url)), { pod: shop.name }, `node to its pod: ${url}`)
    t.equal(await get(lab, 'east2-client', url), '', `not to another node's pod, which is the agent's to route: ${url}`)
  }
  t.equal(
    (await get(lab, 'east1-client', `http://${shop.addresses[0]}:${shop.tcpPorts[0]}/bytes?n=300000`)).length,
    300000,
    'a download',
  )
  for (const address of lab.topology.nodes.find(({ name }) => name === 'east2')!.addresses)
    t.ok(await ping(lab, 'east1', address), `LAN: ${address}`)
  t.ok(await ping(lab, 'east2-client', CLOUD4[0]!), 'pods reach the Internet')
  t.match(
    readFileSync(`/run/fulmar-lab/${lab.id}/hosts/east1-client/resolv.conf`, 'utf8'),
    /^nameserver 10\.96\.0\.10\nsearch shop\.svc/,
  )
  t.match(
    (await lab.exec('east1-client', ['cat', '/etc/resolv.conf', '/proc/self/cgroup'])).stdout,
    new RegExp(`ndots:5 timeout:1\n[^]*0::/fm-${lab.id}/east1/east1-client\n`),
  )

  await t.test('hosts have files of their own', async (t) => {
    const touch = 'echo mine > /run/fulmar/x; echo mine > /var/lib/fulmar/x; echo mine > /run/wireguard/x'
    await lab.exec('east1', ['sh', '-c', touch])
    t.equal(readFileSync(`/run/fulmar-lab/${lab.id}/hosts/east1/run/x`, 'utf8'), 'mine\n', 'outside sees them')
    for (const where of [() => lab.exec('east2', SHOW), () => other.exec('east1', SHOW)])
      t.equal((await where()).stdout, '', 'other hosts do not')
    t.match(
      (await lab.exec('east1', ['ls', '/sys/class/net'])).stdout,
      /eth0\nfmp/,
      '/sys shows the devices of the host',
    )
    t.equal((await lab.exec('east1', ['sh', '-c', 'kill -KILL $$'])).code, 137)
  })

  await t.test('what dies is started again', async (t) => {
    const events: LabEvent[] = []
    const ready = new Promise<void>((resolve) =>
      lab.onEvent((event) => (events.push(event), event.kind === 'ready' && resolve())),
    )
    lab.kill('east1-shop', 'pod')
    await ready
    t.match(events, [{ kind: 'died', signal: 'SIGKILL' }, { kind: 'started' }, { kind: 'ready' }])
    t.ok(events[1]!.at - events[0]!.at >= 190, 'after 200 ms')
    t.match(await get(lab, 'east1-client', `http://${shop.addresses[0]}:${shop.tcpPorts[0]}/`), /east1-shop/)
    await lab.stop('east1-shop', 'pod')
    t.equal(lab.pidOf('east1-shop', 'pod'), undefined, 'and not what was stopped')
    await lab.startAgain('east1-shop', 'pod')
    t.ok(lab.pidOf('east1-shop', 'pod'))
  })

  await lab.close()
  t.strictSame(tracesOf(lab.id), [], 'the first leaves nothing')
  t.ok(await ping(other, 'east1', CLOUD4[0]!), 'the second goes on')
  await other.close()
  await other.close()
  t.strictSame(tracesOf(other.id), [], 'the second leaves nothing')
})
const SHOW = ['sh', '-c', 'cat /run/fulmar/x /var/lib/fulmar/x /run/wireguard/x 2>/dev/null']
