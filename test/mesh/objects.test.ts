// Objects of a folder become a mesh, and edits of its files change it while it runs; what is wrong is named and costs
// nothing else. kubectl, join tokens and identities against the same relay.

import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { clusterIpsOf, nodeObject, NODES, podCidrsOf, serviceObjects, write, writeIsles } from './isles.ts'
import { addressOf, echo, gatewaysOf, get, getOnce, openMesh, relayOf, UNDER_LOAD, until, waysOf } from './mesh.ts'

t.setTimeout(240_000)

const FAMILIES = [4, 6] as const
const POOLS = ['cloud', 'glen', 'iona', 'loch']
const EDIT_WITHIN_MS = 2_000 * UNDER_LOAD

const folder = mkdtempSync(join(tmpdir(), 'fulmar-isles-'))
t.teardown(() => rmSync(folder, { recursive: true }))
writeIsles(folder)
const lab = await openMesh(t, 'o', {
  manifests: folder,
  nat: new Map([
    ['glen', 'port-restricted'],
    ['loch', 'symmetric'],
    ['iona', 'full-cone'],
  ]),
})
/** In full: a short name that is not there would be asked of the Internet, which in the lab answers nothing. */
const url = (name: string) => `http://${name}.port.svc.cluster.local:81/`
const lookup = async (host: string, database: string, name: string) => {
  const { stdout } = await lab.exec(host, ['getent', database, name])
  return [...new Set(stdout.split('\n').flatMap((line) => line.split(' ')[0] || []))].toSorted()
}

t.test('the mesh that the folder describes', async (t) => {
  const paths = async () => (await waysOf(lab)).filter(({ path }) => path.rung !== 'none')
  await until('every pair has a path', async () => (await paths()).length === POOLS.length * (POOLS.length - 1))
  const ways = await waysOf(lab)
  for (const pool of POOLS)
    t.strictSame(
      ways
        .filter(({ from }) => from === pool)
        .map(({ to }) => to)
        .toSorted(),
      POOLS.filter((other) => other !== pool),
      `paths of ${pool}`,
    )
  t.ok(
    ways.every(({ to, path }) => to !== 'loch' || path.node === 'skye'),
    'the gateway that the object names',
  )
  await until('glen and loch stay relayed, and it is known why', async () => {
    const { path } = (await waysOf(lab)).find(({ from, to }) => from === 'glen' && to === 'loch')!
    return path.rung.startsWith('relay') && /do not punch/.test(path.reason)
  })

  for (const family of FAMILIES)
    for (const node of NODES) {
      const client = `${node}-client`
      t.match(
        await getOnce(lab, client, url('quay'), family),
        { node: 'mull', client: addressOf(lab, client, family) },
        `${node} calls by name over IPv${family}`,
      )
      const [ip] = [clusterIpsOf(30)[family === 4 ? 0 : 1]]
      t.match(
        await echo(lab, client, ip, 9, family),
        { node: 'glen2', client: addressOf(lab, client, family), echo: 'hello' },
        `${node} sends a datagram over IPv${family}`,
      )
    }
})

t.test('topology keys', async (t) => {
  for (const family of FAMILIES) {
    // A node's own endpoint is twice as likely as its neighbour's: that one is never met is as likely as one in 2^23.
    const urls = Array.from({ length: 40 }, () => url('fuel'))
    const nodesSeen = async (host: string) =>
      [...new Set((await get(lab, host, urls, family)).map(({ node }) => node))].toSorted()
    t.strictSame(await nodesSeen('glen1-client'), ['glen1', 'glen2'], `glen has its own, IPv${family}`)
    t.strictSame(await nodesSeen('skye-client'), ['mull'], `isles too, IPv${family}`)
    t.strictSame(await get(lab, 'iona-client', [url('fuel')], family), [], `iona has none, IPv${family}`)
  }
})

