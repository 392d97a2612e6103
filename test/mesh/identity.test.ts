// Who belongs to the mesh, in the lab: nodes that are deleted and made again and, where LONG=1, a pool whose clocks start in
// 1970, and a mesh without the cloud for longer than its certificates live. Time is faked for the daemons alone (libfaketime).

import { X509Certificate } from 'node:crypto'
import { existsSync, globSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { identityPaths, loadIdentity } from '../../lib/net/identity.ts'
import { pathsOf } from '../lab/names.ts'
import {
  addressOf,
  gatewaysOf,
  get,
  getOnce,
  openMesh,
  relayOf,
  UNDER_LOAD,
  UNLESS_LONG,
  until,
  waysOf,
} from './mesh.ts'

t.setTimeout(300_000)

const [LIBRARY] = globSync('/usr/lib/*/faketime/libfaketime.so.1')
const skip = LIBRARY === undefined ? 'libfaketime is not installed (Debian package faketime)' : UNLESS_LONG
const GONE_WITHIN_MS = 5_000 * UNDER_LOAD
const folder = mkdtempSync(join(tmpdir(), 'fulmar-time-'))
t.teardown(() => rmSync(folder, { recursive: true }))

const lab = await openMesh(t, 'i', {
  pools: ['north', 'south'],
  nodes: 2,
  nat: new Map([
    ['north', 'full-cone'],
    ['south', 'full-cone'],
  ]),
})
const NORTH = ['north1', 'north2']
const SOUTH = ['south1', 'south2']
const url = (host: string) => `http://${addressOf(lab, `${host}-shop`, 4)}:8080/`
const answers = async (from: string, to: string): Promise<boolean> =>
  (await get(lab, `${from}-client`, [url(to)], 4)).length > 0
const sessionsOf = async (nodes: readonly string[]): Promise<readonly string[]> =>
  ((await relayOf(lab))?.sessions ?? []).map(({ node }) => node).filter((node) => nodes.includes(node))
const peersOf = async (node: string): Promise<readonly string[]> =>
  (await gatewaysOf(lab)).find((gateway) => gateway.node === node)?.paths.map(({ pool }) => pool) ?? []
const stateDirOf = (node: string): string => pathsOf(lab.id).stateDir(node)
const certificateOf = (node: string): X509Certificate =>
  new X509Certificate(readFileSync(identityPaths(stateDirOf(node)).certificate))

/** Goes on with a daemon's own command line, at another time. @returns where its log goes. */
async function startAt(host: string, daemon: 'agent' | 'gateway', timeFile: string): Promise<string> {
  const pid = lab.pidOf(host, daemon)
  const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  await lab.stop(host, daemon)
  const log = join(folder, `${host}-${daemon}.log`)
  const output = openSync(log, 'a')
  const time = [
    `LD_PRELOAD=${LIBRARY}`,
    `FAKETIME_TIMESTAMP_FILE=${timeFile}`,
    'FAKETIME_NO_CACHE=1',
    'FAKETIME_DONT_FAKE_MONOTONIC=1',
  ]
  lab.spawn(host, ['env', ...time, ...command], { stdio: ['ignore', output, output] })
  return log
}
const daemonsOf = (node: string): readonly ('agent' | 'gateway')[] =>
  lab.topology.pools.some(({ gateways }) => gateways.includes(node)) ? ['agent', 'gateway'] : ['agent']

await until('all pools reach each other', async () => {
  const ways = await waysOf(lab)
  return ways.length === 6 && ways.every(({ path }) => path.rung !== 'none')
})
t.match(await getOnce(lab, 'north1-client', url('south1'), 4), { node: 'south1' }, 'a call before')

const manifest = join(lab.manifests, 'pool-south.yaml')
const away = join(folder, 'pool-south.yaml')
const clockFile = join(folder, 'north.time')
let northLogs: readonly string[] = []

t.test('nodes that are deleted', async (t) => {
  const before = await loadIdentity(stateDirOf('south1'))
  writeFileSync(away, readFileSync(manifest))
  rmSync(manifest)
  const deletedAt = Date.now()
  await until('their sessions end', async () => (await sessionsOf(SOUTH)).length === 0, { withinMs: GONE_WITHIN_MS })
  t.comment(`no session ${Date.now() - deletedAt} ms after the Nodes were deleted`)
  await until(
    'nobody has a tunnel to them',
    async () => !(await peersOf('north1')).includes('south') && !(await peersOf('cloud')).includes('south'),
    { withinMs: GONE_WITHIN_MS },
  )
  t.comment(`no peer ${Date.now() - deletedAt} ms after`)
  for (const device of ['fm-direct', 'fm-tcp']) {
    const { stdout } = await lab.exec('north1', ['wg', 'show', device, 'peers'])
    t.equal(stdout.trim().split('\n').length, 1, `${device} of north1 has the cloud alone`)
  }
  t.notOk(await answers('south1', 'north1'), 'a call out of there')

  const refused = () => readFileSync(lab.logOf('south1', 'gateway'), 'utf8')
  await until('they learn why', () => /node south1 was deleted from the cluster at/.test(refused()))
  const renewal = await lab.exec('south1', [
    ...['curl', '-sk', '--cert', identityPaths(stateDirOf('south1')).certificate],
    ...['--key', identityPaths(stateDirOf('south1')).key, '-d', '{}', `${lab.topology.relay.url}/fulmar/v1/renew`],
  ])
  t.match(JSON.parse(renewal.stdout), { code: 'FULMAR_NODE_DELETED', message: /south1 was deleted/ }, 'no renewal')
  t.same(await loadIdentity(stateDirOf('south1')), before)
})

t.test('a node that boots in 1970', { skip }, async (t) => {
  writeFileSync(clockFile, '@1970-01-01 00:00:30\n')
  const daemons = NORTH.flatMap((node) => daemonsOf(node).map((daemon) => [node, daemon] as const))
  northLogs = await Promise.all(daemons.map(([node, daemon]) => startAt(node, daemon, clockFile)))
  const isUp = async () =>
    (await lab.status()).daemons.filter(({ host }) => NORTH.includes(host)).length === daemons.length
  await until('its daemons answer', isUp)
  const log = () => northLogs.map((path) => readFileSync(path, 'utf8')).join('')
  await until('they know that their clock is wrong', () => /the clock of this node is wrong/.test(log()))
  t.match(await getOnce(lab, 'north1-client', url('north2'), 4), { node: 'north2' }, 'a call inside of the pool')
  t.match(await getOnce(lab, 'north2-client', url('cloud'), 4), { node: 'cloud' }, 'a call to a pool that it knew')
  await until('and have their sessions with the relay', async () => (await sessionsOf(['north1'])).length >= 3)
})

t.test('nodes that were deleted and are made again join again', async (t) => {
  writeFileSync(manifest, readFileSync(away))
  const { stdout } = await lab.exec('cloud', ['fulmar', 'token', 'create', '--node', SOUTH.join(',')])
  const tokens = stdout
    .trim()
    .split('\n')
    .map((line) => line.split(' ') as [string, string])
  await until('the cloud names them', async () => ((await relayOf(lab))?.manifests?.objects ?? 0) > 0)
  t.same(await sessionsOf(SOUTH), [], 'their certificates from before count for nothing')
  for (const [node, token] of tokens) {
    const joining = ['fulmar', 'join', '--force', '--relay', lab.topology.relay.url, '--token', token]
    t.match(await lab.exec(node, joining), { code: 0, stdout: /joined/ })
  }
  await until('their daemons take that up', async () => new Set(await sessionsOf(SOUTH)).size === 2)
  t.match(await getOnce(lab, 'cloud-client', url('south1'), 4), { node: 'south1' }, 'a call')
})

t.test('a new peer of a node in 1970', { skip }, async (t) => {
  const log = () => northLogs.map((path) => readFileSync(path, 'utf8')).join('')
  const says = (line: string) =>
    line.includes('"peer":"south1"') && /a new peer, and the clock of this node is wrong/.test(line)
  await until('is refused, with the reason', () => log().split('\n').some(says))
  t.notOk((await peersOf('north1')).includes('south') && (await answers('north1', 'south1')), 'and not reached')
  writeFileSync(clockFile, '+0d\n')
  t.match(await getOnce(lab, 'north1-client', url('south1'), 4), { node: 'south1' }, 'until the clock is set')
})

t.test('without the cloud for longer than certificates live', { skip }, async (t) => {
  const direct = async () => {
    const ways = (await waysOf(lab)).filter(({ from, to }) => from !== 'cloud' && to !== 'cloud')
    return ways.length === 2 && ways.every(({ path }) => path.rung === 'direct')
  }
  await until('north and south reach each other directly', direct)
  const later = join(folder, 'later')
  writeFileSync(later, '+100d\n')
  const relayCommandPid = lab.pidOf('cloud', 'relay')
  t.ok(relayCommandPid)
  const relayCommand = readFileSync(`/proc/${relayCommandPid}/cmdline`, 'utf8').split('\0').slice(0, -1)
  await lab.stop('cloud', 'relay')
  // What ran at the time of the test above ends with its file's time: it is 100 days later for all of them.
  writeFileSync(clockFile, '+100d\n')
  const others = [...SOUTH, 'cloud'].flatMap((node) => daemonsOf(node).map((daemon) => [node, daemon] as const))
  const logs = await Promise.all(others.map(([node, daemon]) => startAt(node, daemon, later)))
  await until('all daemons answer', async () => (await lab.status()).daemons.length === others.length + 3)
  t.ok(certificateOf('south1').validToDate.getTime() < Date.now() + 100 * 86_400_000, 'their certificates have ended')
  t.match(await getOnce(lab, 'north1-client', url('north2'), 4), { node: 'north2' }, 'a call inside of a pool')
  t.match(await getOnce(lab, 'south1-client', url('north2'), 4), { node: 'north2' }, 'a call to a pool that it knew')
  t.match(await getOnce(lab, 'north1-client', url('south1'), 4), { node: 'south1' }, 'and back')
  await until('renewals are tried', () =>
    logs.some((path) => /the certificate could not be renewed/.test(readFileSync(path, 'utf8'))),
  )

  const time = [`LD_PRELOAD=${LIBRARY}`, `FAKETIME_TIMESTAMP_FILE=${later}`, 'FAKETIME_NO_CACHE=1']
  const output = openSync(join(folder, 'relay.log'), 'a')
  lab.spawn('cloud', ['env', ...time, 'FAKETIME_DONT_FAKE_MONOTONIC=1', ...relayCommand], {
    stdio: ['ignore', output, output],
  })
  const nodes = [...NORTH, ...SOUTH, 'cloud']
  await until(
    'the cloud is back, and all have new certificates and sessions',
    async () => {
      const renewed = nodes.every((node) => certificateOf(node).validToDate.getTime() > Date.now() + 101 * 86_400_000)
      return renewed && new Set(await sessionsOf(nodes)).size === nodes.length
    },
    { withinMs: 120_000 },
  )
  t.match(await getOnce(lab, 'cloud-client', url('north1'), 4), { node: 'north1' }, 'and all is as it was')
  t.ok(existsSync(identityPaths(stateDirOf('north1')).clock), 'the floor of the clock is on disk')
})