t.test('names of a headless service', async (t) => {
  for (const family of FAMILIES) {
    const database = `ahostsv${family}`
    const quays = (...nodes: readonly string[]) =>
      nodes.map((node) => addressOf(lab, `${node}-quay`, family)).toSorted()
    t.strictSame(await lookup('mull-client', database, 'pilot'), quays('glen2', 'iona'), `all endpoints, IPv${family}`)
    t.strictSame(
      await lookup('mull-client', database, 'iona.pilot.port.svc.cluster.local'),
      quays('iona'),
      `one by its hostname, IPv${family}`,
    )
    t.match(
      await getOnce(lab, 'mull-client', 'http://iona.pilot:8181/', family),
      { node: 'iona' },
      `a call, IPv${family}`,
    )
  }
  t.strictSame(await lookup('mull-client', 'hosts', 'ghost.port.svc.cluster.local'), [], 'no such service')
})

t.test('edits are followed', async (t) => {
  const editedAt = Date.now()
  write(folder, 'late.yaml', serviceObjects({ name: 'late', number: 50, nodes: ['iona'] }))
  for (const family of FAMILIES)
    t.match(
      await getOnce(lab, 'glen2-client', url('late'), family, EDIT_WITHIN_MS),
      { node: 'iona' },
      `a new service, IPv${family}`,
    )
  t.comment(`a new service answers ${Date.now() - editedAt} ms after its file was written`)

  write(folder, 'late.yaml', serviceObjects({ name: 'late', number: 50, nodes: ['skye'] }))
  const moved = async () => (await get(lab, 'glen2-client', [url('late')], 4))[0]?.node === 'skye'
  await until('its endpoint moves', moved, { withinMs: EDIT_WITHIN_MS })

  rmSync(join(folder, 'late.yaml'))
  const gone = async () => (await lookup('glen2-client', 'hosts', 'late.port.svc.cluster.local')).length === 0
  await until('its name goes with its file', gone, { withinMs: EDIT_WITHIN_MS })
  t.pass('a service came, moved and went')
})

t.test('a file that breaks keeps its last good state', async (t) => {
  const [quay, iona] = ['quay.yaml', 'node-iona.yaml'].map((name) => readFileSync(join(folder, name), 'utf8')) as [
    string,
    string,
  ]
  const problems = async () => (await relayOf(lab))?.manifests?.problems ?? []
  t.strictSame(await problems(), [], 'nothing is wrong before')
  type Row = { readonly name: string; readonly file: string; readonly text: string; readonly message: RegExp }
  const rows: readonly Row[] = [
    { name: 'broken YAML', file: 'quay.yaml', text: quay.replace('spec:', 'spec: ['), message: /quay\.yaml:\d+/ },
    {
      name: 'a wrong kind',
      file: 'quay.yaml',
      text: quay.replace('kind: Service', 'kind: Servise'),
      message: /quay\.yaml:\d+.*Servise/,
    },
    {
      name: 'no IP address',
      file: 'quay.yaml',
      text: quay.replace('100.90.0.20', '100.90.0.320'),
      message: /quay\.yaml.*100\.90\.0\.320/,
    },
    {
      name: 'an impossible CIDR',
      file: 'node-iona.yaml',
      text: iona.replace('100.70.5.0/24', '100.70.5.0/40'),
      message: /node-iona\.yaml.*100\.70\.5\.0\/40/,
    },
    { name: 'an empty file', file: 'quay.yaml', text: '', message: /quay\.yaml/ },
  ]
  for (const { name, file, text, message } of rows) {
    writeFileSync(join(folder, file), text)
    const found = await until(
      `${name} is named`,
      async () => (await problems()).find((problem) => message.test(problem)),
      { withinMs: EDIT_WITHIN_MS, seen: () => name },
    )
    t.match(found, message, `${name}: ${found}`)
    t.match(
      (await problems()).join('\n'),
      /\.yaml: \d+ objects? (is|are) served as last known good/,
      `${name}: status says what is served`,
    )
    for (const family of FAMILIES)
      t.match(
        await getOnce(lab, 'iona-client', url('quay'), family),
        { node: 'mull' },
        `${name}: calls work, IPv${family}`,
      )
    writeFileSync(join(folder, file), file === 'quay.yaml' ? quay : iona)
    await until(`${name} is mended`, async () => (await problems()).length === 0, { withinMs: EDIT_WITHIN_MS })
  }
  // A mistake in one file does not keep others from being followed.
  appendFileSync(join(folder, 'quay.yaml'), '---\nkind: [Service\n')
  write(folder, 'other.yaml', serviceObjects({ name: 'other', number: 60, nodes: ['glen1'] }))
  t.match(
    await getOnce(lab, 'skye-client', url('other'), 4, EDIT_WITHIN_MS),
    { node: 'glen1' },
    'other files are followed',
  )
  writeFileSync(join(folder, 'quay.yaml'), quay)
})

t.test('two pools with one podCIDR', async (t) => {
  const [prefix, own6] = [podCidrsOf('skye')[0]!, podCidrsOf('iona')[1]!]
  const file = readFileSync(join(folder, 'node-iona.yaml'), 'utf8')
  const quay = (node: string, family: 4 | 6) => {
    const address = addressOf(lab, `${node}-quay`, family)
    return `http://${family === 6 ? `[${address}]` : address}:8181/`
  }
  const answers = async (node: string, family: 4 | 6) =>
    (await get(lab, 'glen1-client', [quay(node, family)], family)).length > 0
  t.ok(await answers('skye', 4), 'a call before')

  const working = async () => {
    for (const node of ['skye', 'iona'])
      for (const family of FAMILIES) t.ok(await answers(node, family), `${node} works`)
  }
  const problemsOfRelay = async () => (await relayOf(lab))?.manifests?.problems ?? []
  const claimed = (problems: readonly string[], node: string) =>
    problems.some((text) => text.includes(prefix) && text.includes(node) && text.includes('skye'))

  t.comment('a node that takes it by an edit is served as it was')
  write(folder, 'node-iona.yaml', [nodeObject('iona', [prefix, own6])])
  await until('the relay names both', async () => claimed(await problemsOfRelay(), 'iona'), {
    withinMs: EDIT_WITHIN_MS,
  })
  t.match(await problemsOfRelay(), [/node-iona\.yaml.*takes.*from node skye/])
  await working()
  writeFileSync(join(folder, 'node-iona.yaml'), file)

  t.comment('a new node does not get it')
  write(folder, 'node-rum.yaml', [{ ...nodeObject('iona', [prefix]), metadata: { name: 'rum' } }])
  const named = async () => (await gatewaysOf(lab)).every(({ problems }) => claimed(problems, 'rum'))
  await until('all gateways name both', named, { withinMs: EDIT_WITHIN_MS })
  t.match(await problemsOfRelay(), [/node-rum\.yaml.*node skye of pool loch, created first, keeps it/])
  await working()
  t.ok(await answers('mull', 4), 'the rest of the pool works')

  rmSync(join(folder, 'node-rum.yaml'))
  await until('nobody complains any more', async () => !(await named()) && (await problemsOfRelay()).length === 0)
  await working()
})

const KUBECTL = (process.env['PATH'] ?? '')
  .split(':')
  .map((directory) => join(directory, 'kubectl'))
  .find((file) => existsSync(file))

t.test('kubectl on a host', { skip: KUBECTL === undefined && 'kubectl is not installed' }, async (t) => {
  const server = lab.topology.relay.url
  const { stdout: kubeconfig } = await lab.exec('cloud', [
    'fulmar',
    'kubeconfig',
    '--user',
    'skipper',
    '--server',
    server,
  ])
  const kubectl = (...argv: readonly string[]) =>
    lab.exec(
      'glen2',
      [
        'sh',
        '-c',
        'umask 077; cat > /run/kubeconfig; exec "$@"',
        'sh',
        KUBECTL!,
        '--kubeconfig=/run/kubeconfig',
        ...argv,
      ],
      { input: kubeconfig },
    )
  const { stdout, stderr } = await kubectl('get', 'nodes,services,endpointslices', '-A')
  t.match(stdout, /node\/iona +Ready /, stderr)
  t.match(stdout, /port +service\/tide +ClusterIP +100\.90\.0\.30 +<none> +9\/UDP/)
  t.match(stdout, /port +endpointslice\.discovery\.k8s\.io\/pilot-ipv6 +IPv6 +8181 +fd5a:70:2::8,fd5a:70:5::8/)

  const watch = lab.spawn('glen2', [KUBECTL!, '--kubeconfig=/run/kubeconfig', 'get', 'services', '-A', '-w'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let seen = ''
  watch.stdout!.on('data', (chunk: Buffer) => (seen += String(chunk)))
  await until('kubectl lists', () => seen.includes('tide'))
  write(folder, 'news.yaml', serviceObjects({ name: 'news', number: 70, nodes: [] }))
  await until('kubectl sees the new service', () => /port +news +ClusterIP +100\.90\.0\.70/.test(seen))
  watch.kill()
  rmSync(join(folder, 'news.yaml'))

  const stranger = kubeconfig
    .replace(/client-certificate-data: .*\n/, 'token: nobody\n')
    .replace(/ *client-key-data: .*\n/, '')
  const refused = await lab.exec(
    'glen2',
    ['sh', '-c', `cat > /run/stranger; exec ${KUBECTL} --kubeconfig=/run/stranger get nodes`],
    { input: stranger },
  )
  t.not(refused.code, 0)
  t.match(refused.stderr, /Unauthorized/, 'without a certificate')
})

t.test('the API without a certificate', async (t) => {
  const { stdout } = await lab.exec('iona', ['curl', '-sk', `${lab.topology.relay.url}/api/v1/nodes`])
  t.match(JSON.parse(stdout), { kind: 'Status', code: 401, reason: 'Unauthorized' })
})

t.test('join tokens', async (t) => {
  const relay = lab.topology.relay.url
  const tokens = (await lab.exec('cloud', ['fulmar', 'token', 'create', '--node', 'buoy,barge'])).stdout
    .trim()
    .split('\n')
  const [buoy, barge] = tokens.map((line) => line.split(' ')[1]!) as [string, string]
  const joins = (...argv: readonly string[]) => lab.exec('glen1', ['fulmar', 'join', '--relay', relay, ...argv])
  const rows = [
    {
      name: 'the first use',
      argv: ['--token', buoy, '--state-dir', '/run/buoy'],
      code: 0,
      says: /joined .* as node buoy/,
    },
    {
      name: 'again by the same',
      argv: ['--token', buoy, '--state-dir', '/run/buoy'],
      code: 0,
      says: /already node buoy .*nothing to do/,
    },
    {
      name: 'by somebody else',
      argv: ['--token', buoy, '--state-dir', '/run/thief'],
      code: 1,
      says: /token for node buoy was used before, by another key; make a new one with fulmar token create/,
    },
    { name: 'by a machine that is a node', argv: ['--token', barge], code: 1, says: /already node glen1 of .*--force/ },
    {
      name: 'for another name',
      argv: ['--token', barge, '--node', 'glen1', '--state-dir', '/run/barge'],
      code: 1,
      says: /token is for node barge, not for glen1/,
    },
    {
      name: 'unharmed by that',
      argv: ['--token', barge, '--state-dir', '/run/barge'],
      code: 0,
      says: /joined .* as node barge/,
    },
  ]
  for (const { name, argv, code, says } of rows) {
    const result = await joins(...argv)
    t.match(result.stdout + result.stderr, says, name)
    t.equal(result.code === 0, code === 0, `${name}: exit code ${result.code}`)
    t.notMatch(result.stderr, /\n +at /, `${name}: no stack`)
  }
})
